"""Reading one shard's batches in order: copies fetched ahead, queries, text that is not UTF-8."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import ExportConfig
from pipelines.engine import NotUtf8Error, compose, connect, engine_errors
from pipelines.errors import ConfigError, ContractError
from pipelines.reshape import Query, Reshape, Scan, compile_rules
from pipelines.sources.batches import open_source
from pipelines.sources.fetch import Spool
from pipelines.sources.fields import event_sql
from pipelines.sources.mapping import BINARY, TEXT, Columns, EventMapping
from pipelines.windows import UNDATED, Window

_ROWS_PER_READ = 2048  # DuckDB's vector: smaller and larger reads are slower
_REMOTE_SCAN_BYTES = 64 * 1024**2  # one scan is read while the next one is fetched
_SCAN_FILES = 512
_FETCHERS = 4
_BAD_JSON_COLUMN = "Invalid JSON found in Parquet file"  # DuckDB checks it as it reads
_KEY_WIDTH = 2**40  # more rows than a batch can hold
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Rows of one batch that a shard reads.

    Attributes:
        number: of the batch among the window's batches by path.
        rows: half-open range.
        bytes: compressed bytes of the row groups that hold the rows.
    """

    number: int
    path: str
    etag: str
    size: int
    rows: tuple[int, int]
    total_rows: int
    bytes: int
    columns: Columns


@dataclass(frozen=True, slots=True)
class ShardWork:
    """All that one shard needs to know; picklable and small.

    Attributes:
        now: the run's moment, to which `last` filters refer.
        window: whose events are exported, between start and end (naive UTC).
        digest: of the window's inputs, for names.
        losers: superseded and duplicate events of this shard as (batch, row, disposition), sorted.
        committed: paths of this shard's parts and rejects that the newest generation names.
    """

    config: ExportConfig
    mapping: EventMapping
    now: datetime
    window: Window
    start: datetime
    end: datetime
    digest: str
    shard: int
    ranges: tuple[BatchRange, ...]
    losers: tuple[tuple[int, int, int], ...] = ()
    committed: tuple[str, ...] = ()

    def reshape(self) -> Reshape:
        """Return the composer of this work's queries."""
        undated = self.window == UNDATED
        rules = compile_rules(self.config, self.mapping, now=self.now, undated=undated)
        return Reshape(self.config, self.mapping, rules, self.start, self.end, undated)


