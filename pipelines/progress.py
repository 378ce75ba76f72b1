"""How far a run is: a bar on a terminal, plain lines elsewhere; always on stderr."""

import threading
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.words import say_count

_SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """A rich progress bar with events, bytes, rate and time left."""

    def __init__(self, console: Console | None = None) -> None:
        """Draw nothing yet; by default on stderr."""
        self._shown = Progress(
            TextColumn("exporting"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of up to {task.fields[planned]}"),
            TextColumn("{task.fields[written]}"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._shown.add_task("export", total=0, planned="", written="", visible=False)
        self._bytes = 0
        self._began = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the bar, drawn from now on."""
        self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._shown.stop()

    def start(self, events: int, windows: int) -> None:
        """Say how much there is to do."""
        self._began = time.monotonic()
        planned = say_count(events, "event")
        self._shown.update(self._task, total=events, planned=planned, visible=windows > 0)

    def add(self, events: int, line_bytes: int) -> None:
        """Say what was done since the last call, by any thread."""
        with self._lock:
            self._bytes += line_bytes
            rate = self._bytes / 1e6 / max(1e-3, time.monotonic() - self._began)
            written = f"{self._bytes / 1e6:,.0f} MB  {rate:,.0f} MB/s"
            self._shown.update(self._task, advance=events, written=written)


class Lines:
    """A line every ten seconds, for logs."""

    def __init__(self, stream: TextIO) -> None:
        """Write nothing yet."""
        self._stream = stream
        self._total = self._events = self._bytes = 0
        self._began = self._last = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def start(self, events: int, windows: int) -> None:
        """Say how much there is to do."""
        self._total = events
        if windows:
            what = say_count(windows, "window")
            self._stream.write(f"exporting {what}, up to {say_count(events, 'event')}\n")

    def add(self, events: int, line_bytes: int) -> None:
        """Say what was done since the last call, by any thread."""
        with self._lock:
            self._add(events, line_bytes)

    def _add(self, events: int, line_bytes: int) -> None:
        self._events += events
        self._bytes += line_bytes
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = self._bytes / 1e6 / (now - self._began)
        left = (self._total - self._events) * (now - self._began) / max(1, self._events)
        self._stream.write(
            f"{self._events:,} of up to {say_count(self._total, 'event')}, "
            f"{self._bytes / 1e6:,.0f} MB, {rate:,.0f} MB/s, about {left:,.0f} s left\n"
        )
        self._stream.flush()


class Count:
    """A line every ten seconds that says how many there were so far, for work without a total."""

    def __init__(self, stream: TextIO, noun: str) -> None:
        """Write nothing yet; `noun` is one of what is counted."""
        self._stream = stream
        self._noun = noun
        self._count = 0
        self._began = self._last = time.monotonic()

    def add(self, count: int) -> None:
        """Say how many there were since the last call."""
        self._count += count
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = self._count / (now - self._began)
        self._stream.write(f"{say_count(self._count, self._noun)}, {rate:,.0f} a second\n")
        self._stream.flush()
