"""What lies at the source: batches listed, known to the index or read now, and their mapping."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import engine_errors, read_table, statement
from pipelines.segments import SegmentCache
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

_ROWS_AT_ONCE = 10_000
_STATS = 16  # requests at once for batches that a narrowed listing leaves out
_LISTED = pa.schema({"path": pa.string(), "etag": pa.string(), "size": pa.int64()})


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found; readable batches stand in the connection's table `batches`.

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
    index: SegmentCache,
    *,
    span: tuple[datetime, datetime] | None,
    also: Iterable[str],
    check: Callable[[EventMapping, Batch], None],
    remember: bool,
) -> Survey:
    """List the source and read the footers of batches that the index does not know.

    Args:
        con: gets the table `batches`.
        config: the export.
        index: the batch index.
        span: list only what may hold events of these times, where date paths tell.
        also: paths to look for where such a listing leaves them out.
        check: called with the mapping and the first readable batch, which has its columns alone,
            before new batches are read and anything is written.
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
    if span is not None and is_narrowed(config.source, files):
        listed = _with_known_elsewhere(con, files, listed, span, also)
    con.register("listed", listed)
    first, unreadable = _first_readable(con, files)
    if first is None and span is not None and is_narrowed(config.source, files):
        # Windows without a batch are empty ones, if any batch elsewhere tells the mapping.
        witness = _known_batch(con, files) or find_readable(
            files, lambda entry: read_columns(files, entry) is not None
        )
        elsewhere = _listing(iter([witness] if witness else []))
        listed = pa.concat_tables([listed, elsewhere]).sort_by("path")
        con.register("listed", listed)
        first, unreadable = _first_readable(con, files)
    if first is None:
        return Survey(listed.num_rows, None, tuple(unreadable))
    mapping = resolve_mapping(config.source, first.columns)
    key = {"time_key": time_key(mapping, config)}
    with engine_errors("looking for new batches"):
        new = read_table(con, statement("plan_new_batches"), key)
    if len(new):
        check(mapping, first)
    added, unreadable = _read_new(new, config, files, mapping, index if remember else None)
    con.register("indexed", pa.concat_tables([indexed, *added]))
    with engine_errors("looking batches up in the index"):
        if con.execute(statement("plan_repeated")).fetchall() != [(0,)]:
            once = "select distinct on (time_key, path, etag, size) * from indexed"
            con.register("indexed", read_table(con, once))
        con.execute(statement("plan_batches"), key)
        contracts = con.execute(
            "select columns, min(path) from batches group by columns order by min(path)"
        ).fetchall()
    check_same_contract(mapping, ((path, parse_columns(text)) for text, path in contracts))
    if remember:
        index.merge(segments)
    return Survey(listed.num_rows, mapping, tuple(unreadable), first, fresh=len(new) > 0)


def _read_new(
    new: pa.Table,
    config: ExportConfig,
    files: SourceFiles,
    mapping: EventMapping,
    index: SegmentCache | None,
) -> tuple[list[pa.Table], list[Batch]]:
    """Rows of the batches that the index does not know, and those of them that are unreadable.

    Rows are added to the index as they come, so that a crash loses few.
    """
    key = time_key(mapping, config)
    tables: list[pa.Table] = []
    unreadable: list[Batch] = []
    for at in range(0, len(new), _ROWS_AT_ONCE):
        rows = new.slice(at, _ROWS_AT_ONCE).to_pylist()
        entries = [StoredObject(**row, modified_at=0.0) for row in rows]
        batches = list(read_batches(config, files, mapping, entries))
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


def _known_batch(con: duckdb.DuckDBPyConnection, files: SourceFiles) -> StoredObject | None:
    """The last batch of the index by path, which dates make a young one, if it is still there."""
    last = "select distinct path from indexed order by path desc limit 1"
    paths = (path for (path,) in con.execute(last).fetchall())
    return next((entry for path in paths if (entry := files.store.stat(path))), None)


def _first_readable(
    con: duckdb.DuckDBPyConnection, files: SourceFiles
) -> tuple[Batch | None, list[Batch]]:
    """The first readable batch, by whose columns a preset is told; without one, all batches."""
    with engine_errors("looking for the first batch"):
        candidates = read_table(con, statement("plan_first_batches"))
    unreadable = []
    for at in range(len(candidates)):
        (row,) = candidates.slice(at, 1).to_pylist()
        text = row.pop("columns")
        entry = StoredObject(**row, modified_at=0.0)
        columns = read_columns(files, entry) if text is None else parse_columns(text)
        if columns is not None:
            return Batch(entry.path, entry.etag, entry.size, columns=columns), []
        why = "no readable Parquet footer"
        unreadable.append(Batch(entry.path, entry.etag, entry.size, unreadable=why))
    return None, unreadable
