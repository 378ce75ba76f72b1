"""What the Parquet footers of batches say of rows, columns and event times."""

import json
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import ExportConfig
from pipelines.engine import NotUtf8Error, compose, engine_errors, open_engine
from pipelines.sources.columns import Columns, columns_of
from pipelines.sources.fetch import Spool, read_footer, readable_of
from pipelines.sources.fields import event_sql
from pipelines.sources.listing import SourceFiles
from pipelines.sources.mapping import EventMapping
from pipelines.sources.not_utf8 import columns_of_copy
from pipelines.storage import Store, StoredObject
from pipelines.windows import Grid, microseconds

_MICROSECOND = timedelta(microseconds=1)
_FOOTER_READERS = 16  # footers are small and far away: latency, not bandwidth
_UNITS = {
    "milliseconds": Fraction(1000),
    "microseconds": Fraction(1),
    "nanoseconds": Fraction(1, 1000),
}
_UNREADABLE = (pa.ArrowException, OSError)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows and compressed bytes of one row group, and the range of its event times if known."""

    rows: int
    bytes: int
    first_us: int | None = None
    last_us: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One raw Parquet object, as its footer describes it.

    Attributes:
        path: relative to the source's root; etag and size are the listing's.
        first_us, last_us: range of the valid event times in microseconds since 1970, None when
            no event has one.
        undated: events whose time is NULL or outside the source's valid times.
        windows: numbers of the grid's windows that hold its events; None where each between the
            first and the last may.
        unreadable: why the footer could not be read; rows and columns are then empty.
    """

    path: str
    etag: str
    size: int
    rows: int = 0
    columns: Columns = field(default_factory=lambda: Columns(()))
    row_groups: tuple[RowGroup, ...] = ()
    first_us: int | None = None
    last_us: int | None = None
    undated: int = 0
    windows: tuple[int, ...] | None = None
    unreadable: str = ""

    def rows_between(self, start_us: int, end_us: int) -> tuple[int, int]:
        """Return the half-open row range of the row groups that may hold times in the range."""
        first, last, row = None, 0, 0
        for group in self.row_groups:
            known = group.first_us is not None and group.last_us is not None
            if not known or (group.first_us < end_us and group.last_us >= start_us):  # type: ignore[operator]  # known
                first = row if first is None else first
                last = row + group.rows
            row += group.rows
        return (first or 0, last)


def read_columns(files: SourceFiles, entry: StoredObject) -> Columns | None:
    """Return the columns of a batch, None when it is not readable."""
    try:
        metadata = read_footer(files.store, entry.path, etag=entry.etag, size=entry.size)
    except _UNREADABLE:
        return None
    return columns_of(metadata.schema.to_arrow_schema())


def read_batches(
    config: ExportConfig, files: SourceFiles, mapping: EventMapping, found: Iterable[StoredObject]
) -> Iterator[Batch]:
    """Yield the batches in the order given, with rows, columns and event-time ranges.

    Times come from the footer. Where a writer left no usable statistics, or a row group's range
    spans more windows than those of its first and last event, the columns that the event time is
    computed from are scanned: one late event must not make all windows since then stale.

    Raises:
        ContractError: a batch lacks a needed column, or holds another type there.
        BatchChangedError: a batch is not the one that was listed.
    """
    low, high = (microseconds(instant) for instant in config.source.valid_times)
    timed = "requested_at" in mapping.fields
    grid = config.window.grid if config.window is not None else None

    def read(entry: StoredObject) -> tuple[Batch, bool]:
        batch = Batch(entry.path, entry.etag, entry.size)
        try:
            metadata = read_footer(files.store, entry.path, etag=entry.etag, size=entry.size)
            columns = columns_of(metadata.schema.to_arrow_schema())
        except _UNREADABLE as exc:
            return replace(batch, unreadable=_why_unreadable(exc, entry.size)), True
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        batch = replace(
            batch,
            rows=metadata.num_rows,
            columns=columns,
            row_groups=tuple(RowGroup(group.num_rows, _bytes_of(group)) for group in groups),
        )
        sql = event_sql(mapping, columns, batch=batch.path)
        if not timed or not batch.rows:
            return batch, True
        known = _with_footer_times(batch, metadata, sql.time_column, low, high)
        return (batch, False) if known is None else (known, not _spans_windows(known, grid))

    with (
        _TimeReader(config, files.store, mapping) as times,
        ThreadPoolExecutor(_FOOTER_READERS) as pool,
    ):
        for batch, done in pool.map(read, found):
            yield batch if done else times.read(batch)


