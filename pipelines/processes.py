"""Worker processes of this machine; what one that was killed left undone others do again."""

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from pipelines.engine import kept_engines, usable_cores
from pipelines.errors import ExecutorError

logger = logging.getLogger(__name__)

_TRIES = 3  # of one call: what kills a worker three times would kill the next one too
_REPORT = struct.Struct("qqq")
_SECONDS_TO_END = 10.0
_THREADS = 2  # DuckDB's in each of several workers: more of them, and one core waits for another
_MEMORY_BESIDE_DUCKDB = 512 * 1024**2
_EXIT_CODE = 128 + signal.SIGTERM

# In a worker: where the run hears of its shards, and what goes with the process.
_reports: socket.socket | None = None
_kept = ExitStack()


def report_there(number: int, events: int, line_bytes: int) -> None:
    """Tell the run how far a shard is, from a worker process; a report too many is dropped."""
    if _reports is not None:
        with contextlib.suppress(OSError):
            _reports.send(_REPORT.pack(number, events, line_bytes), socket.MSG_DONTWAIT)


@dataclass(slots=True)
class _Call:
    """What was submitted, the future that its caller has, and that of the pool."""

    future: Future[Any]
    run: Callable[[], Any]
    tries: int = 0
    inner: Future[Any] | None = None

    def cancel(self, future: Future[Any]) -> None:
        """Take it back from the pool when the caller cancelled it."""
        if future.cancelled() and self.inner is not None:
            self.inner.cancel()

    def drop(self) -> None:
        """Cancel it for the caller, who may wait for it."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class ProcessExecutor(Executor):
    """Runs calls in processes of its own, which end with this one, however it ends.

    They start with this process's environment and nothing of its `__main__`.
    """

    def __init__(self, workers: int, take_report: Callable[[int, int, int], None]) -> None:
        """Start nothing yet.

        Args:
            workers: how many processes.
            take_report: called from a thread with what `report_there` is given.
        """
        self._workers = workers
        self._lock = threading.RLock()
        self._pool: ProcessPoolExecutor | None = None
        self._ended = False
        # One message is one packet: a worker that is killed tears none, and holds no lock.
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener = threading.Thread(target=self._listen, args=(take_report,), daemon=True)
        self._listener.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a call, which a worker runs again when another one was killed."""
        call = _Call(Future(), partial(_call, fn, *args, **kwargs))
        call.future.add_done_callback(call.cancel)
        self._send(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of Executor
        """End the workers, after their calls unless these are cancelled."""
        with self._lock:
            self._ended, pool = True, self._pool
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        self._ours.shutdown(socket.SHUT_RDWR)
        self._listener.join()
        self._ours.close()
        self._theirs.close()

    def stop(self) -> None:
        """Let the workers leave what they do at once; whatever was submitted is cancelled."""
        with self._lock:
            self._ended, pool = True, self._pool
        if pool is None:
            return
        processes = list((pool._processes or {}).values())  # noqa: SLF001 - as `kill_workers` of 3.14
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        until = time.monotonic() + _SECONDS_TO_END
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join()

    def _send(self, call: _Call) -> None:
        call.tries += 1
        with self._lock:
            if self._ended:
                call.drop()
                return
            pool = self._pool = self._pool or self._start()
            try:
                call.inner = _submit(pool, call.run)
            except BrokenProcessPool:
                pool = self._renew(pool)
                call.inner = _submit(pool, call.run)
        call.inner.add_done_callback(partial(self._settle, call, pool))

    def _settle(self, call: _Call, pool: ProcessPoolExecutor, inner: Future[Any]) -> None:
        """Hand a result on, or the call to a new pool when a worker of this one was killed."""
        if inner.cancelled() or call.future.cancelled():
            call.drop()
            return
        error = inner.exception()
        if isinstance(error, BrokenProcessPool):
            if self._ended:
                call.drop()
                return
            if call.tries < _TRIES:
                with self._lock:
                    self._renew(pool)
                self._send(call)
                return
            error = ExecutorError(
                f"worker processes ended {_TRIES} times before a shard was done: killed, for "
                f"memory as a rule; lower workers, threads or memory_limit"
            )
        if not call.future.set_running_or_notify_cancel():
            return
        if error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(inner.result())

    def _renew(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        """Start anew, unless another call's failure did, and return the pool to use."""
        if self._pool is broken or self._pool is None:
            logger.warning("a worker process was killed; its shards run again")
            self._pool = self._start()
        return self._pool

    def _start(self) -> ProcessPoolExecutor:
        level = logging.getLogger("pipelines").level
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._theirs, level),
        )

    def _listen(self, take_report: Callable[[int, int, int], None]) -> None:
        while packet := self._ours.recv(_REPORT.size):
            take_report(*_REPORT.unpack(packet))


def count_workers(
    *, threads: int | None, memory_limit: int, asked: int | None, useful: int
) -> tuple[int, int]:
    """Return how many processes to start, and DuckDB threads for each.

    Args:
        threads: DuckDB threads that each is to have, None for a share of the cores.
        memory_limit: bytes that DuckDB may hold in each.
        asked: as many as these at most, None for as many as the machine has room for.
        useful: as many as there is work for.
    """
    cores = usable_cores()
    room = max(1, usable_memory() // (memory_limit + _MEMORY_BESIDE_DUCKDB))
    workers = asked or min(max(1, cores // (threads or _THREADS)), room)
    workers = max(1, min(workers, useful))
    return workers, threads or max(1, cores // workers)


def usable_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Return the bytes of memory of the machine, or of the container where that has fewer.

    Args:
        limit: `max` or a number of bytes: the second group of Linux has it.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(limit.read_text("ascii")))
    except (OSError, ValueError):  # no such file, or no limit
        return memory


def _submit(pool: ProcessPoolExecutor, run: Callable[[], Any]) -> Future[Any]:
    with _without_main():
        return pool.submit(run)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide `__main__` from processes that start in the body, which would run it once more.

    It may be a script without a guard, or import what takes seconds; nothing of it is needed.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(reports: socket.socket, level: int) -> None:
    """Set up a worker process."""
    global _reports  # noqa: PLW0603 - one for each process, as the initializer of a pool must
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the run tells us
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("pipelines").setLevel(level)
    _kept.enter_context(kept_engines())  # for as long as the process lives
    leaving, leave = multiprocessing.Pipe(duplex=False)
    watch = threading.Thread(target=_end_with_parent, args=(leaving,), daemon=True)
    watch.start()
    # A thread that is still there when Python ends makes DuckDB's binding complain of leaks.
    _kept.callback(watch.join, timeout=1.0)
    _kept.callback(leave.close)
    atexit.register(_kept.close)


def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return fn(*args, **kwargs)
    except SystemExit:  # a pool's worker would hand it back as a result, and wait for more
        _kept.close()
        os._exit(_EXIT_CODE)


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_EXIT_CODE)


def _end_with_parent(leaving: Connection) -> None:
    """End when the run is gone, however it ended; `leaving` is closed when this process is done."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.sentinel in wait([parent.sentinel, leaving]):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_END)
        os._exit(_EXIT_CODE)
