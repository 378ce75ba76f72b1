"""Reading one shard's batches in order: copies fetched ahead, queries, text that is not UTF-8."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import ExportConfig
from pipelines.engine import (
    Engine,
    NotUtf8Error,
    check_condition,
    compose,
    engine_errors,
    open_engine,
)
from pipelines.errors import ConfigError, ContractError
from pipelines.losers import BATCH_WIDTH, Losers, list_places, places_between, unpack_places
from pipelines.reshape import Query, Scan
from pipelines.sources.fetch import Spool, readable_of
from pipelines.sources.fields import event_sql
from pipelines.sources.listing import open_source
from pipelines.sources.not_utf8 import columns_of_copy
from pipelines.work import BatchRange, ShardWork

_MOST_ROWS_PER_READ = 2048  # DuckDB's vector
_LEAST_ROWS_PER_READ = 256
# Of compressed batches. A read is a few times that: the allocator keeps blocks of up to 32 MiB for
# the next one, larger ones come from the kernel each time, page by page.
_BYTES_PER_READ = 2 * 1024**2
# One scan is read while the next one is fetched: each twice the last, so that the first is at hand.
_FIRST_REMOTE_SCAN_BYTES, _REMOTE_SCAN_BYTES = 8 * 1024**2, 64 * 1024**2
_SCAN_FILES = 512
_FETCHERS = 4
_BAD_JSON_COLUMN = "Invalid JSON found in Parquet file"  # DuckDB checks it as it reads
_T = TypeVar("_T")


class Session:
    """One connection and spool over a shard's batches."""

    def __init__(self, work: ShardWork, spool: Spool, con: duckdb.DuckDBPyConnection) -> None:
        """Use `open_session`."""
        self.work = work
        self.reshape = work.reshape()
        self.losers = False
        self.con = con
        self._spool = spool
        self._rows_per_read = _rows_per_read(work.ranges)
        self._collected = False
        self._fetched: Collection[str] | None = None
        self.outlived: Counter[tuple[int, int]] = Counter()

    def scans(self, columns: Collection[str] | None = None) -> Iterator[Scan]:
        """Yield the shard's scans in batch order, each with its files at hand until the next.

        Args:
            columns: what to fetch of remote batches; by default all that the mapping reads.

        Raises:
            BatchChangedError: a batch was overwritten before or while its scan was in use; what
                was made of the scan is then not to be used.
        """
        self._fetched = columns
        with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch") as pool:

            def fetch(group: list[BatchRange]) -> list[Future[Path]]:
                return [pool.submit(self._fetch, entry, columns) for entry in group]

            groups = list(_groups(self.work.ranges, remote=not self._spool.in_place))
            ahead = fetch(groups[0]) if groups else []
            for number, group in enumerate(groups):
                files = [future.result() for future in ahead]
                ahead = fetch(groups[number + 1]) if number + 1 < len(groups) else []
                yield Scan(
                    files=tuple(str(file) for file in files),
                    paths=tuple(entry.path for entry in group),
                    first_batch=group[0].number,
                    rows=(0, 2**62) if len(group) > 1 else group[0].rows,
                    columns=group[0].columns,
                )
                for entry in group:
                    self._spool.check_unchanged(entry.path, entry.etag)
                for file in files:
                    self._spool.release(file)

    def lines(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Yield what `reshape_events` returns for every event that no early rule drops, in order.

        Losers are left out here, not in SQL: DuckDB's joins keep order on one thread only.
        """
        done = 0
        try:
            for rows in self._read(scan, self.reshape.lines(scan, losers=False)):
                done += rows.num_rows
                yield self._without_losers(rows)
        except NotUtf8Error:
            # The same rows come again in the same order: those handed out are passed over.
            for single in self._split_as_bytes(scan):
                for rows in self._read(single, self.reshape.lines(single, losers=False)):
                    cut = min(done, rows.num_rows)
                    done -= cut
                    if cut < rows.num_rows:
                        yield self._without_losers(rows.slice(cut))

    def _without_losers(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows, in batch order, without those that another copy outlives."""
        for disposition, packed in self._losers():
            if not packed or not rows.num_rows:
                continue
            places = list_places(rows)
            near = places_between(packed, places[0].as_py(), places[-1].as_py())
            if not len(near):
                continue
            lost = pc.is_in(places, value_set=near)
            if self.reshape.rules.reads_payload:  # otherwise `counts` has them
                for found in pc.value_counts(rows.column("batch").filter(lost)).to_pylist():
                    self.outlived[found["values"], disposition] += found["counts"]
            rows = rows.filter(pc.invert(lost))
        return rows

    def _losers(self) -> tuple[tuple[int, bytes], ...]:
        """Packed places by disposition."""
        rules, losers = self.reshape.rules, self.work.losers
        return (rules.superseded, losers.superseded), (rules.duplicate, losers.duplicates)

    def set_losers(self, losers: Losers) -> None:
        """Leave these events out, here and in queries, which join them as a table."""
        self.work = replace(self.work, losers=losers)
        self.losers = bool(losers)
        self.con.execute(
            "create or replace temp table losers(batch integer, row bigint, disposition integer)"
        )
        for disposition, packed in self._losers():
            if not packed:
                continue
            self.con.register("listed_places", pa.table({"place": unpack_places(packed)}))
            with engine_errors("listing superseded events"):
                self.con.execute(
                    "insert into losers "
                    "select place // $width, place % $width, $disposition from listed_places",
                    {"width": BATCH_WIDTH, "disposition": disposition},
                )
            self.con.unregister("listed_places")

    def ordered_lines(self) -> Iterator[pa.RecordBatch]:
        """Yield `lines` of all collected scans by event time, then batch and row."""
        order = self.work.config.order_by
        columns = "".join(f"p{n}, " for n in range(len(self.reshape.rules.partition_keys)))
        sql = compose(
            "ordered_lines",
            partition_columns=columns,
            direction="desc" if order is not None and order.direction == "desc" else "asc",
        )
        with (
            engine_errors("sorting by requested_at"),
            self.con.sql(sql).to_arrow_reader(self._rows_per_read) as reader,
        ):
            yield from reader

    def collect_lines(self, scan: Scan) -> None:
        """Add a scan's lines to those that `ordered_lines` sorts."""

        def collect(part: Scan) -> list[Any]:
            start = "create temp table ordered_lines as"
            if self._collected:
                start = "insert into ordered_lines"
            query = self.reshape.lines(part, losers=self.losers)
            found = self._fetch_all(part, query, start)
            self._collected = True
            return found

        self._each(scan, collect)

    def counts(self, scan: Scan) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
        """Return (batch, events) of all events, and (batch, disposition, events) of dropped ones.

        Dropped are those that `lines` does not yield.
        """

        def read(part: Scan) -> list[tuple[int, int]]:
            return self._fetch_all(part, self.reshape.counts(part))

        def dropped(part: Scan) -> list[tuple[int, int, int]]:
            query = self.reshape.dropped(part, losers=self.losers)
            return [] if query is None else self._fetch_all(part, query)

        return self._each(scan, read), self._each(scan, dropped)

    def collect_ids(self, scan: Scan) -> None:
        """Add a scan's ids to the table event_ids."""

        def collect(part: Scan) -> list[Any]:
            return self._fetch_all(part, self.reshape.ids(part), "insert into event_ids")

        self._each(scan, collect)

    def ids(self, scan: Scan) -> list[pa.RecordBatch]:
        """Return (id, version, batch, row) of the events that have an id."""
        return self._each(scan, lambda part: list(self._read(part, self.reshape.ids(part))))

    def collect_keys(self, scan: Scan) -> None:
        """Add what `keys` returns of a scan to the table event_keys."""

        def collect(part: Scan) -> list[Any]:
            query = self.reshape.keys(part, losers=self.losers)
            return self._fetch_all(part, query, "insert into event_keys")

        self._each(scan, collect)

    def keys(self, scan: Scan) -> list[pa.RecordBatch]:
        """Return (key, batch, row) of what would be exported if nothing were a duplicate."""
        return self._each(
            scan, lambda part: list(self._read(part, self.reshape.keys(part, losers=self.losers)))
        )

    def bind(self, scan: Scan) -> None:
        """Let DuckDB check names and types of the export's queries; reads no rows.

        Raises:
            ConfigError: an expression does not fit the columns, or `where` is no condition.
        """
        with _as_config_error(), engine_errors(f"checking the config against {_named(scan)}"):
            query = self.reshape.lines(scan, losers=self.losers)
            self.con.sql(query.sql, params=query.params)
            condition = self.reshape.condition(scan)
            if condition is not None:
                check_condition(self.con, condition.sql, condition.params)

    def _read(self, scan: Scan, query: Query) -> Iterator[pa.RecordBatch]:
        with self._blaming(scan, query), _reading(scan):
            relation = self.con.sql(query.sql, params=query.params)
            with relation.to_arrow_reader(self._rows_per_read) as reader:
                yield from reader

    def _fetch_all(self, scan: Scan, query: Query, start: str = "") -> list[Any]:
        """Rows of a query, or of a statement that starts with `start` and goes on with it."""
        with self._blaming(scan, query), _reading(scan):
            return self.con.execute(f"{start} {query.sql}", query.params).fetchall()

    @contextmanager
    def _blaming(self, scan: Scan, query: Query) -> Iterator[None]:
        """Name the one batch that cannot be read, if a scan of many cannot."""
        try:
            yield
        except NotUtf8Error:
            raise
        except ContractError as exc:
            # A batch overwritten under DuckDB's hands looks damaged.
            for entry in (entry for entry in self.work.ranges if entry.path in scan.paths):
                self._spool.check_unchanged(entry.path, entry.etag)
            if len(scan.files) == 1:
                raise self._explained(exc, scan.paths[0]) from exc
            for single in _singles(scan):
                again = {"batches": list(single.files), "paths": list(single.paths)}
                again = {name: value for name, value in again.items() if name in query.params}
                try:
                    with _reading(single):
                        rows = self.con.execute(query.sql, query.params | again)
                        while rows.fetchmany(self._rows_per_read):
                            pass
                except NotUtf8Error:
                    continue
                except ContractError as found:
                    raise self._explained(found, single.paths[0]) from exc
            raise

    def _explained(self, exc: ContractError, batch: str) -> ContractError:
        hint = ""
        if self.work.config.source.on_unreadable_batch == "skip":
            hint = "; on_unreadable_batch: skip covers batches whose footer cannot be read"
        return ContractError(f"{str(exc).rstrip(': ')}{hint}", batch=batch)

    def _each(self, scan: Scan, work: Callable[[Scan], list[_T]]) -> list[_T]:
        """The work done on a scan, or on its batches as bytes when text in it is not UTF-8."""
        try:
            return work(scan)
        except NotUtf8Error:
            return [found for single in self._split_as_bytes(scan) for found in work(single)]

    def _split_as_bytes(self, scan: Scan) -> Iterator[Scan]:
        """Yield the scan again, a batch at a time, its text columns read as bytes."""
        columns = event_sql(self.work.mapping, scan.columns, batch=scan.paths[0]).columns
        fetched = columns if self._fetched is None else self._fetched
        for single in _singles(scan):
            file, batch = Path(single.files[0]), single.paths[0]
            try:
                with engine_errors(f"reading {batch} as bytes"):
                    copy, marked = self._spool.as_bytes(file, scan.rows, columns, fetched)
            except ContractError as exc:
                message = f"{batch}: holds text that is not UTF-8, and {exc}"
                raise self._explained(ContractError(message), batch) from exc
            known = columns_of_copy(scan.columns, marked)
            yield replace(single, files=(str(copy),), columns=known)
            self._spool.release(copy)

    def _fetch(self, entry: BatchRange, columns: Collection[str] | None) -> Path:
        if columns is None:
            columns = event_sql(self.work.mapping, entry.columns, batch=entry.path).columns
        return self._spool.materialise(entry.path, entry.etag, entry.size, entry.rows, columns)


@contextmanager
def _as_config_error() -> Iterator[None]:
    """Blame the config for what the engine refuses before it has read an event."""
    try:
        yield
    except ContractError as exc:
        if isinstance(exc.__cause__, duckdb.Error):
            raise ConfigError(str(exc)) from exc
        raise


@contextmanager
def open_source_engine(config: ExportConfig) -> Iterator[Engine]:
    """Yield an engine of the export's limits that may read its source, where that is local."""
    limit, threads = config.memory_limit, config.threads
    readable = readable_of(open_source(config.source).store)
    with open_engine(memory_limit=limit, threads=threads, readable=readable) as engine:
        yield engine


@contextmanager
def open_session(work: ShardWork) -> Iterator[Session]:
    """Yield a session; its copies and its connection go with it."""
    store = open_source(work.config.source).store
    with open_source_engine(work.config) as engine, Spool(store, engine.folder) as spool:
        session = Session(work, spool, engine.con)
        session.set_losers(work.losers)
        yield session


def check_queries(work: ShardWork, engine: Engine) -> None:
    """Check the export's expressions against a shard's columns; of batches only footers are read.

    Args:
        work: the shard.
        engine: one of `open_source_engine`, on which a statement may be running.

    Raises:
        ConfigError: an expression does not fit.
    """
    store = open_source(work.config.source).store
    with closing(engine.con.cursor()) as con, Spool(store, engine.folder) as spool:
        session = Session(work, spool, con)
        session.set_losers(work.losers)
        for scan in session.scans(()):
            session.bind(scan)


def _groups(ranges: tuple[BatchRange, ...], *, remote: bool) -> Iterator[list[BatchRange]]:
    """Ranges that one query can read: whole batches of the same columns, or one cut batch."""
    group: list[BatchRange] = []
    size, limit = 0, _FIRST_REMOTE_SCAN_BYTES
    for entry in ranges:
        whole = entry.rows == (0, entry.total_rows)
        fits = (
            group
            and whole
            and group[0].rows == (0, group[0].total_rows)
            and entry.columns == group[0].columns
            and entry.number == group[-1].number + 1
            and len(group) < _SCAN_FILES
            and not (remote and size + entry.bytes > limit)
        )
        if group and not fits:
            yield group
            group, size, limit = [], 0, min(2 * limit, _REMOTE_SCAN_BYTES)
        group.append(entry)
        size += entry.bytes
    if group:
        yield group


@contextmanager
def _reading(scan: Scan) -> Iterator[None]:
    """Our errors for DuckDB's; a JSON column that holds no JSON is to be read as bytes, too."""
    with engine_errors(f"reading {_named(scan)}"):
        try:
            yield
        except (duckdb.Error, OSError, UnicodeDecodeError) as exc:
            # DuckDB quotes the text, and Python cannot read the message when that is not UTF-8.
            if not isinstance(exc, UnicodeDecodeError) and _BAD_JSON_COLUMN not in str(exc):
                raise
            raise NotUtf8Error(f"reading {_named(scan)}: a JSON column holds other text") from exc


def _singles(scan: Scan) -> Iterator[Scan]:
    """The scan's batches, each alone."""
    for number, (file, path) in enumerate(zip(scan.files, scan.paths, strict=True)):
        yield replace(scan, files=(file,), paths=(path,), first_batch=scan.first_batch + number)


def _named(scan: Scan) -> str:
    return scan.paths[0] if len(scan.paths) == 1 else f"{scan.paths[0]} to {scan.paths[-1]}"


def _rows_per_read(ranges: Sequence[BatchRange]) -> int:
    rows = sum(entry.rows[1] - entry.rows[0] for entry in ranges)
    size = sum(entry.bytes for entry in ranges)
    fit = _BYTES_PER_READ * rows // max(size, 1)
    return min(max(fit, _LEAST_ROWS_PER_READ), _MOST_ROWS_PER_READ)
