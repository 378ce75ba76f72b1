"""Windows: half-open UTC intervals of event time, on a grid.

Nothing here reads the clock: the moment is always an argument. All arithmetic is on integers
(`datetime` and `timedelta` hold whole microseconds), so no edge is ever rounded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from pipelines.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO: Final = timedelta(0)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_DURATION_UNITS: Final = {
    "s": _SECOND,
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_TIME_WINDOW_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6}Z)_([0-9]{8}T[0-9]{6}Z)")


def parse_duration(text: str) -> timedelta:
    """Return the duration that `15m`, `1h`, `24h`, `7d`, `90s` or `2w` stands for.

    Raises:
        ValueError: it is not of that form, not positive, or beyond what `timedelta` holds.
    """
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"{text!r} is not a duration: write a positive whole number and one of "
            "s, m, h, d, w, as in 90s, 15m, 1h, 7d or 2w"
        )
    try:
        return int(match[1]) * _DURATION_UNITS[match[2]]
    except OverflowError:
        raise ValueError(f"{text!r} is too long for a duration") from None


def format_duration(duration: timedelta) -> str:
    """Return a positive duration of whole seconds as `parse_duration` reads it: 30d, 90m, 45s."""
    for unit in ("d", "h", "m"):
        if not duration % _DURATION_UNITS[unit]:
            return f"{duration // _DURATION_UNITS[unit]}{unit}"
    return f"{duration // _SECOND}s"


def _as_utc(instant: datetime) -> datetime:
    """Return the instant with `datetime.UTC` as its zone; naive and other offsets are refused."""
    if instant.utcoffset() != _ZERO:
        raise ValueError(f"{instant.isoformat()} is not an instant in UTC")
    # A zone such as Europe/London has offset zero only for part of the year.
    return instant.replace(tzinfo=UTC)


def microseconds(instant: datetime) -> int:
    """Return the microseconds since 1970-01-01 UTC, negative before; exact.

    Raises:
        ValueError: the instant is not in UTC.
    """
    return (_as_utc(instant) - _EPOCH) // _MICROSECOND


def _compact(instant: datetime) -> str:
    # Not by %Y alone: Linux does not pad years before 1000 (https://bugs.python.org/issue13305).
    return f"{instant.year:04d}{instant:%m%dT%H%M%SZ}"


def _readable(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, order=True)
class TimeWindow:
    """Half-open interval `[start, end)` of event time; both in UTC, in whole seconds.

    Raises:
        ValueError: an edge is not in UTC or not a whole second, or `start` is not before `end`.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for edge in ("start", "end"):
            instant = _as_utc(getattr(self, edge))
            if instant.microsecond:
                raise ValueError(f"{edge} {_readable(instant)} is not a whole second")
            object.__setattr__(self, edge, instant)
        if self.start >= self.end:
            raise ValueError(
                f"start {_readable(self.start)} is not before end {_readable(self.end)}"
            )

    @property
    def name(self) -> str:
        """`20231215T000000Z_20231216T000000Z`; names sort as their windows do."""
        return f"{_compact(self.start)}_{_compact(self.end)}"

    @property
    def prefix(self) -> str:
        """`20231215T000000Z`, the start alone: what names of parts begin with."""
        return _compact(self.start)


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """The window `all` of every valid event time, or the pseudo-window `undated` of the others.

    Raises:
        ValueError: another name.
    """

    name: Literal["all", "undated"]

    def __post_init__(self) -> None:
        if self.name not in {"all", "undated"}:
            raise ValueError(f"a fixed window is all or undated, not {self.name!r}")

    @property
    def prefix(self) -> str:
        """What names of parts begin with: the window's name."""
        return self.name


Window: TypeAlias = TimeWindow | FixedWindow

ALL: Final = FixedWindow("all")
UNDATED: Final = FixedWindow("undated")


def parse_window(name: str) -> Window:
    """Return the window that has this name; the inverse of `name`.

    Raises:
        ValueError: no window has it.
    """
    if name in {ALL.name, UNDATED.name}:
        return ALL if name == ALL.name else UNDATED
    match = _TIME_WINDOW_NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is not a window: a name is all, undated or like "
            "20231215T000000Z_20231216T000000Z"
        )
    try:
        window = TimeWindow(datetime.fromisoformat(match[1]), datetime.fromisoformat(match[2]))
    except ValueError as exc:
        raise ValueError(f"{name!r} is not a window: {exc}") from None
    # Later Pythons read 24:00 as midnight; two names must not stand for one window.
    if window.name != name:
        raise ValueError(f"{name!r} is not a window: it would be written {window.name}")
    return window


