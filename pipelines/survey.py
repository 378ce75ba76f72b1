"""What lies at the source: batches listed, known to the index or read now, and their mapping."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import count, islice
from typing import Literal

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import engine_errors, read_table, statement, stream_batches
from pipelines.segments import SegmentCopies
from pipelines.sources.batches import Batch, read_batches, read_columns
from pipelines.sources.contract import check_same_contract
from pipelines.sources.detection import resolve_mapping
from pipelines.sources.index import index_rows, parse_columns, time_key
from pipelines.sources.listing import (
    SourceFiles,
    find_readable,
    is_narrowed,
    list_batches,
    open_source,
)
from pipelines.sources.mapping import EventMapping
from pipelines.storage import StoredObject
from pipelines.windows import microseconds

_LISTED_AT_ONCE = 50_000
_ROWS_AT_ONCE = 10_000
_CANDIDATES = 1_000  # looked up at once for the first batch that is readable
_STATS = 16  # requests at once for batches that a narrowed listing leaves out
_LISTED = pa.schema({"path": pa.string(), "etag": pa.string(), "size": pa.int64()})


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found; readable batches stand in the connection's tables `batches`, `contracts`.

    Attributes:
        listed: batches found.
        mapping: None when no batch is readable.
        first: the first readable batch by path, with its columns alone.
        fresh: whether some batch was not known, and `check` has seen the first one.
        unreadable: batches that cannot be read, by path.
    """

    listed: int
    mapping: EventMapping | None
    unreadable: tuple[Batch, ...]
    first: Batch | None = None
    fresh: bool = False


def survey_source(
    con: duckdb.DuckDBPyConnection,
    config: ExportConfig,
    index: SegmentCopies,
    *,
    span: tuple[datetime, datetime] | None,
    also: pa.Table,
    check: Callable[[EventMapping, Batch], None],
) -> Survey:
    """List the source and read the footers of batches that the index does not know.

    Args:
        con: gets the tables `batches` and `contracts`.
        config: the export.
        index: the batch index, to which is added what was read.
        span: list only what may hold events of these times, where date paths tell.
        also: paths to look for where such a listing leaves them out.
        check: called with the mapping and the first readable batch, which has its columns alone,
            before new batches are read and anything is written.

    Raises:
        ConfigError: the source fits no preset.
        ContractError: batches do not fit the mapping, or each other.
    """
    files = open_source(config.source)
    con.execute("create temp table listed(path varchar, etag varchar, size bigint)")
    _add_listed(con, list_batches(config.source, files, *(span or ())))
    if span is not None and is_narrowed(config.source, files):
        _add_known_elsewhere(con, index, files, span, also)
    first, unreadable = _first_readable(con, index, files)
    if first is None and span is not None and is_narrowed(config.source, files):
        # Windows without a batch are empty ones, if any batch elsewhere tells the mapping.
        witness = _known_batch(con, index, files) or find_readable(
            files, lambda entry: read_columns(files, entry) is not None
        )
        _add_listed(con, iter([witness] if witness else []))
        _sort_listed(con)
        first, unreadable = _first_readable(con, index, files)
    listed = _count(con, "listed")
    if first is None:
        return Survey(listed, None, tuple(unreadable))
    mapping = resolve_mapping(config.source, first.columns)
    fresh = False
    unreadable = []
    for entries in _new_batches(con, index, time_key(mapping, config)):
        if not fresh:
            check(mapping, first)
            fresh = True
        unreadable += _read_new(entries, config, files, mapping, index)
    contracts = _look_up(con, index, time_key(mapping, config), unreadable)
    check_same_contract(mapping, ((path, parse_columns(text)) for text, path in contracts))
    index.merge()
    return Survey(listed, mapping, tuple(unreadable), first, fresh)


def _new_batches(
    con: duckdb.DuckDBPyConnection, index: SegmentCopies, key: str
) -> Iterator[list[StoredObject]]:
    """Yield the batches that the index does not know, some at once, by path."""
    params = {"indexed": index.files, "time_key": key}
    query = statement("plan_new_batches")
    with engine_errors("looking for new batches"):
        for rows in stream_batches(con, query, params, rows_at_once=_ROWS_AT_ONCE):
            yield [StoredObject(**row, modified_at=0.0) for row in rows.to_pylist()]


