"""Which events of a window another copy outlives: the same id newer, or an equal record earlier.

DuckDB holds ids and keys, and spills them; what is found comes out packed, never as Python objects.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import connect, engine_errors, statement
from pipelines.losers import Losers, pack_places, places_within
from pipelines.scans import Session, open_session
from pipelines.work import BatchRange, ShardWork

_ROWS_PER_READ = 100_000
_ROWS_AT_ONCE = 8_000_000  # compared with each other, within the least memory that DuckDB has
_IDS = "event_ids(id varchar, version timestamp, batch integer, row bigint)"
# Arrow has no uhugeint: DuckDB hands its bits over as a decimal, for which they compare.
_KEYS = "event_keys(key decimal(38, 0), batch integer, row bigint)"
_OWN_KEYS = "event_keys(key uhugeint, batch integer, row bigint)"
_merging = threading.Lock()  # one window's ids or keys at a time may fill `memory_limit` here


ListTables = Callable[[Callable[[ShardWork], pa.Table], list[ShardWork]], Iterator[pa.Table]]
"""Calls `list_ids` or `list_keys` for each work, elsewhere; yields what they return."""


def with_losers(works: list[ShardWork], list_all: ListTables | None = None) -> list[ShardWork]:
    """Return the works of a window, which leave out what another copy in it outlives.

    Args:
        works: of all its shards.
        list_all: lists ids and keys of shards on workers; by default that is done here.
    """
    if len(works) <= 1:
        return [replace(work, finds_losers=True) for work in works]
    if list_all is None:
        whole = replace(works[0], ranges=_joined(works))
        losers = find_losers(whole)
        return [_narrowed(work, losers) for work in works]
    with _merging:
        losers = Losers()
        if "id" in works[0].mapping.fields:
            ids = list_all(list_ids, works)
            losers = Losers(find_newer(works[0].config, ids, rows=_count_rows(works)))
            works = [_narrowed(work, losers) for work in works]
        if works[0].config.remove_duplicates != "none":
            keys = list_all(list_keys, works)
            duplicates = find_equal_keys(works[0].config, keys, rows=_count_rows(works))
            losers = Losers(losers.superseded, duplicates)
    return [_narrowed(work, losers) for work in works]


def find_losers(work: ShardWork) -> Losers:
    """Return the superseded and duplicate events of a work that is all of its window."""
    with open_session(replace(work, finds_losers=True)) as session:
        settle_losers(session)
        return session.work.losers


def settle_losers(session: Session) -> None:
    """Find the losers of a session's work and leave them out, if the work is to find its own."""
    work = session.work
    if not work.finds_losers or _count_rows([work]) <= 1:
        return
    session.set_losers(Losers(_find_superseded(session)))
    if work.config.remove_duplicates == "none":
        return
    with engine_errors("finding duplicates"):
        buckets = _Buckets(session.con, _OWN_KEYS, _count_rows([work]))
        for scan in session.scans():
            session.collect_keys(scan)
            buckets.take()
        duplicates = buckets.find("find_duplicates")
    session.set_losers(Losers(session.work.losers.superseded, duplicates))


def find_superseded(work: ShardWork) -> bytes:
    """Return the packed places of every event of which the work's window has a newer copy."""
    with open_session(work) as session:
        return _find_superseded(session)


def list_ids(work: ShardWork) -> pa.Table:
    """Return what says which copy of an id is the newest: id, version, batch, row."""
    with open_session(work) as session:
        return _table(session.ids(scan) for scan in session.scans(_id_columns(work)))


def list_keys(work: ShardWork) -> pa.Table:
    """Return hashes of what a shard would export, to find duplicates: key, batch, row."""
    with open_session(work) as session:
        return _table(session.keys(scan) for scan in session.scans())


def find_newer(config: ExportConfig, tables: Iterable[pa.Table], *, rows: int) -> bytes:
    """Return the packed places of every copy but the newest among the tables of `list_ids`.

    Tables are taken one after the other, and none is kept; they have `rows` rows at most.
    """
    with _connected(config) as con, engine_errors("finding the newest copy of each id"):
        buckets = _Buckets(con, _IDS, rows)
        for _ in _listed(con, tables):
            con.execute("insert into event_ids select id, version, batch, row from listed")
            buckets.take()
        return buckets.find("find_superseded")


def find_equal_keys(config: ExportConfig, tables: Iterable[pa.Table], *, rows: int) -> bytes:
    """Return the packed places of every copy but the first among the tables of `list_keys`.

    Tables are taken one after the other, and none is kept; they have `rows` rows at most.
    """
    with _connected(config) as con, engine_errors("finding duplicates"):
        buckets = _Buckets(con, _KEYS, rows)
        for _ in _listed(con, tables):
            con.execute("insert into event_keys select key, batch, row from listed")
            buckets.take()
        return buckets.find("find_duplicates")


