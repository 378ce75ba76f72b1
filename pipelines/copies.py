"""Which events of a window another copy outlives: the same id newer, or an equal record earlier.

DuckDB holds ids and keys, and spills them; what is found comes out packed, never as Python objects.
"""

from collections.abc import Iterable
from dataclasses import replace

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import connect, engine_errors, statement
from pipelines.losers import Losers, pack_places
from pipelines.scans import Session, open_session
from pipelines.work import ShardWork

_ROWS_PER_READ = 100_000


def find_losers(work: ShardWork) -> Losers:
    """Return the superseded and duplicate events of a work that is all of its window."""
    with open_session(replace(work, finds_losers=True)) as session:
        settle_losers(session)
        return session.work.losers


def settle_losers(session: Session) -> None:
    """Find the losers of a session's work and leave them out, if the work is to find its own."""
    work = session.work
    rows = sum(end - first for first, end in (entry.rows for entry in work.ranges))
    if not work.finds_losers or rows <= 1:
        return
    session.set_losers(Losers(_find_superseded(session)))
    if work.config.remove_duplicates == "none":
        return
    session.con.execute("create temp table event_keys(key uhugeint, batch integer, row bigint)")
    for scan in session.scans():
        session.collect_keys(scan)
    duplicates = _find_duplicates(session.con)
    session.con.execute("drop table event_keys")
    session.set_losers(Losers(session.work.losers.superseded, duplicates))


def find_superseded(work: ShardWork) -> bytes:
    """Return the packed places of every event of which the work's window has a newer copy."""
    with open_session(work) as session:
        return _find_superseded(session)


def list_keys(work: ShardWork) -> pa.Table:
    """Return hashes of what a shard would export, to find duplicates: key, batch, row."""
    reads: list[pa.RecordBatch] = []
    with open_session(work) as session:
        for scan in session.scans():
            reads += session.keys(scan)
    return pa.Table.from_batches(reads) if reads else pa.table({})


def find_equal_keys(config: ExportConfig, tables: Iterable[pa.Table]) -> bytes:
    """Return the packed places of every copy but the first among the tables of `list_keys`.

    Tables are taken one after the other, and none is kept.
    """
    with connect(memory_limit=config.memory_limit, threads=config.threads) as con:
        # Arrow has no uhugeint: DuckDB hands its bits over as a decimal, for which they compare.
        con.execute("create temp table event_keys(key decimal(38, 0), batch integer, row bigint)")
        for table in tables:
            if table.num_rows:
                con.register("listed_keys", table)
                with engine_errors("finding duplicates"):
                    con.execute("insert into event_keys select key, batch, row from listed_keys")
                con.unregister("listed_keys")
        return _find_duplicates(con)


def _find_superseded(session: Session) -> bytes:
    work = session.work
    if "id" not in work.mapping.fields:
        return b""
    needed = {
        column
        for columns in {entry.columns for entry in work.ranges}
        for name in ("id", "requested_at", "received_at", "updated_at")
        for column in work.mapping.reads(name, columns.names)
    }
    session.con.execute(
        "create temp table event_ids(id varchar, version timestamp, batch integer, row bigint)"
    )
    for scan in session.scans(needed):
        session.collect_ids(scan)
    with engine_errors("finding the newest copy of each id"):
        found = _places(session.con, "find_superseded")
        session.con.execute("drop table event_ids")
        return found


def _find_duplicates(con: duckdb.DuckDBPyConnection) -> bytes:
    with engine_errors("finding duplicates"):
        return _places(con, "find_duplicates")


def _places(con: duckdb.DuckDBPyConnection, name: str) -> bytes:
    """The packed places that a statement returns."""
    with con.sql(statement(name)).to_arrow_reader(_ROWS_PER_READ) as reader:
        return pack_places(reader)
