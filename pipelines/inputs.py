"""Which batches feed which window, worked out over all batches at once, and how shards are cut."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import ExportConfig
from pipelines.engine import engine_errors, read_table, statement
from pipelines.sources.batches import Batch
from pipelines.sources.index import batch_of
from pipelines.windows import UNDATED, Grid, TimeWindow, Window, microseconds
from pipelines.work import BatchRange

_MICROSECOND = timedelta(microseconds=1)
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
    """The batches of a plan and the windows they feed, as Arrow tables; a million are fine.

    Attributes:
        grid: of the export, None for the one window `all`.
        batches: rows of the batch index, by path.
        ordinals: rows of `batches` that feed a window, window after window, each by path.
        windows: by number, where a window's rows begin and what they come to.
        rows: events in all batches.
        first_us: the first valid event time in microseconds since 1970, None without any.
    """

    grid: Grid | None = None
    batches: pa.Table = field(default_factory=lambda: pa.table({}), repr=False)
    ordinals: pa.Array = field(default_factory=lambda: pa.array([], pa.int32()), repr=False)
    windows: Mapping[int, WindowInput] = field(default_factory=dict, repr=False)
    rows: int = 0
    first_us: int | None = None

    def of(self, window: Window) -> WindowInput:
        """Return what feeds a window, which may be nothing."""
        return self.windows.get(number_of(self.grid, window), WindowInput())

    @property
    def first_batch(self) -> Batch:
        """The first readable batch by path; there must be one."""
        return batch_of(self.batches.slice(0, 1).to_pylist()[0])

    def batches_of(self, window: Window, limit: int | None = None) -> tuple[Batch, ...]:
        """Return the batches that feed a window, by path, or the first of them."""
        found = self.of(window)
        count = found.batches if limit is None else min(limit, found.batches)
        rows = self.batches.take(self.ordinals.slice(found.first, count))
        return tuple(batch_of(row) for row in rows.to_pylist())


def number_of(grid: Grid | None, window: Window) -> int:
    """Return a number that stands for a window of the export."""
    if isinstance(window, TimeWindow) and grid is not None:
        return (window.start - grid.origin) // grid.every
    return _UNDATED_NUMBER if window == UNDATED else _ALL_NUMBER


def find_inputs(con: duckdb.DuckDBPyConnection, grid: Grid | None) -> Inputs:
    """Work out the inputs of every window from the connection's table `batches`.

    It leaves the table feeds(number, ordinal, rows, bytes) for `find_differences`.
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
        # In one piece: taking a window's rows from many would copy them all, window after window.
        batches = read_table(con, "select * from batches order by ordinal").combine_chunks()
        ordinals = read_table(con, "select ordinal from feeds order by number, ordinal")
        windows: dict[int, WindowInput] = {}
        first = 0
        for number, count, size, held, digest in con.execute(statement("plan_inputs")).fetchall():
            windows[number] = WindowInput(count, size, held, digest, first)
            first += count
    rows, first_us = pc.sum(batches.column("rows")), pc.min(batches.column("first_us"))
    return Inputs(
        grid=grid,
        batches=batches,
        ordinals=ordinals.column(0).combine_chunks(),
        windows=windows,
        rows=rows.as_py() or 0,
        first_us=first_us.as_py(),
    )


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
    states: pa.Table,
    unreadable: Iterable[Batch],
) -> dict[int, Difference]:
    """Compare the inputs of windows with what their newest manifests read.

    Args:
        con: where `find_inputs` left its tables.
        stale: names of the windows to compare, by number.
        states: what is committed.
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
    for name, table in (("stale", names), ("states", states), ("unreadable", bad)):
        con.register(name, table)
    with engine_errors("comparing windows with their manifests"):
        found = con.execute(statement("plan_differences")).fetchall()
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
        shard_bytes: what a shard is to hold at most.
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
            yield min(end, rows[1]), group.bytes


def batch_range(number: int, batch: Batch, rows: tuple[int, int], held: int) -> BatchRange:
    """Return the rows of one batch as a shard reads them; `held` is their compressed bytes."""
    return BatchRange(
        number, batch.path, batch.etag, batch.size, rows, batch.rows, held, batch.columns
    )
