"""Dask workers as an executor: looked at before they get a shard, named when they do not fit."""

import importlib.metadata
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from pipelines.errand import Report, check_versions, versions
from pipelines.errors import ConfigError, ExecutorError
from pipelines.values import check_address
from pipelines.words import say_count

logger = logging.getLogger(__name__)

_SECONDS_TO_CONNECT = 30.0
_SECONDS_WITHOUT_WORKERS = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0
_MOVES = 3  # of a shard whose workers have all gone
_ADDRESS = "DASK_SCHEDULER_ADDRESS"  # dask's own name for it
_TOPIC = "request-logs"
# What a client raises when its scheduler has gone; which one, is a matter of the moment.
_GONE = (OSError, RuntimeError, ValueError, KeyError, CancelledError)


@dataclass(eq=False, slots=True)
class _Call:
    """What was submitted, the future that its caller has, and where it may run now."""

    outer: Future[Any]
    submit: Callable[..., Future[Any]]
    inner: Future[Any] | None = None
    allowed: frozenset[str] = frozenset()
    moves: int = 0


class ClusterExecutor(Executor):
    """`distributed.Client.get_executor()`, which gives calls only to workers that fit.

    A worker fits that has the versions of this process. What is submitted waits while there is
    none, and fails after a minute.
    """

    def __init__(self, client: Any) -> None:
        """Take a client that is connected; `open_cluster` does the rest."""
        self._client = client
        self._executor = client.get_executor(pure=False)
        self._address = client.scheduler.address
        self._needed = versions()
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._fit: dict[str, int] = {}
        self._unfit: dict[str, str] = {}
        self._seen = time.monotonic()  # when there last was one that fits
        self._lost = ""
        self._closing = threading.Event()
        self._mail: SimpleQueue[tuple[int, int, int] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._watch, daemon=True)]

    @property
    def workers(self) -> int:
        """How many shards run side by side: the threads of all workers that fit."""
        return max(1, sum(self._fit.values()))

    @property
    def report(self) -> Report:
        """What a worker is to call with its progress."""
        return partial(_report, self._client.id)

    def listen(self, take_report: Callable[[int, int, int], None]) -> None:
        """Let `take_report` be called, from a thread of its own, with what workers report."""

        def deliver() -> None:
            while (mail := self._mail.get()) is not None:
                take_report(*mail)

        def receive(event: tuple[Any, Any]) -> None:
            run, *mail = event[1]
            if run == self._client.id:
                self._mail.put((mail[0], mail[1], mail[2]))

        self._threads.append(threading.Thread(target=deliver, daemon=True))
        self._threads[-1].start()
        # The client's own thread runs its event loop, which nobody may hold up.
        self._client.subscribe_topic(_TOPIC, receive)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a call; a worker that dies leaves it to another, three times.

        Raises:
            ExecutorError: the scheduler is gone.
        """
        if self._lost:
            raise ExecutorError(self._lost)
        call = _Call(Future(), partial(self._executor.submit, fn, *args, **kwargs))
        with self._lock:
            self._calls.add(call)
        self._send(call)
        return call.outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of Executor
        """Leave the cluster; what has not begun is cancelled unless it is waited for."""
        self._executor.shutdown(wait=wait and not cancel_futures and not self._lost)
        self._closing.set()
        self._fail_all("the run was stopped")
        self._mail.put(None)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(_SECONDS_TO_CONNECT)

    def check(self) -> None:
        """Make sure that there are workers and that all fit; go on looking from now on.

        Raises:
            ExecutorError: it names the worker and what it lacks.
        """
        try:
            self._client.wait_for_workers(1, timeout=_SECONDS_TO_CONNECT)
            self._look()
        except TimeoutError as exc:
            raise ExecutorError(
                f"the Dask scheduler {self._address} has no worker: start one with "
                f"`dask worker {self._address}`"
            ) from exc
        except _GONE as exc:
            raise ExecutorError(self._gone(type(exc).__name__)) from exc
        for problem in self._unfit.values():
            raise ExecutorError(problem)
        self._threads[0].start()

    def _look(self) -> None:
        """See which workers there are, and whether the new ones fit."""
        threads: dict[str, int] = self._client.nthreads()
        new = sorted(threads.keys() - self._fit.keys() - self._unfit.keys())
        there: dict[str, dict[str, str]] = {worker: {} for worker in new}
        for name in self._needed if new else ():
            # Nothing of this package: a worker may have none of it, or another.
            found = self._client.run(
                importlib.metadata.version, name, workers=new, on_error="return"
            )
            for worker, version in found.items():
                if isinstance(version, str):
                    there[worker][name] = version
                elif isinstance(version, importlib.metadata.PackageNotFoundError):
                    there[worker][name] = ""
        for worker, known in there.items():
            if len(known) < len(self._needed):  # gone meanwhile, or asked again
                threads.pop(worker)
                continue
            try:
                check_versions(self._needed, known, f"worker {worker}")
            except ExecutorError as exc:
                self._unfit[worker] = str(exc)
                logger.warning("%s; it gets no shard", exc)
        self._fit = {w: count for w, count in threads.items() if w not in self._unfit}
        if self._fit:
            self._seen = time.monotonic()

    def _watch(self) -> None:
        while not self._closing.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self._look()
            except _GONE as exc:
                if self._client.status in {"closed", "closing", "newly-created"}:
                    self._lose(type(exc).__name__)
                    return
                continue
            with self._lock:
                stranded = [call for call in self._calls if not call.allowed & self._fit.keys()]
            for call in stranded:
                self._move(call)
            if stranded and time.monotonic() - self._seen > _SECONDS_WITHOUT_WORKERS:
                unfit = "".join(f"; {problem}" for problem in self._unfit.values())
                self._fail_all(
                    f"the Dask scheduler {self._address} has had no worker that fits for "
                    f"{_SECONDS_WITHOUT_WORKERS:.0f} s{unfit}"
                )

    def _move(self, call: _Call) -> None:
        """Give a call to the workers there are now; those that it was given to have gone."""
        if not self._fit:
            return
        inner, call.inner = call.inner, None
        if inner is not None:
            call.moves += 1
            inner.cancel()
        if call.moves > _MOVES:
            self._finish(call, ExecutorError(_died(call.moves, "")))
        else:
            self._send(call)

    def _send(self, call: _Call) -> None:
        call.allowed = frozenset(self._fit)
        if not call.allowed:
            return
        try:
            inner = call.submit(workers=sorted(call.allowed))
        except _GONE as exc:
            self._lose(type(exc).__name__)
            return
        call.inner = inner
        call.outer.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        inner.add_done_callback(partial(self._settle, call))

    def _settle(self, call: _Call, inner: Future[Any]) -> None:
        if call.inner is not inner:  # it was moved
            return
        if inner.cancelled():
            if call.outer.cancelled():
                self._finish(call, None)
            else:
                self._lose("it dropped a shard, or cannot be reached")
        elif (error := inner.exception()) is not None:
            self._finish(call, self._translated(error))
        else:
            self._finish(call, None, inner.result())

    def _finish(self, call: _Call, error: BaseException | None, value: Any = None) -> None:
        with self._lock:
            if call not in self._calls:
                return
            self._calls.remove(call)
        if not call.outer.set_running_or_notify_cancel():
            return
        if error is not None:
            call.outer.set_exception(error)
        else:
            call.outer.set_result(value)

    def _fail_all(self, why: str) -> None:
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            self._finish(call, ExecutorError(why))

    def _lose(self, what: str) -> None:
        self._lost = self._lost or self._gone(what)
        self._fail_all(self._lost)

    def _gone(self, what: str) -> str:
        return (
            f"the Dask scheduler {self._address} was lost while shards ran ({what}); what was "
            f"committed stays, the next run goes on"
        )

    def _translated(self, error: BaseException) -> BaseException:
        """Our error for one of Dask's; those that a shard raised stay as they are."""
        from distributed import KilledWorker  # noqa: PLC0415 - an extra

        if isinstance(error, KilledWorker):
            last = error.last_worker
            where = str(getattr(last, "address", last))
            return ExecutorError(_died(error.allowed_failures + 1, where))
        if isinstance(error, ImportError | AttributeError):
            return ExecutorError(f"a worker cannot load the shard's work: {error}")
        if isinstance(error, OSError | CancelledError):
            return ExecutorError(self._gone(type(error).__name__))
        return error


