"""Plan, run the shards of each window, commit, clean up: the one place that composes them."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime

from pipelines.accounting import build_manifest, check_rejects
from pipelines.config import ExportConfig
from pipelines.copies import with_losers
from pipelines.create_only import check_create_only
from pipelines.deadline import Deadline
from pipelines.engine import kept_engines
from pipelines.errors import (
    BatchChangedError,
    ConfigError,
    ContractError,
    ExecutorError,
    PipelineError,
    StorageError,
)
from pipelines.executors import Workers, check_executor, open_workers
from pipelines.failures import record_failures
from pipelines.garbage import clean_up
from pipelines.interrupts import stop_statements
from pipelines.layout import parse_part, parse_rejects
from pipelines.manifest import (
    Manifest,
    commit,
)
from pipelines.owner import claim_destination, open_destination
from pipelines.plan import TO_DO, Plan, WindowPlan, plan_again, plan_export
from pipelines.reshape import compile_rules
from pipelines.shard import (
    Progress,
    ShardResult,
    run_shard,
    too_many_partitions,
)
from pipelines.states import Committed, StateLog
from pipelines.summary import (
    NOT_TRIED,
    ExportSummary,
    WindowSummary,
    summarise,
    summarise_manifest,
    summarise_run,
)
from pipelines.windows import UNDATED
from pipelines.work import ShardWork

logger = logging.getLogger(__name__)

_REMEDY = "; replace or remove it, or set source.on_unreadable_batch: skip"
_REPLANS = 3  # a source whose batches are overwritten all the time is not read consistently
BROKEN_WINDOWS = 3  # failed by the store one after the other: the rest would only take their time


@kept_engines()
def run_export(
    config: ExportConfig,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
    executor: Executor | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Export every due window that is missing or whose inputs changed.

    Args:
        config: the export.
        now: the moment, aware UTC.
        start: with `end`, chooses whole windows of the grid.
        end: the end of the last of them.
        force: write windows that are up to date again.
        rebuild_from_remaining: write windows again whose batches are gone, without their events.
        executor: where shards run; by default where the config says.
        on_plan: called once with the plan.
        progress: called with events and bytes of lines as they are taken in, by any thread.

    Returns:
        A summary; windows that failed stand in it with their error, the others are committed.

    Raises:
        PipelineError: nothing could be planned.
    """
    if executor is None:
        check_executor(config)
    plan = plan_run(
        config,
        now=now,
        start=start,
        end=end,
        force=force,
        rebuild_from_remaining=rebuild_from_remaining,
    )
    if on_plan is not None:
        on_plan(plan)
    chosen = open_workers(config, plan) if executor is None else nullcontext(Workers(executor))
    with chosen as workers:
        summaries = _Run(plan, workers, progress).write_windows()
    record_failures(plan, summaries)
    clean_up(config, [window.window for window in summaries if window.status == "committed"])
    return summarise_run(plan, summaries)


class _Run:
    """The windows of one run, and how many of them in a row the store failed."""

    def __init__(self, plan: Plan, workers: Workers | None, progress: Progress | None) -> None:
        self._plan = plan
        self._workers = workers
        self._progress = progress
        self._log = StateLog(open_destination(plan.config))
        self._broken = 0
        self._stopped = False
        self._lock = threading.Lock()

    def write_windows(self) -> list[WindowSummary]:
        """Write every window that is to be written; return the summaries of all, in order.

        Raises:
            ConfigError: what one window meets every other would.
        """
        at_once = 1 if self._workers is None else self._workers.windows_at_once(self._plan)
        try:
            if at_once == 1:  # in this thread, where a signal reaches DuckDB
                return [self._write(window) for window in self._plan.windows]
            return self._side_by_side(at_once)
        finally:
            self._log.flush()

    def _side_by_side(self, at_once: int) -> list[WindowSummary]:
        with ThreadPoolExecutor(at_once, thread_name_prefix="window") as pool:
            futures = [pool.submit(self._write, window) for window in self._plan.windows]
            try:
                return [future.result() for future in futures]
            except BaseException as exc:
                self._stopped = True
                for future in futures:
                    future.cancel()
                if self._workers is not None and not isinstance(exc, Exception):
                    self._workers.stop()
                    stop_statements()
                raise

    def _write(self, window: WindowPlan) -> WindowSummary:
        plan, to_do = self._plan, window.status in TO_DO
        if to_do and self._broken >= BROKEN_WINDOWS:
            return not_tried(plan, window, self._broken)
        try:
            if self._stopped:
                raise ExecutorError("the run was stopped")
            summary = export_window(
                plan,
                window,
                workers=self._workers,
                progress=self._progress,
                on_commit=self._log.add,
            )
        except ConfigError:
            raise
        except PipelineError as exc:
            with self._lock:
                self._broken = self._broken + 1 if failed_by_store(exc) else 0
            return replace(summarise(plan, window), status="failed", error=str(exc))
        if to_do:
            with self._lock:
                self._broken = 0
        return summary


def failed_by_store(error: PipelineError) -> bool:
    """Return whether the store failed, which the next window would meet too."""
    return isinstance(error, StorageError) and not isinstance(error, BatchChangedError)


