"""Dask workers as an executor of shards: found fit before the first one, named when one fails."""

import asyncio
import importlib.metadata
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

from pipelines.errand import Report, check_versions, versions
from pipelines.errors import ConfigError, ExecutorError
from pipelines.words import say_count

_SECONDS_TO_CONNECT = 30.0
_ADDRESS = "DASK_SCHEDULER_ADDRESS"  # dask's own name for it


class ClusterExecutor(Executor):
    """`distributed.Client.get_executor()`, whose failures say what to look at."""

    def __init__(self, client: Any) -> None:
        """Take a client that is connected."""
        self._client = client
        self._executor = client.get_executor(pure=False)
        self._address = client.scheduler.address
        self._topic = f"request-logs-{client.id}"
        self._mail: SimpleQueue[tuple[int, int, int] | None] = SimpleQueue()
        self._listener: threading.Thread | None = None

    @property
    def workers(self) -> int:
        """How many shards run side by side: the threads of all workers."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    @property
    def report(self) -> Report:
        """What a worker is to call with its progress."""
        return partial(_report, self._topic)

    def listen(self, take_report: Callable[[int, int, int], None]) -> None:
        """Let `take_report` be called, from a thread of its own, with what workers report."""

        def deliver() -> None:
            while (mail := self._mail.get()) is not None:
                take_report(*mail)

        self._listener = threading.Thread(target=deliver, daemon=True)
        self._listener.start()
        # The client's own thread runs its event loop, which nobody may hold up.
        self._client.subscribe_topic(self._topic, lambda event: self._mail.put(event[1]))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a call; a worker that dies leaves it to another, three times."""
        inner = self._executor.submit(fn, *args, **kwargs)
        outer: Future[Any] = Future()
        outer.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        inner.add_done_callback(partial(self._settle, outer))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of Executor
        """Leave the cluster; what has not begun is cancelled unless it is waited for."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        if self._listener is not None:
            self._mail.put(None)
            self._listener.join()

    def check(self) -> None:
        """Make sure that there are workers, and that each has the versions of this process.

        Raises:
            ExecutorError: it names the worker and what it lacks.
        """
        needed = versions()
        if not self._client.nthreads():
            try:
                self._client.wait_for_workers(1, timeout=_SECONDS_TO_CONNECT)
            except TimeoutError as exc:
                raise ExecutorError(
                    f"the Dask scheduler {self._address} has no worker: start one with "
                    f"`dask worker {self._address}`"
                ) from exc
        there: dict[str, dict[str, str]] = {}
        for name in needed:
            # Nothing of this package: a worker may have none of it, or another.
            found = self._client.run(importlib.metadata.version, name, on_error="return")
            for worker, version in found.items():
                known = there.setdefault(worker, dict.fromkeys(needed, ""))
                known[name] = version if isinstance(version, str) else ""
        for worker, known in sorted(there.items()):
            check_versions(needed, known, f"worker {worker}")

    def _settle(self, outer: Future[Any], inner: Future[Any]) -> None:
        if outer.cancelled():
            outer.set_running_or_notify_cancel()
            return
        outer.set_running_or_notify_cancel()
        if inner.cancelled():
            outer.set_exception(self._lost("the scheduler dropped a shard or cannot be reached"))
        elif (error := inner.exception()) is not None:
            outer.set_exception(self._translated(error))
        else:
            outer.set_result(inner.result())

    def _translated(self, error: BaseException) -> BaseException:
        """Our error for one of Dask's; those that a shard raised stay as they are."""
        from distributed import KilledWorker  # noqa: PLC0415 - an extra

        if isinstance(error, KilledWorker):
            last = error.last_worker
            return ExecutorError(
                f"{say_count(error.allowed_failures + 1, 'worker')} died while running one shard, "
                f"at last {getattr(last, 'address', last)}: for memory as a rule; give workers "
                f"more, or lower memory_limit"
            )
        if isinstance(error, ImportError | AttributeError):
            return ExecutorError(f"a worker cannot load the shard's work: {error}")
        if isinstance(error, OSError | CancelledError | asyncio.CancelledError):
            return self._lost(type(error).__name__)
        return error

    def _lost(self, what: str) -> ExecutorError:
        return ExecutorError(
            f"the Dask scheduler {self._address} was lost while shards ran ({what}); what was "
            f"committed stays, the next run goes on"
        )


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
    return found


@contextmanager
def open_cluster(address: str | None) -> Iterator[ClusterExecutor]:
    """Yield the executor of the cluster of a scheduler; see `scheduler_address`.

    Raises:
        ConfigError: Dask is not installed, or no address is known.
        ExecutorError: the cluster cannot be reached, or is not fit.
    """
    found = scheduler_address(address)
    from distributed import Client  # noqa: PLC0415 - an extra, which takes 0.7 s to import

    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it logs, with tracebacks, is what is raised here
    try:
        client = Client(found, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as exc:
        raise ExecutorError(f"no Dask scheduler answers at {found}: {_line(exc)}") from exc
    try:
        executor = ClusterExecutor(client)
        executor.check()
        yield executor
        executor.shutdown()
    finally:
        client.close(timeout=_SECONDS_TO_CONNECT)
        log.setLevel(level)


def _report(topic: str, number: int, events: int, line_bytes: int) -> None:
    """Tell the run how far a shard is, from a Dask worker."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    get_worker().log_event(topic, (number, events, line_bytes))


def _line(exc: Exception) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
