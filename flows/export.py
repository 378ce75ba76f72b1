"""The flow of one export: plan, claim the destination, write windows, summarise.

`python -m flows.export CONFIG` runs it here and now, on a server that lives as long as the run.
"""

if __name__ == "__main__":
    # Before the import below: Prefect reads the environment once, when it is imported. It also
    # keeps the flow in a module of its name, not in `__main__`.
    from flows.command import run

    run()

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff

from pipelines.config import ExportConfig, load_config
from pipelines.errors import ConfigError, ContractError, PipelineError
from pipelines.export import export_window, plan_run
from pipelines.garbage import clean_up
from pipelines.owner import open_destination
from pipelines.plan import Plan, WindowPlan
from pipelines.states import StateLog
from pipelines.summary import ExportSummary, WindowSummary, summarise, summarise_run
from pipelines.values import Instant

MAX_TASK_RUNS = 100  # the server needs 50 to 85 ms of CPU for each
_SHOWN_FAILURES = 20


class WindowsFailedError(PipelineError):
    """Some windows were not committed; `summary` tells of all, as ExportSummary.as_dict() does."""

    def __init__(self, message: str, *, summary: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.summary = summary or {}


class WindowGroup:
    """Neighbouring windows that one task run writes, and what came of them so far.

    A retry runs the same group and passes over what is settled. It is a plain class on purpose:
    Prefect walks through every dataclass that a task is given, and a plan is large.
    """

    def __init__(self, plan: Plan, windows: Sequence[WindowPlan], log: StateLog) -> None:
        self.plan = plan
        self.log = log
        self.windows = windows
        self.written: dict[str, WindowSummary] = {}
        self.errors: dict[str, PipelineError] = {}

    @property
    def name(self) -> str:
        """The window, or the first and the last of several."""
        first, last = self.windows[0].window.name, self.windows[-1].window.name
        return first if first == last else f"{first}..{last}"

    def export(self) -> None:
        """Export every window that is not settled; one that fails does not stop the others.

        Raises:
            PipelineError: a window failed; a retryable error comes first.
        """
        for window in self.windows:
            name = window.window.name
            failed = self.errors.get(name)
            if name in self.written or (failed is not None and not failed.retryable):
                continue
            try:
                summary = export_window(self.plan, window, on_commit=self.log.add)
                if summary.error:
                    raise ContractError(summary.error)
            except ConfigError:
                raise
            except PipelineError as exc:
                self.errors[name] = exc
            else:
                self.written[name] = summary
                self.errors.pop(name, None)
        if self.errors:
            raise max(self.errors.values(), key=lambda error: error.retryable)

    def summarise(self, error: BaseException | None) -> dict[str, WindowSummary]:
        """Return a summary of every window, after the task run ended with an error or none."""
        found = dict(self.written)
        for window in self.windows:
            name = window.window.name
            if name not in found:
                reason = str(self.errors.get(name) or f"{type(error).__name__}: {error}")
                left = summarise(self.plan, window)
                found[name] = replace(left, status="failed", error=reason)
        return found


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry only the errors that say so; a bad config never heals by waiting."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.retryable


def _run_name() -> str:
    group: WindowGroup = task_run.parameters["group"]
    return f"window {group.name}"


@task(
    name="export-windows",
    task_run_name=_run_name,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def export_windows(group: WindowGroup) -> None:
    """Write and commit the windows of a group; all the work is in `pipelines`."""
    group.export()


@flow(name="export-request-logs", persist_result=False)
def export_request_logs(
    config: Path | ExportConfig,
    start: Instant | None = None,
    end: Instant | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - a parameter of the flow, given by name
    rebuild_from_remaining: bool = False,  # noqa: FBT001, FBT002 - likewise
) -> dict[str, Any]:
    """Export every due window that is missing or whose inputs changed.

    Windows are written one after the other: `memory_limit` holds for one DuckDB connection, so
    windows side by side would need it several times; within a window DuckDB uses all `threads`.
    What is due comes from the store and the clock, never from the schedule's time.

    Args:
        config: path of a YAML file, or a whole config; relative urls in the latter start at the
            working directory.
        start: with `end`, whole windows of the grid to choose from; without zone, UTC.
        end: the end of the last of them.
        force: write windows that are up to date again.
        rebuild_from_remaining: write windows again whose batches are gone, without their events.

    Returns:
        Counts, windows, manifests and data files, as `ExportSummary.as_dict()` gives them.

    Raises:
        ConfigError: the config does not fit the source or the destination; nothing was touched.
        WindowsFailedError: windows were not committed; the others are.
    """
    export = config if isinstance(config, ExportConfig) else load_config(config)
    plan = plan_run(
        export,
        now=datetime.now(UTC),
        start=start,
        end=end,
        force=force,
        rebuild_from_remaining=rebuild_from_remaining,
    )
    chosen = [window for window in plan.windows if _needs_a_task(plan, window)]
    get_run_logger().info(
        "%d batches, %d windows: %d to write", plan.batches, len(plan.windows), len(plan.to_do)
    )
    found: dict[str, WindowSummary] = {}
    log = StateLog(open_destination(export))
    for group in _groups(plan, chosen, log):
        state = export_windows(group, return_state=True)
        error = None if state.is_completed() else state.result(raise_on_failure=False)
        if isinstance(error, ConfigError):
            raise error
        found |= group.summarise(error)
    log.flush()
    windows = [found.get(w.window.name) or summarise(plan, w) for w in plan.windows]
    summary = summarise_run(plan, windows)
    clean_up(export, [window.window for window in summary.written])
    # A flow may return its final state; who calls the flow gets the data in it, or the error.
    return cast("dict[str, Any]", _final_state(summary))


def _needs_a_task(plan: Plan, window: WindowPlan) -> bool:
    return window.status == "blocked" or window in plan.to_do


def _groups(plan: Plan, windows: Sequence[WindowPlan], log: StateLog) -> list[WindowGroup]:
    """At most MAX_TASK_RUNS groups of neighbours, of one window each where that suffices."""
    size = -(-len(windows) // MAX_TASK_RUNS) or 1
    return [
        WindowGroup(plan, windows[first : first + size], log)
        for first in range(0, len(windows), size)
    ]


def _final_state(summary: ExportSummary) -> State[Any]:
    plain = summary.as_dict()
    if summary.failed:
        shown = [f"{window.window}: {window.error}" for window in summary.failed[:_SHOWN_FAILURES]]
        if more := len(summary.failed) - len(shown):
            shown.append(f"and {more} more")
        message = (
            f"{len(summary.failed)} of {len(summary.windows)} windows failed, "
            f"{len(summary.written)} were committed. {'; '.join(shown)}"
        )
        return Failed(message=message, data=WindowsFailedError(message, summary=plain))
    return Completed(message=_sentence(summary), data=plain)


def _sentence(summary: ExportSummary) -> str:
    if not summary.batches:
        return "nothing to do: the source holds no batch"
    if not summary.written:
        same = sum(window.status == "up to date" for window in summary.windows)
        others = len(summary.windows) - same
        left = f", {others} left alone" if others else ""
        return f"nothing to do: {same} windows are up to date{left}"
    ledger = summary.ledger
    return (
        f"{len(summary.written)} windows committed: {ledger.read} events read, "
        f"{ledger.exported} exported, {ledger.rejected} rejected"
    )