def _read_new(
    entries: Iterable[StoredObject],
    config: ExportConfig,
    files: SourceFiles,
    mapping: EventMapping,
    index: SegmentCopies,
) -> list[Batch]:
    """Read batches and add them to the index, so that a crash loses few; return unreadable ones."""
    batches = list(read_batches(config, files, mapping, entries))
    readable = (batch for batch in batches if not batch.unreadable)
    index.add(index_rows(readable, time_key(mapping, config)))
    return [batch for batch in batches if batch.unreadable]


def _look_up(
    con: duckdb.DuckDBPyConnection, index: SegmentCopies, key: str, unreadable: Iterable[Batch]
) -> list[tuple[str, str]]:
    """Make `batches` of the listing and the index; return columns and the first path of each."""
    known = {"indexed": index.files, "time_key": key}
    with engine_errors("looking batches up in the index"):
        if paths := [batch.path for batch in unreadable]:
            con.register("unreadable", pa.table({"path": pa.array(paths, pa.string())}))
            con.execute(statement("plan_readable"))
        con.execute(statement("plan_contracts"), known)
        con.execute(statement("plan_batches"), known)
        if _count(con, "batches") > _count(con, "listed"):
            con.execute(statement("plan_repeated"))
        con.execute("drop table listed")
        return con.execute(statement("plan_first_of_contracts")).fetchall()


def _add_listed(con: duckdb.DuckDBPyConnection, found: Iterator[StoredObject]) -> None:
    """Append to the table `listed`, a piece at a time: objects of a million take gigabytes."""
    while piece := list(islice(found, _LISTED_AT_ONCE)):
        columns = [[getattr(entry, name) for entry in piece] for name in _LISTED.names]
        with engine_errors("listing the source"):
            con.register("piece", pa.table(columns, schema=_LISTED))
            con.execute("insert into listed select path, etag, size from piece")


def _sort_listed(con: duckdb.DuckDBPyConnection) -> None:
    """Bring the table `listed` into the order of paths, in which a listing comes."""
    with engine_errors("sorting the listing"):
        con.execute("create or replace temp table listed as select * from listed order by path")


def _add_known_elsewhere(
    con: duckdb.DuckDBPyConnection,
    index: SegmentCopies,
    files: SourceFiles,
    span: tuple[datetime, datetime],
    also: pa.Table,
) -> None:
    """Add batches in other date folders that hold events of the span to the listing."""
    con.register("also", also)
    start, end = (microseconds(instant) for instant in span)
    params = {"indexed": index.files, "start": start, "end": end}
    with engine_errors("looking for batches in other folders"):
        missing = read_table(con, statement("plan_known_elsewhere"), params)
    with ThreadPoolExecutor(_STATS) as pool:
        found = pool.map(files.store.stat, missing.column("path").to_pylist())
        _add_listed(con, (entry for entry in found if entry is not None))
    _sort_listed(con)


def _known_batch(
    con: duckdb.DuckDBPyConnection, index: SegmentCopies, files: SourceFiles
) -> StoredObject | None:
    """The last batch of the index by path, which dates make a young one, if it is still there."""
    last = "select max(path) from read_parquet($indexed)"
    ((path,),) = con.execute(last, {"indexed": index.files}).fetchall()
    return None if path is None else files.store.stat(path)


def _first_readable(
    con: duckdb.DuckDBPyConnection, index: SegmentCopies, files: SourceFiles
) -> tuple[Batch | None, list[Batch]]:
    """The first readable batch, by whose columns a preset is told; without one, all batches."""
    unreadable: list[Batch] = []
    for at in count(0, _CANDIDATES):
        params = {"indexed": index.files, "first": at, "stop": at + _CANDIDATES}
        with engine_errors("looking for the first batch"):
            candidates = con.execute(statement("plan_first_batches"), params).fetchall()
        for path, etag, size, text in candidates:
            entry = StoredObject(path, size, etag, modified_at=0.0)
            columns = read_columns(files, entry) if text is None else parse_columns(text)
            if columns is not None:
                return Batch(path, etag, size, columns=columns), []
            why = "no readable Parquet footer"
            unreadable.append(Batch(path, etag, size, unreadable=why))
        if not candidates:
            break
    return None, unreadable


def _count(con: duckdb.DuckDBPyConnection, table: Literal["listed", "batches"]) -> int:
    ((rows,),) = con.execute(f"select count(*) from {table}").fetchall()  # noqa: S608 - closed set
    return int(rows)
