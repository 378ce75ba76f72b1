"""A span of windows as one task run, for a flow of one's own on any of Prefect's task runners."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.runs import choose_config
from flows.tasks import own_errors, retried_task
from pipelines.config import ExportConfig
from pipelines.errors import PipelineError
from pipelines.export import run_export
from pipelines.words import say_count


class SpanFailedError(PipelineError):
    """Windows of a span were not committed; the others were, and the next try passes them over."""

    retryable = True


@retried_task("export-span", run_name="windows {start:%Y-%m-%dT%H:%MZ}..{end:%Y-%m-%dT%H:%MZ}")
def export_span(config: Path | ExportConfig, start: datetime, end: datetime) -> dict[str, Any]:
    """Write those windows of a span that are missing or stale, where the task runs.

    Args:
        config: path of a YAML file that the worker can read, or a whole config.
        start: the first instant, on the window grid, aware.
        end: the end of the last window.

    Returns:
        Counts, windows, manifests and data files, as `ExportSummary.as_dict()` gives them.

    Raises:
        ConfigError: the config does not fit the source or the destination; nothing was touched.
        SpanFailedError: windows were not committed.
    """
    with own_errors():
        # The task runner has spread the windows already.
        export = choose_config(config).model_copy(update={"executor": "threads", "address": None})
        summary = run_export(export, now=datetime.now(UTC), start=start, end=end)
    if summary.failed:
        errors = "; ".join(f"{window.window}: {window.error}" for window in summary.failed)
        raise SpanFailedError(f"{say_count(len(summary.failed), 'window')} failed. {errors}")
    return summary.as_dict()