def _with_footer_times(
    batch: Batch, metadata: pq.FileMetaData, column: str | None, low: int, high: int
) -> Batch | None:
    """The batch with times from its statistics; None where those do not tell all."""
    schema = metadata.schema
    found = [i for i in range(len(schema)) if schema.column(i).path == column]
    index = found[0] if len(found) == 1 else None  # of two, one is a field of a STRUCT
    if index is None or (unit := _microseconds_per_unit(schema.column(index))) is None:
        return None
    groups, undated = [], 0
    for number, group in enumerate(batch.row_groups):
        stats = metadata.row_group(number).column(index).statistics
        if stats is None or not stats.has_null_count:
            return None
        undated += stats.null_count
        if stats.null_count == group.rows:  # an empty range: no window needs this row group
            groups.append(replace(group, first_us=high, last_us=low - 1))
            continue
        if not stats.has_min_max:
            return None
        # Outwards: DuckDB rounds nanoseconds, so the last may count as the next microsecond.
        first, last = math.floor(stats.min_raw * unit), math.ceil(stats.max_raw * unit)
        if first < low or last >= high:
            return None  # the range of the valid times among them is not in the footer
        groups.append(replace(group, first_us=first, last_us=last))
    firsts = [g.first_us for g in groups if g.first_us is not None and g.first_us < high]
    lasts = [g.last_us for g in groups if g.last_us is not None and g.last_us >= low]
    return replace(
        batch,
        row_groups=tuple(groups),
        first_us=min(firsts, default=None),
        last_us=max(lasts, default=None),
        undated=undated,
    )


def _spans_windows(batch: Batch, grid: Grid | None) -> bool:
    """Whether some row group's range holds a whole window, in which there may be no event."""
    if grid is None:
        return False
    origin, every = microseconds(grid.origin), grid.every // _MICROSECOND
    return any(
        (group.last_us - origin) // every - (group.first_us - origin) // every > 1
        for group in batch.row_groups
        if group.first_us is not None and group.last_us is not None
    )


class _TimeReader:
    """Reads the columns that event times are computed from; one connection for all batches."""

    def __init__(self, config: ExportConfig, store: Store, mapping: EventMapping) -> None:
        self._config = config
        self._store = store
        self._mapping = mapping
        self._open = ExitStack()
        self._opened: tuple[Spool, duckdb.DuckDBPyConnection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, batch: Batch) -> Batch:
        """Return the batch with the times that its columns hold."""
        spool, con = self._session()
        needed = self._mapping.reads("requested_at", batch.columns.names)
        rows = (0, batch.rows)
        local = spool.materialise(batch.path, batch.etag, batch.size, rows, needed)
        try:
            found = self._scan(con, batch, local, batch.columns)
        except NotUtf8Error:
            copy, marked = spool.as_bytes(local, rows, needed, needed)
            found = self._scan(con, batch, copy, columns_of_copy(batch.columns, marked))
            spool.release(copy)
        spool.release(local)
        spool.check_unchanged(batch.path, batch.etag)
        first, last, undated, numbers = found
        windows = tuple(numbers or ()) if self._config.window is not None else None
        return replace(batch, first_us=first, last_us=last, undated=undated, windows=windows)

    def _session(self) -> tuple[Spool, duckdb.DuckDBPyConnection]:
        if self._opened is None:
            limit, threads = self._config.memory_limit, self._config.threads
            readable = readable_of(self._store)
            opened = open_engine(memory_limit=limit, threads=threads, readable=readable)
            engine = self._open.enter_context(opened)
            spool = self._open.enter_context(Spool(self._store, engine.folder))
            self._opened = spool, engine.con
        return self._opened

    def _scan(
        self, con: duckdb.DuckDBPyConnection, batch: Batch, file: Path, columns: Columns
    ) -> Any:
        low, high = (microseconds(instant) for instant in self._config.source.valid_times)
        grid = self._config.window.grid if self._config.window is not None else None
        sql = event_sql(self._mapping, columns, batch=batch.path)
        query = compose("time_range", requested_at=sql.fields["requested_at"])
        params = {"batch": str(file), "low_us": low, "high_us": high}
        params["origin_us"] = microseconds(grid.origin) if grid else 0
        params["every_us"] = grid.every // _MICROSECOND if grid else high - low
        with engine_errors(f"reading event times of {batch.path}"):
            return con.execute(query, params).fetchone()


def _bytes_of(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(index).total_compressed_size for index in range(group.num_columns))


def _microseconds_per_unit(column: pq.ColumnSchema) -> Fraction | None:
    """How many microseconds one raw value of a time column stands for; None for other types."""
    logical = json.loads(column.logical_type.to_json())
    return _UNITS.get(logical.get("timeUnit", "")) if logical.get("Type") == "Timestamp" else None


def _why_unreadable(exc: Exception, size: int) -> str:
    if size == 0:
        return "empty object"
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if "encrypt" in text.lower() or "decrypt" in text.lower():
        return "encrypted Parquet, for which there is no key here"
    return f"no readable Parquet footer ({text.rstrip('.')})"