def not_tried(plan: Plan, window: WindowPlan, broken: int) -> WindowSummary:
    """Return the summary of a window that comes after so many that the store failed."""
    error = f"{NOT_TRIED}the store failed the {broken} windows before"
    return replace(summarise(plan, window), status="failed", error=error)


def plan_run(
    config: ExportConfig,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
) -> Plan:
    """Return the plan of a run that is to write, and make sure that the destination is its own.

    Raises:
        ConfigError: the destination belongs to another export, source or grid, or writes over
            objects and the config asks for strict commits.
        ContractError: no batch is readable.
    """
    strict = config.destination.strict_commit
    if strict:
        check_create_only(open_destination(config), strict=True)
    plan = plan_export(
        config,
        now=now,
        start=start,
        end=end,
        force=force,
        rebuild_from_remaining=rebuild_from_remaining,
        remember=True,
    )
    if plan.unreadable and plan.mapping is None and config.source.on_unreadable_batch == "fail":
        batch = plan.unreadable[0]
        raise ContractError(
            f"{batch.path}: {batch.unreadable}; no batch of {config.source.url} can be exported",
            batch=batch.path,
        )
    for window in plan.to_do:
        if window.lost_events:
            logger.warning(
                "window %s is made again without %d events, of which the batches are gone",
                window.window.name,
                window.lost_events,
            )
    if plan.to_do:
        check_create_only(open_destination(config), strict=strict)
        claim_destination(config)
    return plan


def export_window(
    plan: Plan,
    window: WindowPlan,
    *,
    workers: Workers | None = None,
    progress: Progress | None = None,
    on_commit: Callable[[Manifest], None] | None = None,
) -> WindowSummary:
    """Run one window's shards and commit it; a window that is not to be written is left alone.

    A batch that is overwritten or removed meanwhile makes the window be planned again.

    Args:
        plan: the run's plan.
        window: one of its windows.
        workers: where shards run; by default here, one after the other.
        progress: called with events and bytes of lines as they are taken in, by any thread.
        on_commit: called with the manifest when it is this run that committed the window.

    Raises:
        PipelineError: the window is not committed; what was before still is.
    """
    for _ in range(_REPLANS):
        try:
            return _export_window(plan, window, workers, progress, on_commit)
        except BatchChangedError as exc:
            logger.warning("window %s is planned again: %s", window.window.name, exc)
            plan, window = plan_again(plan, window)
    return _export_window(plan, window, workers, progress, on_commit)


def _export_window(
    plan: Plan,
    window: WindowPlan,
    workers: Workers | None,
    progress: Progress | None,
    on_commit: Callable[[Manifest], None] | None,
) -> WindowSummary:
    if window.status not in TO_DO:
        summary = summarise(plan, window)
        if window.status == "blocked":
            return replace(summary, error=f"unreadable batch {window.detail}{_REMEDY}")
        return summary
    if plan.mapping is None:
        raise ConfigError("a plan without batches has no windows to write")
    logger.info("window %s: %s (%s)", window.window.name, window.status, window.detail)
    deadline = Deadline(window.window.name, plan.config.destination.grace)
    undated = window.window == UNDATED
    rules = compile_rules(plan.config, plan.mapping, now=plan.now, undated=undated)
    works = [_with_committed(work, window.committed) for work in plan.shard_works(window)]
    if workers is not None:
        works = workers.fitted(works)
    if not undated:
        works = with_losers(works, None if workers is None else workers.run_each)
    results = list(_run(works, workers, progress, deadline))
    manifest = build_manifest(plan, window, rules, results)
    check_rejects(plan, window, rules, manifest, results)
    partitions = {part.partition for part in manifest.parts}
    if len(partitions) > plan.config.max_partitions:
        raise too_many_partitions(rules.partition_keys, plan.config.max_partitions)
    store = open_destination(plan.config)
    committed = commit(store, manifest, deadline=deadline)
    if committed.run_id != manifest.run_id:
        detail = f"already committed by run {committed.run_id} at {committed.committed_at}"
        if committed.input_digest != manifest.input_digest:
            detail += ", from other inputs; the next run compares them again"
        logger.info("window %s: %s", committed.window, detail)
        return summarise_manifest(store, committed, "committed by another run", detail)
    if on_commit is not None:
        on_commit(committed)
    return summarise_manifest(store, manifest, "committed", window.status)


def _with_committed(work: ShardWork, committed: Committed | None) -> ShardWork:
    """The work with the paths of its shard that the newest generation of the window names."""
    if committed is None or committed.input_digest[: len(work.digest)] != work.digest:
        return work
    found = committed.describe()
    named = (*found["parts"], *found["rejects"])
    parsed = ((path, parse_part(path) or parse_rejects(path)) for path in named)
    own = tuple(path for path, name in parsed if name is not None and name.shard == work.shard)
    return replace(work, committed=own)


def _run(
    works: list[ShardWork],
    workers: Workers | None,
    progress: Progress | None,
    deadline: Deadline,
) -> Iterator[ShardResult]:
    """Results of the shards in order; the first error is raised."""
    if workers is None:
        deadline.begin()
        results: Iterator[ShardResult] = (run_shard(work, progress) for work in works)
    else:
        results = workers.run_shards(works, progress, on_begin=deadline.begin)
    for result in results:
        yield result
        deadline.check()
