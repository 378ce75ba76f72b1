"""Worker processes of this machine; what one that was killed left undone another does again."""

import atexit
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from pipelines.engine import kept_engines, usable_cores
from pipelines.errors import ExecutorError

logger = logging.getLogger(__name__)

_TRIES = 3  # of one call: what kills a worker three times would kill the next one too
_SECONDS_TO_END = 10.0
_THREADS = 2  # DuckDB's in each of several workers: more of them, and one core waits for another
_MEMORY_BESIDE_DUCKDB = 512 * 1024**2
_EXIT_CODE = 128 + signal.SIGTERM
_STOPPED = "the run was stopped"
_KILLED = (
    f"{_TRIES} worker processes ended before one shard was done: killed, for memory as a rule; "
    f"lower workers, threads or memory_limit"
)
_main_hidden = threading.Lock()

# In a worker: the way to the run, and what goes with the process.
_run: Connection | None = None
_kept = ExitStack()


def report_there(number: int, events: int, line_bytes: int) -> None:
    """Tell the run how far a shard is; for a worker's main thread, where calls run."""
    if _run is not None:
        _run.send((number, events, line_bytes))


@dataclass(frozen=True, slots=True)
class _Call:
    """What was submitted, and the future that its caller has."""

    future: Future[Any]
    packed: bytes


@dataclass(frozen=True, slots=True)
class _Result:
    """What a call returned, or what it raised."""

    value: Any = None
    error: BaseException | None = None


class _Worker:
    """One process, and the only other end of its pipe: whoever reads it sees it die."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        level = logging.getLogger("pipelines").level
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, level))
        with theirs, _without_main():
            self.process.start()

    def run(self, packed: bytes, take_report: Callable[[int, int, int], None]) -> _Result | None:
        """Return what came of a call, None when the process died of it."""
        try:
            self.pipe.send_bytes(packed)
            while not isinstance(said := self.pipe.recv(), _Result):
                take_report(*said)
        except (EOFError, OSError):
            return None
        return said

    def end(self) -> None:
        """Return when it has ended, as it does when its pipe is closed."""
        self.pipe.close()
        self.process.join(_SECONDS_TO_END)
        self.process.kill()
        self.process.join()


class ProcessExecutor(Executor):
    """Runs calls in processes of its own, which end with this one, however it ends.

    They start with this process's environment and nothing of its `__main__`. One thread here serves
    one process. `concurrent.futures.ProcessPoolExecutor` would fail all calls when one process is
    killed, and wait for ever for a result that was half sent.
    """

    def __init__(self, workers: int, take_report: Callable[[int, int, int], None]) -> None:
        """Start threads; a process starts with the first call for it.

        Args:
            workers: how many processes.
            take_report: called from threads with what `report_there` is given.
        """
        self._take_report = take_report
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended = self._stopped = False
        self._workers: list[_Worker] = []
        self._threads = [
            threading.Thread(target=self._serve, name=f"worker_{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a call, which another worker runs again when one was killed.

        Raises:
            ExecutorError: the executor was stopped.
        """
        call = _Call(Future(), pickle.dumps((fn, args, kwargs)))
        with self._lock:
            if self._ended:
                raise ExecutorError(_STOPPED)
            self._calls.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of Executor
        """End the workers, after all calls or those that run."""
        with self._lock:
            if cancel_futures:
                self._cancel_waiting()
            if not self._ended:
                self._ended = True
                for _ in self._threads:
                    self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def stop(self) -> None:
        """Let the workers leave what they do at once; whatever was submitted fails."""
        with self._lock:
            self._stopped = True
            workers = list(self._workers)
        self.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.process.terminate()
        until = time.monotonic() + _SECONDS_TO_END
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()
        self.shutdown()

    def _cancel_waiting(self) -> None:
        waiting = []
        with suppress(queue.Empty):
            while True:
                waiting.append(self._calls.get_nowait())
        for call in waiting:
            if call is None:  # says that there will be no more
                self._calls.put(None)
            elif call.future.cancel():
                call.future.set_running_or_notify_cancel()

    def _serve(self) -> None:
        """Give calls to one process, or to the next when it died, until there is no more."""
        with ExitStack() as held:
            while (call := self._calls.get()) is not None:
                if not call.future.set_running_or_notify_cancel():
                    continue
                result = self._run(call, held)
                if result.error is not None:
                    call.future.set_exception(result.error)
                else:
                    call.future.set_result(result.value)

    def _run(self, call: _Call, held: ExitStack) -> _Result:
        """What came of a call in this thread's process, or in another when that one dies."""
        for _ in range(_TRIES):
            worker = self._worker_of_thread(held)
            if worker is None:
                break
            try:
                result = worker.run(call.packed, self._take_report)
            except Exception as exc:  # noqa: BLE001 - what was sent cannot be read here
                return _Result(error=_unreadable(exc))
            if result is not None:
                return result
            held.close()
            if not self._stopped:
                logger.warning("a worker process was killed; its shard runs again")
        return _Result(error=ExecutorError(_STOPPED if self._stopped else _KILLED))

    def _worker_of_thread(self, held: ExitStack) -> _Worker | None:
        """This thread's process, started anew when `held` was closed; None once all is stopped."""
        with self._lock:
            worker = next((w for w in self._workers if w.thread == threading.get_ident()), None)
            if worker is None and not self._stopped:
                worker = _Worker()
                self._workers.append(worker)
                held.callback(self._forget, worker)
            return worker

    def _forget(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._workers.remove(worker)


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


def _unreadable(exc: Exception) -> ExecutorError:
    return ExecutorError(f"what a worker process sent cannot be read: {type(exc).__name__}")


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide `__main__` from processes that start in the body, which would run it once more.

    It may be a script without a guard, or import what takes seconds; nothing of it is needed.
    """
    with _main_hidden:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _serve(run: Connection, level: int) -> None:
    """Be a worker: run one call after another until the run hangs up."""
    global _run  # noqa: PLW0603 - one for each process, for what calls report
    _run = run
    _begin(level)
    while True:
        try:
            fn, args, kwargs = pickle.loads(run.recv_bytes())  # noqa: S301 - of the run
        except EOFError:
            return
        try:
            result = _Result(fn(*args, **kwargs))
        except SystemExit:
            _kept.close()
            os._exit(_EXIT_CODE)
        except BaseException as exc:  # noqa: BLE001 - for whoever called
            result = _Result(error=exc)
        try:
            run.send(result)
        except (pickle.PicklingError, TypeError, AttributeError) as exc:
            run.send(_Result(error=_unreadable(exc)))


def _begin(level: int) -> None:
    """Set up a worker process."""
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


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_EXIT_CODE)


def _end_with_parent(leaving: Connection) -> None:
    """End when the run is gone, however it ended; `leaving` is closed when this process is done."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.sentinel in wait([parent.sentinel, leaving]):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_END)
        os._exit(_EXIT_CODE)
