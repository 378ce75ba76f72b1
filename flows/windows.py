"""Windows as task runs: groups of neighbours, retried alone, a few at once."""

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from typing import Any, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.futures import PrefectConcurrentFuture
from prefect.runtime import task_run

from flows.reporting import LiveProgress, tell_commit
from flows.tasks import own_errors, retried_task
from pipelines.errors import ConfigError, ContractError, PipelineError
from pipelines.executors import Workers
from pipelines.export import BROKEN_WINDOWS, export_window, failed_by_store, not_tried
from pipelines.interrupts import stop_statements
from pipelines.owner import open_destination
from pipelines.plan import Plan, WindowPlan
from pipelines.states import StateLog
from pipelines.summary import WindowSummary, summarise

_F = TypeVar("_F", bound=PrefectConcurrentFuture[None])
MAX_TASK_RUNS = 100  # the server needs 50 to 85 ms of CPU for each


class WindowGroup:
    """Neighbouring windows that one task run writes, and what came of them so far.

    A retry runs the same group and passes over what is settled. It is a plain class on purpose:
    Prefect walks through every dataclass that a task is given, and a plan is large.
    """

    def __init__(
        self,
        plan: Plan,
        windows: Sequence[WindowPlan],
        log: StateLog,
        progress: LiveProgress,
        workers: Workers | None,
    ) -> None:
        self.plan = plan
        self.workers = workers
        self.log = log
        self.progress = progress
        self.windows = windows
        self.stopped = False
        self.broken_off = 0
        self.written: dict[str, WindowSummary] = {}
        self.errors: dict[str, PipelineError] = {}

    @property
    def name(self) -> str:
        """The window, or the first and the last of several."""
        first, last = self.windows[0].window.name, self.windows[-1].window.name
        return first if first == last else f"{first}..{last}"

    @property
    def broken(self) -> int:
        """How many windows the store failed; 0 when anything else came of one."""
        errors = self.errors.values()
        return 0 if self.written or not all(map(failed_by_store, errors)) else len(errors)

    def export(self) -> None:
        """Export every window that is not settled; one that fails does not stop the others.

        Once the store failed BROKEN_WINDOWS in a row the rest is left to a retry.

        Raises:
            PipelineError: a window failed; a retryable error comes first.
        """
        broken = self.broken_off = 0
        for window in self.windows:
            name = window.window.name
            failed = self.errors.get(name)
            if self.stopped:
                raise ContractError("the run was stopped")
            if name in self.written or (failed is not None and not failed.retryable):
                continue
            if broken == BROKEN_WINDOWS:
                self.broken_off = broken
                break
            try:
                self._write(window)
            except ConfigError:
                raise
            except PipelineError as exc:
                self.errors[name] = exc
                self.progress.settle(name, 0, 0)
                broken = broken + 1 if failed_by_store(exc) else 0
            else:
                self.errors.pop(name, None)
                broken = 0
        if self.errors:
            raise max(self.errors.values(), key=lambda error: error.retryable)

    def _write(self, window: WindowPlan) -> None:
        """Export a window and tell of it."""
        name = window.window.name
        with own_errors():
            summary = export_window(
                self.plan,
                window,
                workers=self.workers,
                on_commit=self.log.add,
                progress=partial(self.progress.add, name),
            )
        if summary.error:
            raise ContractError(summary.error)
        self.written[name] = summary
        self.progress.settle(name, summary.ledger.read, summary.raw_bytes)
        if summary.status == "committed":
            tell_commit(self.plan.config, summary)

    def summarise(self, error: BaseException | None) -> dict[str, WindowSummary]:
        """Return a summary of every window, after the task run ended with an error or none."""
        found = dict(self.written)
        for window in self.windows:
            name = window.window.name
            if name in found:
                continue
            failed = self.errors.get(name)
            if failed is None and self.broken_off:
                found[name] = not_tried(self.plan, window, self.broken_off)
                continue
            reason = str(failed or f"{type(error).__name__} ended its task run")
            found[name] = replace(summarise(self.plan, window), status="failed", error=reason)
        return found