def is_window(name: str) -> bool:
    """Return whether a window has this name."""
    try:
        parse_window(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Grid:
    """Adjacent windows of one length that together hold every instant exactly once.

    Attributes:
        every: length of each window, in whole seconds.
        origin: an instant in UTC, in whole seconds, that is the edge of two windows.

    Raises:
        ValueError: `every` is not positive, `origin` is not in UTC, or one has split seconds.
    """

    every: timedelta
    origin: datetime

    def __post_init__(self) -> None:
        if self.every <= _ZERO or self.every % _SECOND:
            raise ValueError(f"windows last whole, positive seconds, not {self.every}")
        origin = _as_utc(self.origin)
        if origin.microsecond:
            raise ValueError(f"origin {_readable(origin)} is not a whole second")
        object.__setattr__(self, "origin", origin)

    def window_at(self, instant: datetime) -> TimeWindow:
        """Return the window that holds an instant, before the origin as well as after it.

        Raises:
            ConfigError: that window would leave the years 1 to 9999.
        """
        return self._window(self._index(instant))

    def overlapping(self, first: datetime, last: datetime) -> Iterator[TimeWindow]:
        """Return the windows, in order, that hold any instant from `first` to `last` inclusive.

        Raises:
            ValueError: `last` is before `first`.
            ConfigError: a window would leave the years 1 to 9999.
        """
        if last < first:
            raise ValueError(f"{_readable(last)} is before {_readable(first)}")
        return self._windows(self._index(first), self._index(last) + 1)

    def covering(self, start: datetime, end: datetime) -> Iterator[TimeWindow]:
        """Return the windows, in order, that make up `[start, end)`.

        Raises:
            ConfigError: an edge is not on the grid (the nearest that are get named), or `start`
                is not before `end`.
        """
        for name, instant in (("start", start), ("end", end)):
            if (_as_utc(instant) - self.origin) % self.every:
                nearest = self.window_at(instant)
                raise ConfigError(
                    f"{name} {_readable(instant)} is not an edge of a window: the nearest are "
                    f"{_readable(nearest.start)} and {_readable(nearest.end)} "
                    f"(every {format_duration(self.every)} from {_readable(self.origin)})"
                )
        if start >= end:
            raise ConfigError(f"start {_readable(start)} is not before end {_readable(end)}")
        return self._windows(self._index(start), self._index(end))

    def last_due(self, *, now: datetime, lag: timedelta) -> TimeWindow | None:
        """Return the last window with `end + lag <= now`, or None when that is before year 1.

        Raises:
            ValueError: `lag` is negative.
        """
        try:
            return self._window(self._due_count(now, lag) - 1)
        except ConfigError:
            return None

    def due(self, first: datetime, *, now: datetime, lag: timedelta) -> Iterator[TimeWindow]:
        """Return the due windows, in order, from the one that holds `first`; there may be none.

        A window is due once `end + lag <= now`.

        Raises:
            ValueError: `lag` is negative.
            ConfigError: the window of `first` would leave the years 1 to 9999.
        """
        return self._windows(self._index(first), self._due_count(now, lag))

    def _index(self, instant: datetime) -> int:
        return (_as_utc(instant) - self.origin) // self.every

    def _due_count(self, now: datetime, lag: timedelta) -> int:
        """The index after that of the last due window."""
        if lag < _ZERO:
            raise ValueError(f"a lag is not negative, as {lag} is")
        # In integers: `now - lag` may lie before year 1.
        elapsed = (_as_utc(now) - self.origin) // _MICROSECOND - lag // _MICROSECOND
        return elapsed // (self.every // _MICROSECOND)

    def _windows(self, first: int, stop: int) -> Iterator[TimeWindow]:
        """Check both ends now, make the windows as they are asked for."""
        if first < stop:
            self._window(first)
            self._window(stop - 1)
        return map(self._window, range(first, stop))

    def _window(self, index: int) -> TimeWindow:
        try:
            start = self.origin + index * self.every
            return TimeWindow(start, start + self.every)
        except OverflowError:
            raise ConfigError(
                f"a window of every {format_duration(self.every)} from {_readable(self.origin)} "
                "would leave the "
                "years 1 to 9999: narrow valid_times, or take a shorter `every`"
            ) from None
