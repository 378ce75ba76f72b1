"""Windows as task runs: groups of neighbours, retried alone, a few at once."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.runtime import task_run
from prefect.tasks import exponential_backoff

from flows.reporting import LiveProgress, tell_commit
from pipelines.errors import ConfigError, ContractError, PipelineError
from pipelines.export import export_window
from pipelines.interrupts import stop_statements
from pipelines.owner import open_destination
from pipelines.plan import Plan, WindowPlan
from pipelines.states import StateLog
from pipelines.summary import WindowSummary, summarise

MAX_TASK_RUNS = 100  # the server needs 50 to 85 ms of CPU for each


class WindowGroup:
    """Neighbouring windows that one task run writes, and what came of them so far.

    A retry runs the same group and passes over what is settled. It is a plain class on purpose:
    Prefect walks through every dataclass that a task is given, and a plan is large.
    """

    def __init__(
        self, plan: Plan, windows: Sequence[WindowPlan], log: StateLog, progress: LiveProgress
    ) -> None:
        self.plan = plan
        self.log = log
        self.progress = progress
        self.windows = windows
        self.stopped = False
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
            if self.stopped:
                raise ContractError("the run was stopped")
            if name in self.written or (failed is not None and not failed.retryable):
                continue
            try:
                summary = export_window(
                    self.plan, window, on_commit=self.log.add, progress=self.progress.add
                )
                if summary.error:
                    raise ContractError(summary.error)
            except ConfigError:
                raise
            except PipelineError as exc:
                self.errors[name] = exc
            else:
                self.written[name] = summary
                self.errors.pop(name, None)
                if summary.status == "committed":
                    tell_commit(self.plan.config, summary)
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


def export_all(plan: Plan, *, progress: LiveProgress, at_once: int) -> dict[str, WindowSummary]:
    """Write the windows that need it, as task runs of the flow run; return their summaries by name.

    Args:
        plan: the run's plan.
        progress: told of events and bytes as they are written.
        at_once: task runs side by side; each needs the config's `memory_limit` for itself.

    Raises:
        ConfigError: the config does not fit; no further window was begun.
    """
    log = StateLog(open_destination(plan.config))
    chosen = [w for w in plan.windows if w.status == "blocked" or w in plan.to_do]
    groups = _groups(plan, chosen, log, progress)
    found: dict[str, WindowSummary] = {}
    try:
        with closing(_states(groups, at_once)) as states:
            for group, state in states:
                error = None if state.is_completed() else state.result(raise_on_failure=False)
                if isinstance(error, ConfigError):
                    raise error
                found |= group.summarise(error)
    finally:
        log.flush()
    return found


def _states(
    groups: Sequence[WindowGroup], at_once: int
) -> Generator[tuple[WindowGroup, State[Any]], None, None]:
    """Run the groups, at most `at_once` side by side; yield each with its final state."""
    if at_once == 1:  # in this thread, where a signal reaches DuckDB
        for group in groups:
            yield group, export_windows(group, return_state=True)
        return
    running: dict[PrefectFuture[None], WindowGroup] = {}
    waiting = list(reversed(groups))
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                group = waiting.pop()
                running[export_windows.submit(group)] = group
            for future in wait_for_any(list(running)):
                yield running.pop(future), future.state
    finally:  # a run that is stopped, or fails, waits for its windows before anything is put back
        for group in running.values():
            group.stopped = True
        if running:
            stop_statements()
            wait(list(running))


def wait_for_any(futures: list[PrefectFuture[None]]) -> list[PrefectFuture[None]]:
    """Return the futures that are done, as soon as there is one."""
    while not (done := [future for future in futures if future.state.is_final()]):
        wait(futures[:1], timeout=0.2)
    return done


def _groups(
    plan: Plan, windows: Sequence[WindowPlan], log: StateLog, progress: LiveProgress
) -> list[WindowGroup]:
    """At most MAX_TASK_RUNS groups of neighbours, of one window each where that suffices."""
    size = -(-len(windows) // MAX_TASK_RUNS) or 1
    return [
        WindowGroup(plan, windows[first : first + size], log, progress)
        for first in range(0, len(windows), size)
    ]