def _run_name() -> str:
    group: WindowGroup = task_run.parameters["group"]
    return f"window {group.name}"


@retried_task("export-windows", run_name=_run_name)
def export_windows(group: WindowGroup) -> None:
    """Write and commit the windows of a group; all the work is in `pipelines`."""
    group.export()


def export_all(
    plan: Plan, *, progress: LiveProgress, at_once: int, workers: Workers | None = None
) -> dict[str, WindowSummary]:
    """Write the windows that need it, as task runs of the flow run; return their summaries by name.

    Once the store failed BROKEN_WINDOWS groups in a row, no further group is begun.

    Args:
        plan: the run's plan.
        progress: told of events and bytes as they are written.
        at_once: task runs side by side; each needs the config's `memory_limit` for itself.
        workers: where shards run; by default in this process.

    Raises:
        ConfigError: the config does not fit; no further window was begun.
    """
    log = StateLog(open_destination(plan.config))
    found: dict[str, WindowSummary] = {}
    broken: list[WindowGroup] = []  # by the store, one after the other
    groups = takewhile(
        lambda _: len(broken) < BROKEN_WINDOWS, _groups(plan, log, progress, workers)
    )
    try:
        with closing(_states(groups, at_once, workers)) as states:
            for group, state in states:
                error = None if state.is_completed() else state.result(raise_on_failure=False)
                if isinstance(error, BaseException) and _ends_the_run(error):
                    raise error
                found |= group.summarise(error)
                broken = [*broken, group] if group.broken else []
    finally:
        log.flush()
    failed = sum(group.broken for group in broken)
    left = [window for window in plan.to_do if window.window.name not in found]
    return found | {w.window.name: not_tried(plan, w, failed) for w in left}


def _ends_the_run(error: BaseException) -> bool:
    """Whether no further window is to be begun: a wrong config, or somebody stops the run."""
    return isinstance(error, ConfigError | CancelledRun) or not isinstance(error, Exception)


def _states(
    groups: Iterable[WindowGroup], at_once: int, workers: Workers | None
) -> Generator[tuple[WindowGroup, State[Any]], None, None]:
    """Run the groups, at most `at_once` side by side; yield each with its final state."""
    if at_once == 1:  # in this thread, where a signal reaches DuckDB
        for group in groups:
            yield group, export_windows(group, return_state=True)
        return
    running: dict[PrefectConcurrentFuture[None], WindowGroup] = {}
    waiting = iter(groups)
    try:
        while True:
            for group in islice(waiting, at_once - len(running)):
                future = cast("PrefectConcurrentFuture[None]", export_windows.submit(group))
                running[future] = group
            if not running:
                return
            for future in wait_for_any(list(running)):
                yield running.pop(future), future.state
    finally:  # a run that is stopped, or fails, waits for its windows before anything is put back
        for group in running.values():
            group.stopped = True
        if running:
            stop_statements()
            if workers is not None:
                workers.stop()
            # Of the threads alone: waiting for the task runs raises what stopped the first.
            wait([future.wrapped_future for future in running])


def wait_for_any(futures: list[_F]) -> list[_F]:
    """Return the futures that are done, as soon as there is one."""
    while not (done := [future for future in futures if future.state.is_final()]):
        futures[0].wait(timeout=0.2)
    return done


def _groups(
    plan: Plan, log: StateLog, progress: LiveProgress, workers: Workers | None
) -> list[WindowGroup]:
    """At most MAX_TASK_RUNS groups of neighbours, of one window each where that suffices."""
    windows = plan.to_do
    size = -(-len(windows) // MAX_TASK_RUNS) or 1
    return [
        WindowGroup(plan, windows[first : first + size], log, progress, workers)
        for first in range(0, len(windows), size)
    ]