class Session:
    """One connection and spool over a shard's batches."""

    def __init__(self, work: ShardWork, spool: Spool, con: duckdb.DuckDBPyConnection) -> None:
        """Use `open_session`."""
        self.work = work
        self.reshape = work.reshape()
        self.losers = bool(work.losers)
        self.con = con
        self._spool = spool
        self._collected = False
        self._loser_keys = [batch * _KEY_WIDTH + row for batch, row, _ in work.losers]
        self.outlived: Counter[tuple[int, int]] = Counter()

    def scans(self, columns: Collection[str] | None = None) -> Iterator[Scan]:
        """Yield the shard's scans in batch order, each with its files at hand until the next.

        Args:
            columns: what to fetch of remote batches; by default all that the mapping reads.
        """
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
        if not self._loser_keys or not rows.num_rows:
            return rows
        keys = pc.add(
            pc.multiply(rows.column("batch").cast(pa.int64()), _KEY_WIDTH), rows.column("row")
        )
        first = bisect_left(self._loser_keys, keys[0].as_py())
        last = bisect_right(self._loser_keys, keys[-1].as_py())
        if first == last:
            return rows
        lost = pc.is_in(keys, value_set=pa.array(self._loser_keys[first:last], pa.int64()))
        if self.reshape.rules.reads_payload:  # otherwise `counts` has them
            for batch, _, disposition in self.work.losers[first:last]:
                self.outlived[batch, disposition] += 1
        return rows.filter(pc.invert(lost))

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
            self.con.sql(sql).to_arrow_reader(_ROWS_PER_READ) as reader,
        ):
            yield from reader

    def collect_lines(self, scan: Scan) -> None:
        """Add a scan's lines to those that `ordered_lines` sorts."""

        def collect(part: Scan) -> list[Any]:
            query = self.reshape.lines(part, losers=self.losers)
            start = "create temp table ordered_lines as"
            if self._collected:
                start = "insert into ordered_lines"
            found = self._fetch_all(part, replace(query, sql=f"{start} {query.sql}"))
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
        self._each(scan, lambda part: self._fetch_all(part, self.reshape.ids(part)))

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
        with engine_errors(f"checking the config against {_named(scan)}"):
            query = self.reshape.lines(scan, losers=self.losers)
            self.con.sql(query.sql, params=query.params)
            condition = self.reshape.condition(scan)
            if condition is not None:
                (kind,) = self.con.sql(condition.sql, params=condition.params).types
                if str(kind) != "BOOLEAN":
                    raise ConfigError(f"where: gives {kind}, and must give true or false")

    def _read(self, scan: Scan, query: Query) -> Iterator[pa.RecordBatch]:
        with _reading(scan):
            relation = self.con.sql(query.sql, params=query.params)
            with relation.to_arrow_reader(_ROWS_PER_READ) as reader:
                yield from reader

    def _fetch_all(self, scan: Scan, query: Query) -> list[Any]:
        with _reading(scan):
            return self.con.execute(query.sql, query.params).fetchall()

    def _each(self, scan: Scan, work: Callable[[Scan], list[_T]]) -> list[_T]:
        """The work done on a scan, or on its batches as bytes when text in it is not UTF-8."""
        try:
            return work(scan)
        except NotUtf8Error:
            return [found for single in self._split_as_bytes(scan) for found in work(single)]

    def _split_as_bytes(self, scan: Scan) -> Iterator[Scan]:
        """Yield the scan again, a batch at a time, its text columns read as bytes."""
        families = tuple((n, BINARY if f == TEXT else f) for n, f in scan.columns.families)
        columns = event_sql(self.work.mapping, scan.columns, batch=scan.paths[0]).columns
        for number, file in enumerate(scan.files):
            try:
                copy = self._spool.with_binary_text(Path(file), scan.rows, columns)
            except ContractError as exc:
                batch = scan.paths[number]
                message = f"{batch}: text that is not UTF-8, in a column that {exc}"
                raise ContractError(message, batch=batch) from exc
            yield replace(
                scan,
                files=(str(copy),),
                paths=(scan.paths[number],),
                first_batch=scan.first_batch + number,
                columns=Columns(families),
            )
            self._spool.release(copy)

    def _fetch(self, entry: BatchRange, columns: Collection[str] | None) -> Path:
        if columns is None:
            columns = event_sql(self.work.mapping, entry.columns, batch=entry.path).columns
        return self._spool.materialise(entry.path, entry.etag, entry.size, entry.rows, columns)


@contextmanager
def open_session(work: ShardWork) -> Iterator[Session]:
    """Yield a session; its copies and its connection go with it."""
    store = open_source(work.config.source).store
    with Spool(store) as spool:
        readable = [str(spool.folder), *([str(store.root)] if spool.in_place else [])]
        config = work.config
        with connect(
            memory_limit=config.memory_limit, threads=config.threads, readable=readable
        ) as con:
            con.execute("create temp table losers(batch integer, row bigint, disposition integer)")
            if work.losers:
                con.register("listed_losers", _loser_table(work.losers))
                with engine_errors("listing superseded events"):
                    con.execute(
                        "insert into losers select batch, row, disposition from listed_losers"
                    )
            yield Session(work, spool, con)


def check_queries(work: ShardWork) -> None:
    """Check the export's expressions against a shard's columns; of batches only footers are read.

    Raises:
        ConfigError: an expression does not fit.
    """
    with open_session(work) as session:
        for scan in session.scans(()):
            session.bind(scan)


def _groups(ranges: tuple[BatchRange, ...], *, remote: bool) -> Iterator[list[BatchRange]]:
    """Ranges that one query can read: whole batches of the same columns, or one cut batch."""
    group: list[BatchRange] = []
    size = 0
    for entry in ranges:
        whole = entry.rows == (0, entry.total_rows)
        fits = (
            group
            and whole
            and group[0].rows == (0, group[0].total_rows)
            and entry.columns == group[0].columns
            and entry.number == group[-1].number + 1
            and len(group) < _SCAN_FILES
            and not (remote and size + entry.bytes > _REMOTE_SCAN_BYTES)
        )
        if group and not fits:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.bytes
    if group:
        yield group


def _loser_table(losers: tuple[tuple[int, int, int], ...]) -> pa.Table:
    batches, rows, dispositions = zip(*losers, strict=True)
    return pa.table(
        {
            "batch": pa.array(batches, pa.int32()),
            "row": pa.array(rows, pa.int64()),
            "disposition": pa.array(dispositions, pa.int32()),
        }
    )


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


def _named(scan: Scan) -> str:
    return scan.paths[0] if len(scan.paths) == 1 else f"{scan.paths[0]} to {scan.paths[-1]}"
