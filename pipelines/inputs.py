"""Which batches feed which window, and how a window is cut into shards."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.config import ExportConfig
from pipelines.layout import DatePath
from pipelines.scans import BatchRange
from pipelines.sources.batches import Batch
from pipelines.windows import (
    ALL,
    UNDATED,
    Grid,
    TimeWindow,
    Window,
    microseconds,
    parse_window,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def grid_of(config: ExportConfig) -> Grid | None:
    """Return the export's grid, None for the one fixed window `all`."""
    if config.window is None:
        return None
    return Grid(config.window.every, config.window.start or _EPOCH)


@dataclass(frozen=True, slots=True)
class WindowInput:
    """A window and the batches, with their rows, that may hold events of it."""

    window: Window
    batches: tuple[tuple[Batch, tuple[int, int]], ...]


def list_inputs(
    config: ExportConfig,
    batches: Sequence[Batch],
    *,
    now: datetime,
    start: datetime | None,
    end: datetime | None,
    committed: Iterable[str] = (),
) -> list[WindowInput]:
    """Return every window that is due, and what may hold its events; `undated` last.

    Args:
        config: the export.
        batches: all that were listed.
        now: the moment, by which windows are due.
        start: first instant of the range that was chosen, if any.
        end: instant after its last.
        committed: names of windows that have a manifest; they stay in even where the batch that
            held their events holds them no more.
    """
    undated = WindowInput(UNDATED, tuple((b, (0, b.rows)) for b in batches if b.undated))
    grid = grid_of(config)
    if grid is None or config.window is None:
        timed = any(batch.first_us is not None for batch in batches)
        whole = tuple(
            (b, (0, b.rows)) for b in batches if b.rows and (b.first_us is not None or not timed)
        )
        return [WindowInput(ALL, whole), undated]
    dated = [batch for batch in batches if batch.first_us is not None]
    if start is not None and end is not None:
        due = set(grid.due(start, now=now, lag=config.window.lag))
        windows = [window for window in grid.covering(start, end) if window in due]
    else:
        firsts = [
            _EPOCH + timedelta(microseconds=b.first_us) for b in dated if b.first_us is not None
        ]
        folders = (folder_of(config, batch) for batch in batches if batch.unreadable)
        firsts += [folder[0] for folder in folders if folder is not None]
        known = (parse_window(name) for name in committed)
        firsts += [window.start for window in known if isinstance(window, TimeWindow)]
        first = config.window.start or min(firsts, default=None)
        if first is None:
            return [undated]
        windows = list(grid.due(first, now=now, lag=config.window.lag))
    by_window: dict[TimeWindow, list[tuple[Batch, tuple[int, int]]]] = {w: [] for w in windows}
    for batch in dated:
        for window in _windows_of(batch, grid):
            if window in by_window:
                rows = batch.rows_between(microseconds(window.start), microseconds(window.end))
                if rows[1] > rows[0]:
                    by_window[window].append((batch, rows))
    inputs = [WindowInput(window, tuple(found)) for window, found in by_window.items()]
    # A run over chosen windows may not have listed every batch: it leaves `undated` alone.
    return inputs if start is not None else [*inputs, undated]


def folder_of(config: ExportConfig, batch: Batch) -> tuple[datetime, datetime] | None:
    """Return the event times that a batch's date path allows, None when it allows any."""
    template = config.source.date_path
    return DatePath(template).parse(batch.path) if template is not None else None


def _windows_of(batch: Batch, grid: Grid) -> Iterator[TimeWindow]:
    if batch.first_us is None or batch.last_us is None:
        return iter(())
    first, last = (_EPOCH + timedelta(microseconds=us) for us in (batch.first_us, batch.last_us))
    return grid.overlapping(first, last)


def cut_shards(
    batches: Iterable[tuple[Batch, tuple[int, int]]], shard_bytes: int, *, whole: bool
) -> Iterator[tuple[BatchRange, ...]]:
    """Yield a window's shards of about `shard_bytes` compressed bytes, cut between row groups.

    Args:
        batches: the window's inputs by path.
        shard_bytes: size of a shard.
        whole: do not cut, for an order over the whole window.
    """
    shard: list[BatchRange] = []
    size = 0
    for number, (batch, rows) in enumerate(batches):
        row, first, held = 0, rows[0], 0
        for group in batch.row_groups:
            start, row = row, row + group.rows
            if start >= rows[1] or row <= rows[0]:
                continue
            held += group.bytes
            if size + held >= shard_bytes and not whole:
                shard.append(batch_range(number, batch, (first, min(row, rows[1])), held))
                yield tuple(shard)
                shard, size, first, held = [], 0, row, 0
        if held:
            shard.append(batch_range(number, batch, (first, rows[1]), held))
            size += held
    if shard:
        yield tuple(shard)


def batch_range(number: int, batch: Batch, rows: tuple[int, int], held: int) -> BatchRange:
    """Return the rows of one batch as a shard reads them; `held` is their compressed bytes."""
    return BatchRange(
        number, batch.path, batch.etag, batch.size, rows, batch.rows, held, batch.columns
    )