def _find_superseded(session: Session) -> bytes:
    work = session.work
    if "id" not in work.mapping.fields:
        return b""
    with engine_errors("finding the newest copy of each id"):
        buckets = _Buckets(session.con, _IDS, _count_rows([work]))
        for scan in session.scans(_id_columns(work)):
            session.collect_ids(scan)
            buckets.take()
        return buckets.find("find_superseded")


class _Buckets:
    """A table of ids or keys, spread over as many as are compared one after the other.

    DuckDB spills tables and sorts; a join of hundred millions of texts it does not.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, table: str, rows: int) -> None:
        """Make the table, for `rows` rows at most; its first column is what is compared."""
        self._con = con
        self._name, _, columns = table.partition("(")
        self._key = columns.partition(" ")[0]
        count = max(1, -(-rows // _ROWS_AT_ONCE))
        self._parts = [f"{self._name}_{number}" for number in range(count)] if count > 1 else []
        for name in (self._name, *self._parts):
            con.execute(f"create temp table {name}({columns}")

    def take(self) -> None:
        """Spread what was added to the table."""
        for number, part in enumerate(self._parts):
            chosen = f"hash({self._key}) % {len(self._parts)} = {number}"
            self._con.execute(f"insert into {part} select * from {self._name} where {chosen}")  # noqa: S608 - names and numbers of ours
        if self._parts:
            self._con.execute(f"delete from {self._name}")  # noqa: S608 - a name of ours

    def find(self, name: str) -> bytes:
        """Return the packed places that a statement finds, and drop the tables."""
        if not self._parts:
            places = _places(self._con, statement(name))
            self._con.execute(f"drop table {self._name}")
            return places
        self._con.execute("create temp table found_places(batch integer, row bigint)")
        for part in self._parts:
            self._con.execute(f"drop table {self._name}")
            self._con.execute(f"alter table {part} rename to {self._name}")
            self._con.execute(f"insert into found_places {statement(name)}")
        places = _places(self._con, "select batch, row from found_places order by batch, row")
        self._con.execute("drop table found_places")
        self._con.execute(f"drop table {self._name}")
        return places


def _places(con: duckdb.DuckDBPyConnection, query: str) -> bytes:
    """The packed places that a query returns."""
    with con.sql(query).to_arrow_reader(_ROWS_PER_READ) as reader:
        return pack_places(reader)


def _connected(config: ExportConfig) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    return connect(memory_limit=config.memory_limit, threads=config.threads)


def _listed(con: duckdb.DuckDBPyConnection, tables: Iterable[pa.Table]) -> Iterator[None]:
    """Yield for each table that is not empty, while the connection knows it as `listed`."""
    for table in tables:
        if table.num_rows:
            con.register("listed", table)
            yield
            con.unregister("listed")


def _count_rows(works: Iterable[ShardWork]) -> int:
    ranges = (entry.rows for work in works for entry in work.ranges)
    return sum(end - first for first, end in ranges)


def _id_columns(work: ShardWork) -> set[str]:
    """The columns that `ids` reads."""
    return {
        column
        for columns in {entry.columns for entry in work.ranges}
        for name in ("id", "requested_at", "received_at", "updated_at")
        for column in work.mapping.reads(name, columns.names)
    }


def _table(scans: Iterable[list[pa.RecordBatch]]) -> pa.Table:
    reads = [rows for scan in scans for rows in scan]
    return pa.Table.from_batches(reads) if reads else pa.table({})


def _joined(works: list[ShardWork]) -> tuple[BatchRange, ...]:
    """The ranges of all shards, a batch cut by a shard's end made whole again."""
    ranges: list[BatchRange] = []
    for entry in (entry for work in works for entry in work.ranges):
        if ranges and ranges[-1].number == entry.number:
            last = ranges[-1]
            rows = (last.rows[0], entry.rows[1])
            ranges[-1] = replace(last, rows=rows, bytes=last.bytes + entry.bytes)
        else:
            ranges.append(entry)
    return tuple(ranges)


def _narrowed(work: ShardWork, losers: Losers) -> ShardWork:
    """The work with those losers that are its own."""
    own = [(entry.number, entry.rows) for entry in work.ranges]
    superseded = places_within(losers.superseded, own)
    return replace(work, losers=Losers(superseded, places_within(losers.duplicates, own)))
