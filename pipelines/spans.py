"""Times that a run, a window and a batch's folder are about."""

from datetime import datetime

from pipelines.config import ExportConfig
from pipelines.errors import ConfigError
from pipelines.inputs import grid_of
from pipelines.layout import DatePath
from pipelines.sources.batches import Batch
from pipelines.windows import TimeWindow, Window


def folder_of(config: ExportConfig, batch: Batch) -> tuple[datetime, datetime] | None:
    """Return the event times that a batch's date path allows, None when it allows any."""
    template = config.source.date_path
    return DatePath(template).parse(batch.path) if template is not None else None


def may_feed(config: ExportConfig, batch: Batch, window: Window) -> bool:
    """Whether a batch that cannot be read may hold events of a window, by its date path."""
    folder = folder_of(config, batch)
    if folder is None or not isinstance(window, TimeWindow):
        return True
    return folder[0] < window.end and window.start < folder[1]


def bounds_of(config: ExportConfig, window: Window) -> tuple[datetime, datetime]:
    """Half-open range of event times of a window, naive UTC; for `undated` the valid times."""
    low, high = config.source.valid_times
    if isinstance(window, TimeWindow):
        low, high = max(low, window.start), min(high, window.end)
    return low.replace(tzinfo=None), high.replace(tzinfo=None)


def check_span(
    config: ExportConfig, start: datetime | None, end: datetime | None
) -> tuple[datetime, datetime] | None:
    """The range that was chosen, which lies on the grid; None when there is none."""
    if (start is None) != (end is None):
        raise ConfigError("start and end go together: give both or neither")
    if start is None or end is None:
        return None
    grid = grid_of(config)
    if grid is None:
        raise ConfigError("start and end choose windows, and this config has no `window`")
    grid.covering(start, end)
    first = config.window.start if config.window is not None else None
    if first is not None and start < first:
        raise ConfigError(
            f"start: the first window starts at window.start, {first:%Y-%m-%dT%H:%MZ}"
        )
    return start, end
