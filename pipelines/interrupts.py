"""Ctrl-C ends a long DuckDB statement; Python alone would wait for the statement's end.

Python runs signal handlers between its own instructions, so not while the main thread is inside of
DuckDB. The wake-up descriptor is written at once, and a thread that reads it stops the statements.
"""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import duckdb

_T = TypeVar("_T")
_SECONDS_BETWEEN_STOPS = 0.05  # a statement that begins just after one must be stopped too
_SECONDS_OF_A_REQUEST = 2.0  # so long one may take when its run is stopped: enough for an abort
_ENDING = {signal.SIGINT, signal.SIGTERM}

_lock = threading.Lock()
_running: list[duckdb.DuckDBPyConnection] = []
_requests: dict[Future[Any], float] = {}  # since when they are waited for


@contextmanager
def interruptible(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let SIGINT, and SIGTERM where it is handled, stop what `con` runs in the body.

    In the main thread the body's signals are watched; connections of other threads are stopped by
    that watch, or by `stop_statements`.
    """
    with _lock:
        first = not _running
        _running.append(con)
    try:
        if first and threading.current_thread() is threading.main_thread():
            with _watched():
                yield
        else:
            yield
    finally:
        with _lock:
            _running.remove(con)


def wait_for(request: Future[_T]) -> _T:
    """Return the answer; an interrupted wait calls the request off.

    Raises:
        KeyboardInterrupt: `stop_statements` did not wait for it.
    """
    with _lock:
        _requests[request] = time.monotonic()
    try:
        return request.result()
    except CancelledError:
        raise KeyboardInterrupt from None
    except BaseException:
        request.cancel()
        raise
    finally:
        with _lock:
            _requests.pop(request, None)


def stop_statements() -> None:
    """Make the statements of this process's other threads fail, until their connections close.

    A request that a thread waits for has two seconds: a store that stalls holds no thread up.
    """
    while _stop_all():
        with _lock:
            oldest = time.monotonic() - _SECONDS_OF_A_REQUEST
            late = [request for request, since in _requests.items() if since < oldest]
        for request in late:
            request.cancel()
        time.sleep(_SECONDS_BETWEEN_STOPS)


def _stop_all() -> bool:
    """Interrupt what runs now; return whether a connection is open."""
    with _lock:
        for con in _running:
            con.interrupt()
        return bool(_running)


@contextmanager
def _watched() -> Iterator[None]:
    """Stop statements when a signal to end comes while the body runs."""
    ours, signals = socket.socketpair()
    with ours, signals:
        signals.setblocking(False)  # noqa: FBT003 - the socket's own signature
        before = signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(ours, done), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            done.set()
            ours.shutdown(socket.SHUT_RDWR)
            watcher.join()


def _watch(ours: socket.socket, done: threading.Event) -> None:
    # A signal that comes just as the body ends closes the socket before this thread has ended.
    with suppress(OSError):
        while received := ours.recv(64):
            if _ENDING & set(received):
                while not done.wait(_SECONDS_BETWEEN_STOPS):
                    _stop_all()
                return
