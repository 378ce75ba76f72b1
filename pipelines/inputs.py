"""Which batches feed which window, worked out over all batches at once, and how shards are cut."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import engine_errors, read_table, statement, stream_batches
from pipelines.mapped import map_rows
from pipelines.sources.batches import Batch
from pipelines.sources.index import batch_of
from pipelines.windows import UNDATED, Grid, TimeWindow, Window, microseconds
from pipelines.work import BatchRange

_MICROSECOND = timedelta(microseconds=1)
_ROWS_A_PIECE = 2**18
_ALL_NUMBER, _UNDATED_NUMBER = -(2**62), -(2**62) + 1  # that no window of a grid has


def grid_of(config: ExportConfig) -> Grid | None:
    """Return the export's grid, None for the one fixed window `all`."""
    return config.window.grid if config.window is not None else None


@dataclass(frozen=True, slots=True)
class WindowInput:
    """What feeds one window.

    Attributes:
        batches: how many.
        rows: of the row groups that may hold the window's events.
        bytes: compressed bytes of those row groups.
        digest: sha256 of the batches' paths, ETags and sizes; "" when there are none.
        first: place of the first of them among the overlaps.
    """

    batches: int = 0
    rows: int = 0
    bytes: int = 0
    digest: str = ""
    first: int = 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """The batches of a plan and the windows they feed; ten million are fine.

    Attributes:
        grid: of the export, None for the one window `all`.
        batches: rows of the batch index by path, so many at once, on the temporary disk.
        contracts: texts of their columns, by number.
        ordinals: places of batches that feed a window, window after window, each by path.
        windows: by number, where a window's ordinals begin and what they come to.
        rows: events in all batches.
        first_us: the first valid event time in microseconds since 1970, None without any.
    """

    grid: Grid | None = None
    batches: tuple[pa.RecordBatch, ...] = field(default=(), repr=False)
    contracts: Sequence[str] = field(default=(), repr=False)
    ordinals: pa.ChunkedArray = field(
        default_factory=lambda: pa.chunked_array([], pa.int32()), repr=False
    )
    windows: Mapping[int, WindowInput] = field(default_factory=dict, repr=False)
    rows: int = 0
    first_us: int | None = None

    def of(self, window: Window) -> WindowInput:
        """Return what feeds a window, which may be nothing."""
        return self.windows.get(number_of(self.grid, window), WindowInput())

    @property
    def first_batch(self) -> Batch:
        """The first readable batch by path; there must be one."""
        return next(self._batches_at([0]))

    def batches_of(self, window: Window, limit: int | None = None) -> tuple[Batch, ...]:
        """Return the batches that feed a window, by path, or the first of them."""
        found = self.of(window)
        count = found.batches if limit is None else min(limit, found.batches)
        return tuple(self._batches_at(self.ordinals.slice(found.first, count).to_pylist()))

    def _batches_at(self, ordinals: Iterable[int]) -> Iterator[Batch]:
        for piece, places in groupby(ordinals, key=lambda ordinal: ordinal // _ROWS_A_PIECE):
            rows = pa.array([ordinal % _ROWS_A_PIECE for ordinal in places], pa.int32())
            for row in self.batches[piece].take(rows).to_pylist():
                yield batch_of({**row, "columns": self.contracts[row["contract"]]})


def number_of(grid: Grid | None, window: Window) -> int:
    """Return a number that stands for a window of the export."""
    if isinstance(window, TimeWindow) and grid is not None:
        return (window.start - grid.origin) // grid.every
    return _UNDATED_NUMBER if window == UNDATED else _ALL_NUMBER


def find_inputs(con: duckdb.DuckDBPyConnection, grid: Grid | None, folder: Path) -> Inputs:
    """Work out the inputs of every window from the connection's tables `batches`, `contracts`.

    It leaves the table feeds(number, ordinal, rows, bytes) for `find_differences`.

    Args:
        con: where `survey_source` left its tables.
        grid: of the export.
        folder: a temporary one.
    """
    with engine_errors("finding the batches of each window"):
        con.execute(
            "create temp table feeds(number bigint, ordinal int, rows bigint, bytes bigint)"
        )
        if grid is not None:
            span = {
                "origin_us": microseconds(grid.origin),
                "every_us": grid.every // _MICROSECOND,
            }
            con.execute(statement("plan_grid_feeds"), span)
        else:
            whole = {"number": _ALL_NUMBER, "undated": False}
            con.execute(statement("plan_fixed_feeds"), whole)
        con.execute(statement("plan_fixed_feeds"), {"number": _UNDATED_NUMBER, "undated": True})
        ordinals = stream_batches(con, "select ordinal from feeds order by number, ordinal")
        contracts = con.execute("select columns from contracts order by contract").fetchall()
        rows, first_us = con.execute(
            "select coalesce(sum(rows), 0)::bigint, min(first_us) from batches"
        ).fetchall()[0]
        places = map_rows(folder / "ordinals.arrow", ordinals)
        return Inputs(
            grid=grid,
            batches=map_rows(folder / "batches.arrow", _pieces(con)),
            contracts=[text for (text,) in contracts],
            ordinals=pa.chunked_array([rows.column(0) for rows in places], pa.int32()),
            windows=_windows(con),
            rows=rows,
            first_us=first_us,
        )


def _pieces(con: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `batches` by path, so many at once that a place tells its piece."""
    ((count,),) = con.execute("select count(*) from batches").fetchall()
    for first in range(0, count, _ROWS_A_PIECE):
        params = {"first": first, "stop": first + _ROWS_A_PIECE}
        found = read_table(con, statement("plan_batch_rows"), params).combine_chunks()
        yield from found.to_batches()


def _windows(con: duckdb.DuckDBPyConnection) -> dict[int, WindowInput]:
    """The inputs of each window, by its number."""
    sums = con.execute(statement("plan_inputs")).fetchall()
    digests = _digests(con, [count for _, count, _, _ in sums])
    windows, first = {}, 0
    for (number, count, rows, held), digest in zip(sums, digests, strict=True):
        windows[number] = WindowInput(count, rows, held, digest, first)
        first += count
    return windows


def _digests(con: duckdb.DuckDBPyConnection, counts: Iterable[int]) -> Iterator[str]:
    """sha256 of each window's texts; DuckDB would need all texts of all windows in memory."""
    texts = (rows.column("text") for rows in stream_batches(con, statement("plan_input_texts")))
    here, at = pa.array([], pa.large_string()), 0
    for count in counts:
        digest = hashlib.sha256()
        left = count
        while left:
            if at == len(here):
                here, at = next(texts), 0
            stop = min(at + left, len(here))
            digest.update(_joined(here, at, stop))
            left, at = left - (stop - at), stop
        yield digest.hexdigest()


def _joined(texts: pa.LargeStringArray, start: int, stop: int) -> memoryview:
    """The bytes of neighbouring texts, as they lie one after the other."""
    _, offsets, data = texts.buffers()
    edges = memoryview(offsets).cast("q")
    return memoryview(data)[edges[texts.offset + start] : edges[texts.offset + stop]]


@dataclass(frozen=True, slots=True)
class Difference:
    """How the inputs of a committed window differ from those of its manifest.

    Attributes:
        late, changed, gone: how many batches; the first of each by path stands beside it.
        lost_events: events that the window read from batches that are gone.
    """

    late: int = 0
    first_late: str = ""
    changed: int = 0
    first_changed: str = ""
    gone: int = 0
    first_gone: str = ""
    lost_events: int = 0


def find_differences(
    con: duckdb.DuckDBPyConnection,
    stale: Mapping[int, str],
    states: Sequence[str],
    unreadable: Iterable[Batch],
) -> dict[int, Difference]:
    """Compare the inputs of windows with what their newest manifests read.

    Args:
        con: where `find_inputs` and `load_states` left their tables.
        stale: names of the windows to compare, by number.
        states: files of what is committed.
        unreadable: batches that are listed and cannot be read.
    """
    if not stale:
        return {}
    known = [(batch.path, batch.etag) for batch in unreadable]
    names = pa.table({"number": pa.array(stale, pa.int64()), "window": list(stale.values())})
    bad = pa.table(
        {
            "path": pa.array([path for path, _ in known], pa.string()),
            "etag": pa.array([etag for _, etag in known], pa.string()),
        }
    )
    for name, table in (("stale", names), ("unreadable", bad)):
        con.register(name, table)
    with engine_errors("comparing windows with their manifests"):
        found = con.execute(statement("plan_differences"), {"states": states}).fetchall()
    return {number: Difference(*columns) for number, *columns in found}


def row_ranges(batches: Iterable[Batch], window: Window) -> Iterator[tuple[Batch, tuple[int, int]]]:
    """Yield each batch with the rows that may hold events of the window."""
    for batch in batches:
        rows = (0, batch.rows)
        if isinstance(window, TimeWindow):
            rows = batch.rows_between(microseconds(window.start), microseconds(window.end))
        yield batch, rows


def cut_shards(
    batches: Iterable[tuple[Batch, tuple[int, int]]], shard_bytes: int, *, whole: bool
) -> Iterator[tuple[BatchRange, ...]]:
    """Yield a window's shards, of equal compressed bytes as far as row groups can be shared out.

    Args:
        batches: the window's inputs by path.
        shard_bytes: about what a shard holds at most.
        whole: do not cut, for an order over the whole window.
    """
    found = [(number, batch, rows) for number, (batch, rows) in enumerate(batches)]
    total = sum(held for _, batch, rows in found for _, held in _groups(batch, rows))
    shards = 1 if whole else max(1, -(-total // shard_bytes))
    shard: list[BatchRange] = []
    done, cut = 0, 1
    for number, batch, rows in found:
        first, here = rows[0], 0
        for end, held in _groups(batch, rows):
            done, here = done + held, here + held
            if done * shards >= cut * total:
                yield (*shard, batch_range(number, batch, (first, end), here))
                shard, first, here = [], end, 0
                cut = done * shards // total + 1
        if here:
            shard.append(batch_range(number, batch, (first, rows[1]), here))


def _groups(batch: Batch, rows: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Where each row group ends of which rows are read, by row, and its compressed bytes."""
    end = 0
    for group in batch.row_groups:
        start, end = end, end + group.rows
        if start < rows[1] and end > rows[0]:
            yield min(end, rows[1]), max(1, group.bytes)  # a footer may say 0


def batch_range(number: int, batch: Batch, rows: tuple[int, int], held: int) -> BatchRange:
    """Return the rows of one batch as a shard reads them; `held` is their compressed bytes."""
    return BatchRange(
        number, batch.path, batch.etag, batch.size, rows, batch.rows, held, batch.columns
    )
