"""What lies at the source: batches listed, known to the index or read now, and their mapping."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import engine_errors, read_table, statement
from pipelines.segments import SegmentCache
from pipelines.sources.batches import (
    Batch,
    SourceFiles,
    list_batches,
    open_source,
    read_batches,
    read_columns,
)
from pipelines.sources.detection import resolve_mapping
from pipelines.sources.index import index_rows, parse_columns, time_key
from pipelines.sources.mapping import Columns, EventMapping, check_same_contract
from pipelines.storage import StoredObject
from pipelines.windows import microseconds

_ROWS_AT_ONCE = 10_000
_STATS = 16  # requests at once for batches that a narrowed listing leaves out
_LISTED = pa.schema({"path": pa.string(), "etag": pa.string(), "size": pa.int64()})


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found; readable batches stand in the connection's table `batches`.

    Attributes:
        listed: batches found.
        mapping: None when no batch is readable.
        unreadable: batches that cannot be read, by path.
    """

    listed: int
    mapping: EventMapping | None
    unreadable: tuple[Batch, ...]


def survey_source(
    con: duckdb.DuckDBPyConnection,
    config: ExportConfig,
    index: SegmentCache,
    *,
    span: tuple[datetime, datetime] | None,
    also: Iterable[str],
    remember: bool,
) -> Survey:
    """List the source and read the footers of batches that the index does not know.

    Args:
        con: gets the table `batches`.
        config: the export.
        index: the batch index.
        span: list only what may hold events of these times, where date paths tell.
        also: paths to look for where such a listing leaves them out.
        remember: add to the index what was read.

    Raises:
        ConfigError: the source fits no preset.
        ContractError: batches do not fit the mapping, or each other.
    """
    files = open_source(config.source)
    segments = index.load()
    indexed = index.union(segments)
    con.register("indexed", indexed)
    listed = _listing(list_batches(config.source, files, *(span or ())))
    if span is not None and config.source.date_path is not None:
        listed = _with_known_elsewhere(con, files, listed, span, also)
    con.register("listed", listed)
    columns, unreadable = _first_columns(con, files)
    if columns is None:
        return Survey(listed.num_rows, None, tuple(unreadable))
    mapping = resolve_mapping(config.source, columns)
    added, unreadable = _read_new(con, config, files, mapping, index if remember else None)
    con.register("indexed", pa.concat_tables([indexed, *added]))
    with engine_errors("looking batches up in the index"):
        key = {"time_key": time_key(mapping, config.source)}
        con.execute(statement("plan_batches"), key)
        contracts = con.execute(
            "select columns, min(path) from batches group by columns order by min(path)"
        ).fetchall()
    for text, path in contracts:
        check_same_contract(mapping, columns, parse_columns(text), batch=path)
    if remember:
        index.merge(segments)
    return Survey(listed.num_rows, mapping, tuple(unreadable))


def _read_new(
    con: duckdb.DuckDBPyConnection,
    config: ExportConfig,
    files: SourceFiles,
    mapping: EventMapping,
    index: SegmentCache | None,
) -> tuple[list[pa.Table], list[Batch]]:
    """Rows of the batches that the index does not know, and those of them that are unreadable.

    Rows are added to the index as they come, so that a crash loses few.
    """
    key = time_key(mapping, config.source)
    with engine_errors("looking for new batches"):
        found = read_table(con, statement("plan_new_batches"), {"time_key": key})
    tables: list[pa.Table] = []
    unreadable: list[Batch] = []
    for at in range(0, len(found), _ROWS_AT_ONCE):
        rows = found.slice(at, _ROWS_AT_ONCE).to_pylist()
        entries = [StoredObject(**row, modified_at=0.0) for row in rows]
        batches = list(read_batches(config.source, files, mapping, entries))
        unreadable += (batch for batch in batches if batch.unreadable)
        tables.append(index_rows((batch for batch in batches if not batch.unreadable), key))
        if index is not None:
            index.add(tables[-1])
    return tables, unreadable


def _listing(found: Iterator[StoredObject]) -> pa.Table:
    """A table of what was listed, made a piece at a time: objects of a million take gigabytes."""
    pieces = [_LISTED.empty_table()]
    while piece := list(islice(found, _ROWS_AT_ONCE)):
        columns = [[getattr(entry, name) for entry in piece] for name in _LISTED.names]
        pieces.append(pa.table(columns, schema=_LISTED))
    return pa.concat_tables(pieces)


def _with_known_elsewhere(
    con: duckdb.DuckDBPyConnection,
    files: SourceFiles,
    listed: pa.Table,
    span: tuple[datetime, datetime],
    also: Iterable[str],
) -> pa.Table:
    """The listing, and batches in other date folders that hold events of the span."""
    start, end = (microseconds(instant) for instant in span)
    known = con.execute(
        "select distinct path from indexed where first_us < $end and last_us >= $start",
        {"start": start, "end": end},
    ).fetchall()
    missing = {path for (path,) in known}.union(also) - set(listed.column("path").to_pylist())
    with ThreadPoolExecutor(_STATS) as pool:
        found = [entry for entry in pool.map(files.store.stat, sorted(missing)) if entry]
    return pa.concat_tables([listed, _listing(iter(found))]).sort_by("path")


def _first_columns(
    con: duckdb.DuckDBPyConnection, files: SourceFiles
) -> tuple[Columns | None, list[Batch]]:
    """Columns of the first readable batch, by which a preset is told; without one, all batches."""
    with engine_errors("looking for the first batch"):
        candidates = read_table(con, statement("plan_first_batches"))
    unreadable = []
    for at in range(len(candidates)):
        (row,) = candidates.slice(at, 1).to_pylist()
        text = row.pop("columns")
        if text is not None:
            return parse_columns(text), []
        columns = read_columns(files, StoredObject(**row, modified_at=0.0))
        if columns is not None:
            return columns, []
        why = "no readable Parquet footer"
        unreadable.append(Batch(row["path"], row["etag"], row["size"], unreadable=why))
    return None, unreadable
