"""A shard's work on its way to a worker: packed, checked where it arrives, and reported on."""

import functools
import importlib.metadata
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ExecutorError, PipelineError, UnexpectedError
from pipelines.shard import run_shard
from pipelines.work import ShardWork

PACKAGE = "request-log-export"
_SAME = (PACKAGE, "duckdb", "pyarrow", "isal", "zstandard")  # what the bytes of parts come from
_SECONDS_BETWEEN_REPORTS = 0.5
_ROOT = Path(__file__).parents[1]
_PACKAGES = ("flows", "pipelines")

Report = Callable[[int, int, int], None]
"""Told the number of a shard, and its events and bytes of lines so far."""


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that a worker must have, by distribution; "" of one not installed."""
    return {name: version_of(name) for name in _SAME}


def version_of(distribution: str) -> str:
    """Return the version of a distribution that is installed here, "" when it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_versions(needed: Mapping[str, str], found: Mapping[str, str], worker: str) -> None:
    """Make sure that a worker makes the bytes that this process would.

    Raises:
        ExecutorError: it has another version of something, and so is named.
    """
    for name, version in needed.items():
        there = found[name]
        if there != version:
            has = f"has {name} {there}" if there else f"has no {name} installed"
            raise ExecutorError(
                f"{worker} {has}, and this run {version or 'none that is installed'}: give every "
                f"worker the same versions"
            )


def pack(function: Callable[[ShardWork], Any], work: ShardWork) -> bytes:
    """Return a function of this package and a shard's work as bytes for `run_errand`."""
    return pickle.dumps((function, work))


def run_errand(needed: Mapping[str, str], packed: bytes, number: int, report: Report | None) -> Any:
    """Do what `pack` packed, on a worker; the work is unpacked only by the same versions.

    Args:
        needed: `versions()` of the run.
        packed: what to do.
        number: the run's number for the shard.
        report: told how far it is; None does without.

    Raises:
        PipelineError: as the function raises it, with the worker's name where it has one.
        UnexpectedError: for any other error, without its text, which may quote an event.
    """
    worker = worker_name()
    check_versions(needed, versions(), worker or "a worker process")
    function, work = pickle.loads(packed)  # noqa: S301 - of the run that this worker serves
    try:
        if function is run_shard and report is not None:
            return run_shard(work, _Throttled(number, report))
        return function(work)
    except PipelineError as exc:
        if worker:
            exc.args = (f"{exc} (on {worker})", *exc.args[1:])
        raise exc from None
    except Exception as exc:  # noqa: BLE001 - whatever it is, its text must go no further
        raise UnexpectedError(_described(exc, worker)) from None


def worker_name() -> str:
    """Return what a cluster calls the worker that this thread works for, "" outside of one."""
    try:
        from distributed import get_worker  # noqa: PLC0415 - an extra, not always installed

        worker = get_worker()
    except (ImportError, ValueError):
        return ""
    name, address = str(worker.name), str(worker.address)
    return f"worker {address}" if name == address else f"worker {name} at {address}"


def place_of(exc: Exception) -> str:
    """Return the innermost line of this package in an error's traceback."""
    found = [
        f"{path.relative_to(_ROOT)}:{frame.lineno}"
        for frame in traceback.extract_tb(exc.__traceback__)
        if (path := Path(frame.filename)).is_relative_to(_ROOT)
        and path.relative_to(_ROOT).parts[0] in _PACKAGES
    ]
    return found[-1]


def _described(exc: Exception, worker: str) -> str:
    where = f" on {worker}" if worker else ""
    what = f"{type(exc).__name__} at {place_of(exc)}{where}"
    return f"{what}, an error of this package: please report it"


class _Throttled:
    """The progress of one shard, told twice a second at most, all of it each time."""

    def __init__(self, number: int, report: Report) -> None:
        self._number = number
        self._report = report
        self._events = self._bytes = 0
        self._told = 0.0

    def __call__(self, events: int, line_bytes: int) -> None:
        self._events += events
        self._bytes += line_bytes
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_REPORTS:
            self._told = now
            self._report(self._number, self._events, self._bytes)


class Reports:
    """What workers tell of their shards, handed on to the progress of each shard's window."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._open: dict[int, tuple[Callable[[int, int], None], int, int]] = {}

    def open(self, progress: Callable[[int, int], None]) -> int:
        """Return a number for a shard that begins; `progress` is called from any thread."""
        with self._lock:
            self._next += 1
            self._open[self._next] = (progress, 0, 0)
            return self._next

    def take(self, number: int, events: int, line_bytes: int) -> None:
        """Take in how far a shard is; what it repeats, as it runs again, is not told again."""
        with self._lock:
            if number not in self._open:  # its result was faster
                return
            progress, known_events, known_bytes = self._open[number]
            more = max(0, events - known_events), max(0, line_bytes - known_bytes)
            self._open[number] = (progress, known_events + more[0], known_bytes + more[1])
        if any(more):
            progress(*more)

    def close(self, number: int, events: int = 0, line_bytes: int = 0) -> None:
        """Take in what a shard came to, and forget it."""
        self.take(number, events, line_bytes)
        with self._lock:
            self._open.pop(number, None)