def scheduler_address(address: str | None) -> str:
    """Return the scheduler's address, by default what DASK_SCHEDULER_ADDRESS says.

    Raises:
        ConfigError: there is none, or Dask is not installed.
    """
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError(
            "executor: dask needs Dask, which is an extra: pip install 'request-log-export[dask]'"
        )
    found = address or os.environ.get(_ADDRESS)
    if not found:
        raise ConfigError(
            f"executor: dask needs the scheduler's address: give `address: tcp://host:8786` in the "
            f"config, --address, or {_ADDRESS} in the environment"
        )
    try:
        return check_address(found)
    except ValueError as exc:
        raise ConfigError(f"{'address' if address else _ADDRESS}: {exc}") from exc


@contextmanager
def open_cluster(address: str | None) -> Iterator[ClusterExecutor]:
    """Yield the executor of the cluster of a scheduler; see `scheduler_address`.

    Raises:
        ConfigError: Dask is not installed, or no address is known.
        ExecutorError: the cluster cannot be reached, or is not fit.
    """
    found = scheduler_address(address)
    from distributed import Client  # noqa: PLC0415 - an extra, which takes 0.7 s to import

    def drop(_record: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("distributed.client")
    log.addFilter(drop)  # what it logs, with tracebacks, is what is raised here
    with ExitStack() as held:
        held.callback(log.removeFilter, drop)
        try:
            client = Client(found, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError, TypeError) as exc:
            raise ExecutorError(f"no Dask scheduler answers at {found}: {_line(exc)}") from exc
        held.callback(client.close, timeout=_SECONDS_TO_CONNECT)
        executor = ClusterExecutor(client)
        held.callback(executor.shutdown, wait=False)
        executor.check()
        yield executor


def _report(run: str, number: int, events: int, line_bytes: int) -> None:
    """Tell a run how far a shard is, from a Dask worker."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    get_worker().log_event(_TOPIC, (run, number, events, line_bytes))


def _died(count: int, last: str) -> str:
    at_last = f", at last {last}" if last else ""
    return (
        f"{say_count(count, 'worker')} died while running one shard{at_last}: for memory as a "
        f"rule; give workers more, or lower memory_limit"
    )


def _line(exc: Exception) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
