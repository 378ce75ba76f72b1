"""One run of an export inside of a flow run: plan, task runs, report, final state."""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.credentials import refuse_profiles
from flows.reporting import LiveProgress, report_run
from flows.windows import export_all
from pipelines.config import ExportConfig, load_config
from pipelines.engine import kept_engines
from pipelines.errors import PipelineError
from pipelines.executors import check_executor, open_workers
from pipelines.export import export_window, plan_run
from pipelines.failures import record_failures
from pipelines.filters import EventFilter
from pipelines.garbage import clean_up
from pipelines.overrides import with_overrides
from pipelines.summary import ExportSummary, summarise_run
from pipelines.words import say_count

_SHOWN_FAILURES = 20


class WindowsFailedError(PipelineError):
    """Some windows were not committed; `summary` tells of all, as ExportSummary.as_dict() does."""

    def __init__(self, message: str, *, summary: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.summary = summary or {}


def choose_config(
    config: Path | ExportConfig,
    *,
    where: str | None = None,
    filters: Sequence[EventFilter] = (),
    destination: str | None = None,
    credentials: str | None = None,
) -> ExportConfig:
    """Return the config of a run: loaded, with the run's overrides.

    Raises:
        ConfigError: it is wrong, a slice has no destination of its own, or a profile stands where
            the run has the credentials of a block.
    """
    export = config if isinstance(config, ExportConfig) else load_config(config)
    if credentials is not None:
        refuse_profiles(export, credentials)
    return with_overrides(
        export, to=destination, where=where, filters=tuple(filters), base=Path.cwd()
    )


@kept_engines()
def run_export_flow(
    config: ExportConfig,
    *,
    start: datetime | None,
    end: datetime | None,
    force: bool,
    rebuild_from_remaining: bool,
    at_once: int = 1,
) -> State[Any]:
    """Plan, write the windows that need it, clean up and report; return the flow run's state.

    Raises:
        PipelineError: nothing could be planned.
    """
    began = time.monotonic()
    check_executor(config)
    plan = plan_run(
        config,
        now=datetime.now(UTC),
        start=start,
        end=end,
        force=force,
        rebuild_from_remaining=rebuild_from_remaining,
    )
    batches = say_count(plan.batches, "batch", "batches")
    windows = say_count(len(plan.windows), "window")
    get_run_logger().info("%s, %s: %d to write", batches, windows, len(plan.to_do))
    lost = sum(window.lost_events for window in plan.to_do)
    if lost:
        get_run_logger().warning("%d events of batches that are gone are lost", lost)
    progress = LiveProgress(config, plan.events_at_most)
    with open_workers(config, plan) as workers:
        if workers is not None:
            at_once = workers.windows_at_once(plan)
        found = export_all(plan, progress=progress, at_once=at_once, workers=workers)
    # Without a task run: what is not to be written is left alone, and a blocked window says why.
    done = [found.get(w.window.name) or export_window(plan, w) for w in plan.windows]
    summary = summarise_run(plan, done)
    record_failures(plan, done)
    clean_up(config, [window.window for window in summary.written])
    progress.finish(complete=not summary.failed)
    state = final_state(summary)
    report_run(config, summary, state.message or "", time.monotonic() - began)
    return state


def final_state(summary: ExportSummary) -> State[Any]:
    """Return the state that says what became of the windows, with the summary as its data."""
    plain = summary.as_dict()
    if summary.failed:
        shown = [f"{window.window}: {window.error}" for window in summary.failed[:_SHOWN_FAILURES]]
        if more := len(summary.failed) - len(shown):
            shown.append(f"and {more} more")
        message = (
            f"{len(summary.failed)} of {say_count(len(summary.windows), 'window')} failed, "
            f"{len(summary.written)} were committed. {'; '.join(shown)}"
        )
        return Failed(message=message, data=WindowsFailedError(message, summary=plain))
    return Completed(message=_sentence(summary), data=plain)


def _sentence(summary: ExportSummary) -> str:
    if not summary.batches:
        return f"nothing to do: the source holds no batch, as {summary.why_empty}"
    rivals = sum(window.status == "committed by another run" for window in summary.windows)
    by_rivals = f"{say_count(rivals, 'window was', 'windows were')} committed by another run"
    if summary.written:
        ledger = summary.ledger
        return (
            f"{say_count(len(summary.written), 'window')} committed: "
            f"{say_count(ledger.read, 'event')} read, {ledger.exported} exported, "
            f"{ledger.rejected} rejected"
            f"{f'; {by_rivals}' if rivals else ''}"
        )
    same = sum(window.status == "up to date" for window in summary.windows)
    others = len(summary.windows) - same - rivals
    found = f"{say_count(same, 'window is', 'windows are')} up to date"
    found += f", {others} left alone" if others else ""
    return f"nothing left to do: {by_rivals}, {found}" if rivals else f"nothing to do: {found}"


def run_name() -> str:
    """Return the name of the flow run: the export, and its windows or the moment they are due."""
    parameters = flow_run.parameters
    start, end = parameters.get("start"), parameters.get("end")
    if start or end:
        windows = f"{_day(start) or 'first'}..{_day(end) or 'due'}"
    else:
        at = flow_run.scheduled_start_time or datetime.now(UTC)
        windows = f"due {at:%Y-%m-%dT%H:%MZ}"
    return f"{export_name(parameters['config'])} {windows}"


def export_name(config: Path | ExportConfig | dict[str, Any]) -> str:
    """Return the name of an export, for people; that of the file where it cannot be read."""
    if isinstance(config, ExportConfig):
        return config.name
    if isinstance(config, dict):
        return str(config.get("name", "export"))
    try:
        return load_config(Path(config)).name
    except PipelineError:
        return Path(config).stem


def _day(instant: object) -> str:
    return re.sub(r"[T ]00:00:00(\.0+)?(Z|\+00:00)?$", "", str(instant or "")).replace(" ", "T")
