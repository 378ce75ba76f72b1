"""Where shards run: in this process, in processes beside it, or on a cluster.

The one seam is `concurrent.futures.Executor`; what stands behind it only has to call functions.
"""

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pipelines.cluster import open_cluster, scheduler_address
from pipelines.config import ExportConfig
from pipelines.errand import Report, Reports, pack, run_errand, versions
from pipelines.errors import ExecutorError
from pipelines.interrupts import stop_statements
from pipelines.plan import Plan
from pipelines.processes import ProcessExecutor, count_workers, report_there
from pipelines.shard import Progress, ShardResult, run_shard
from pipelines.work import ShardWork

_T = TypeVar("_T")
_WORTH_A_PROCESS = 32 * 1024**2  # of compressed row groups: a second of work, as long as its start
_MOST_WINDOWS = 32
_AHEAD = 2  # shards given out for each that can run
_ROWS_AHEAD = 8_000_000  # of which ids or hashes may wait here: some 60 bytes each


class Workers:
    """An executor, and how shards are given to it."""

    def __init__(
        self,
        executor: Executor,
        *,
        at_once: Callable[[], int] | None = None,
        threads: int | None = None,
        reports: Reports | None = None,
        report: Report | None = None,
        stop: Callable[[], None] = stop_statements,
    ) -> None:
        """Take an executor, which the caller shuts down.

        Args:
            executor: any.
            at_once: says how many shards it runs side by side; without, windows are written one
                after the other.
            threads: DuckDB threads of a shard where the config leaves them to us.
            reports: takes in the progress of shards.
            report: what a worker calls with it; None where it cannot.
            stop: makes shards that run end soon.
        """
        self._threads = threads
        self._executor = executor
        self._at_once = at_once
        self._reports = reports or Reports()
        self._report = report
        self.stop = stop
        self._versions = versions()
        self._turn = threading.Lock()

    def windows_at_once(self, plan: Plan) -> int:
        """Return how many windows to write side by side, so that there are shards for everybody.

        Two at least, as one window's commit would leave workers idle.
        """
        if self._at_once is None:
            return 1
        needed = -(-2 * self._at_once() * len(plan.to_do) // max(1, plan.shards))
        return min(_MOST_WINDOWS, max(2, needed), max(1, len(plan.to_do)))

    def fitted(self, works: list[ShardWork]) -> list[ShardWork]:
        """Return the works with as many threads as fit these workers, unless the config says."""
        if self._threads is None or not works or works[0].config.threads is not None:
            return works
        config = works[0].config.model_copy(update={"threads": self._threads})
        return [replace(work, config=config) for work in works]

    def run_shards(
        self,
        works: list[ShardWork],
        progress: Progress | None = None,
        *,
        on_begin: Callable[[], None] = lambda: None,
    ) -> Iterator[ShardResult]:
        """Yield the results of `run_shard` in order; the first error is raised.

        Args:
            works: of one window; those of another one wait until all of these are given out.
            progress: told of events and bytes of lines.
            on_begin: called when it is this window's turn.
        """
        told = progress or _tell_nobody
        with ExitStack() as turn:
            turn.enter_context(self._turn)
            on_begin()
            for number, result in self._each(run_shard, works, told, turn.close):
                self._reports.close(number, *result.taken)
                yield result

    def run_each(
        self, function: Callable[[ShardWork], _T], works: Iterable[ShardWork]
    ) -> Iterator[_T]:
        """Yield what a function of this package returns for each work, in order."""
        with ExitStack() as turn:
            turn.enter_context(self._turn)
            for number, result in self._each(function, works, _tell_nobody, turn.close):
                self._reports.close(number)
                yield result

    def _each(
        self,
        function: Callable[..., Any],
        works: Iterable[ShardWork],
        progress: Progress,
        on_given: Callable[[], None],
    ) -> Iterator[tuple[int, Any]]:
        waiting = iter(works)
        running: deque[tuple[int, int, Future[Any]]] = deque()
        try:
            while True:
                while self._has_room(function, [rows for _, rows, _ in running]):
                    if (work := next(waiting, None)) is None:
                        on_given()
                        break
                    rows = sum(end - first for first, end in (entry.rows for entry in work.ranges))
                    number, future = self._submit(function, work, progress)
                    running.append((number, rows, future))
                if not running:
                    return
                number, _, future = running[0]
                yield number, _result_of(future)
                running.popleft()
        except (KeyboardInterrupt, SystemExit):
            _cancel(running)
            self.stop()
            raise
        finally:
            _cancel(running)
            for number, _, _ in running:
                self._reports.close(number)

    def _has_room(self, function: Callable[..., Any], rows: list[int]) -> bool:
        """Whether one more may be given out: tables wait here until they are taken, results too."""
        if self._at_once is None or not rows:
            return True
        if function is not run_shard and sum(rows) >= _ROWS_AHEAD:
            return False
        return len(rows) < _AHEAD * self._at_once()

    def _submit(
        self, function: Callable[..., Any], work: ShardWork, progress: Progress
    ) -> tuple[int, Future[Any]]:
        number = self._reports.open(progress)
        packed = pack(function, work)
        report = self._report
        future = self._executor.submit(run_errand, self._versions, packed, number, report)
        return number, future


def check_executor(config: ExportConfig) -> None:
    """Make sure that what the config asks for can be opened; connects to nothing.

    Raises:
        ConfigError: Dask is not installed, or has no address.
    """
    if config.executor == "dask":
        scheduler_address(config.address)


@contextmanager
def open_workers(config: ExportConfig, plan: Plan) -> Iterator[Workers | None]:
    """Yield the workers that a run's config asks for; None when shards are to run right here.

    Raises:
        ConfigError: Dask is not installed, or has no address.
        ExecutorError: a cluster cannot be reached or is not fit.
    """
    reports = Reports()
    if not plan.to_do or config.executor == "threads":
        yield None
    elif config.executor == "dask":
        with open_cluster(config.address) as cluster:
            cluster.listen(reports.take)
            yield Workers(
                cluster,
                at_once=partial(getattr, cluster, "workers"),
                threads=1,
                reports=reports,
                report=cluster.report,
                stop=partial(cluster.shutdown, wait=False),
            )
    else:
        count, threads = count_workers(
            threads=config.threads,
            memory_limit=config.memory_limit,
            asked=config.workers,
            useful=_useful(plan, config.workers),
        )
        if count == 1 or multiprocessing.current_process().daemon:  # which may start none
            yield None
            return
        pool = ProcessExecutor(count, reports.take)
        try:
            yield Workers(
                pool,
                at_once=lambda: count,
                threads=threads,
                reports=reports,
                report=report_there,
                stop=pool.stop,
            )
            pool.shutdown()
        finally:
            pool.stop()


def _useful(plan: Plan, asked: int | None) -> int:
    """How many processes a plan can keep busy, and for longer than they take to start."""
    held = sum(window.input.bytes for window in plan.to_do)
    worth = -(-held // _WORTH_A_PROCESS) if asked is None else asked
    return min(plan.shards, worth)


def _result_of(future: Future[_T]) -> _T:
    try:
        return future.result()
    except CancelledError:
        raise ExecutorError("the run was stopped") from None


def _cancel(running: deque[tuple[int, int, Future[Any]]]) -> None:
    for _, _, future in running:
        future.cancel()


def _tell_nobody(_events: int, _line_bytes: int) -> None:
    """Take progress that nobody asked for."""
