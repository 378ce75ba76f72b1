from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.windows import (
    ALL,
    UNDATED,
    FixedWindow,
    Grid,
    TimeWindow,
    microseconds,
    parse_duration,
    parse_window,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NO_LAG = timedelta(0)
NAIVE = datetime.fromisoformat("2023-01-01")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
HOURLY = Grid(HOUR, EPOCH)
DAILY = Grid(DAY, EPOCH)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


INSTANTS = st.integers(-170 * 365 * 86_400 * 10**6, 230 * 365 * 86_400 * 10**6).map(
    lambda microseconds: EPOCH + timedelta(microseconds=microseconds)
)
SECONDS = INSTANTS.map(lambda instant: instant.replace(microsecond=0))
GRIDS = st.builds(
    Grid, st.integers(1, 40 * 86_400).map(lambda seconds: timedelta(seconds=seconds)), SECONDS
)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1h", HOUR),
        ("24h", DAY),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15",
        "m",
        "0m",
        "-1h",
        "1.5h",
        "1 h",
        " 1h",
        "1h\n",
        "1H",
        "1h30m",
        "1mo",
        "\u0661h",
        "1y",
    ],
)
def test_what_is_not_a_duration_is_refused_with_the_accepted_forms(text):
    with pytest.raises(ValueError, match="15m, 1h, 7d or 2w"):
        parse_duration(text)


def test_a_duration_too_long_to_hold_is_refused():
    with pytest.raises(ValueError, match="too long"):
        parse_duration("999999999w")


def test_a_window_is_named_by_both_edges():
    window = TimeWindow(at("2023-12-15"), at("2023-12-16"))

    assert (window.name, window.prefix) == (
        "20231215T000000Z_20231216T000000Z",
        "20231215T000000Z",
    )


def test_years_before_1000_are_padded_in_names():
    assert TimeWindow(at("0001-01-01"), at("0999-01-01")).name == (
        "00010101T000000Z_09990101T000000Z"
    )


@given(first=st.tuples(SECONDS, SECONDS), second=st.tuples(SECONDS, SECONDS))
def test_names_sort_as_windows_do(first, second):
    assume(first[0] != first[1] and second[0] != second[1])
    windows = [TimeWindow(*sorted(first)), TimeWindow(*sorted(second))]

    assert [window.name for window in sorted(windows)] == sorted(w.name for w in windows)


@given(edges=st.tuples(SECONDS, SECONDS))
def test_a_window_comes_back_from_its_name(edges):
    assume(edges[0] != edges[1])
    window = TimeWindow(*sorted(edges))

    assert parse_window(window.name) == window


@pytest.mark.parametrize("window", [ALL, UNDATED])
def test_a_fixed_window_is_its_name(window):
    assert parse_window(window.name) is window
    assert window.prefix == window.name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "none",
        "ALL",
        "20231215T000000Z",
        "20231216T000000Z_20231215T000000Z",
        "20231215T000000Z_20231215T000000Z",
        "20231315T000000Z_20241215T000000Z",
        "20231215T240000Z_20231217T000000Z",
        "20231215T000000Z_20231216T000000Z\n",
        "2023-12-15T00:00:00Z_2023-12-16T00:00:00Z",
    ],
)
def test_what_names_no_window_is_refused(name):
    with pytest.raises(ValueError, match="is not a window"):
        parse_window(name)


@pytest.mark.parametrize(
    ("start", "end", "problem"),
    [
        pytest.param(NAIVE, at("2023-01-02"), "not an instant in UTC", id="naive"),
        pytest.param(
            datetime(2023, 1, 1, tzinfo=timezone(HOUR)),
            at("2023-01-02"),
            "not an instant in UTC",
            id="offset",
        ),
        pytest.param(
            at("2023-01-01T00:00:00.000001"), at("2023-01-02"), "whole second", id="split-second"
        ),
        pytest.param(at("2023-01-02"), at("2023-01-02"), "not before", id="empty"),
        pytest.param(at("2023-01-03"), at("2023-01-02"), "not before", id="backwards"),
    ],
)
def test_a_window_refuses_bad_edges(start, end, problem):
    with pytest.raises(ValueError, match=problem):
        TimeWindow(start, end)


def test_a_zone_that_is_utc_for_now_does_not_bend_the_window():
    london = ZoneInfo("Europe/London")

    window = TimeWindow(datetime(2023, 3, 1, tzinfo=london), at("2023-04-01"))

    assert window.start.tzinfo is UTC
    assert window.end - window.start == timedelta(days=31)


def test_a_fixed_window_has_one_of_two_names():
    with pytest.raises(ValueError, match="all or undated"):
        FixedWindow("some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("every", "origin", "problem"),
    [
        pytest.param(timedelta(0), EPOCH, "whole, positive seconds", id="zero"),
        pytest.param(-HOUR, EPOCH, "whole, positive seconds", id="negative"),
        pytest.param(timedelta(milliseconds=1500), EPOCH, "whole, positive", id="split-every"),
        pytest.param(HOUR, EPOCH.replace(microsecond=1), "whole second", id="split-origin"),
        pytest.param(HOUR, EPOCH.replace(tzinfo=None), "not an instant in UTC", id="naive"),
    ],
)
def test_a_grid_refuses_what_names_could_not_say(every, origin, problem):
    with pytest.raises(ValueError, match=problem):
        Grid(every, origin)


@given(grid=GRIDS, instant=INSTANTS)
def test_the_window_of_an_instant_holds_it(grid, instant):
    window = grid.window_at(instant)

    assert window.start <= instant < window.end
    assert window.end - window.start == grid.every
    assert (window.start - grid.origin) % grid.every == NO_LAG


@given(grid=GRIDS, instant=INSTANTS, count=st.integers(1, 20))
def test_adjacent_windows_neither_lose_nor_repeat_an_instant(grid, instant, count):
    first = grid.window_at(instant)
    windows = list(grid.overlapping(instant, instant + (count - 1) * grid.every))

    assert len(windows) == count
    assert all(left.end == right.start for left, right in pairwise(windows))
    assert [w for w in windows if w.start <= instant < w.end] == [first]


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [
        pytest.param("2023-12-15T00:00:00", "2023-12-15T00:00:00", 1, id="one-instant"),
        pytest.param("2023-12-15T00:00:00", "2023-12-15T00:59:59.999999", 1, id="to-the-end"),
        pytest.param("2023-12-15T00:00:00", "2023-12-15T01:00:00", 2, id="edge-is-the-next"),
        pytest.param("2023-12-14T23:59:59.999999", "2023-12-15T01:00:00", 3, id="three"),
    ],
)
def test_overlapping_includes_both_instants(first, last, count):
    assert len(list(HOURLY.overlapping(at(first), at(last)))) == count


def test_overlapping_refuses_a_last_before_the_first():
    with pytest.raises(ValueError, match="is before"):
        HOURLY.overlapping(at("2023-12-15"), at("2023-12-14"))


def test_overlapping_a_long_time_makes_no_window_until_asked():
    windows = Grid(timedelta(seconds=1), EPOCH).overlapping(at("0001-01-01"), at("9999-12-31"))

    assert [window.prefix for window in islice(windows, 2)] == [
        "00010101T000000Z",
        "00010101T000001Z",
    ]


def test_covering_gives_the_whole_windows_of_the_grid():
    windows = DAILY.covering(at("2023-12-30"), at("2024-01-02"))

    assert [window.prefix[:8] for window in windows] == ["20231230", "20231231", "20240101"]


@pytest.mark.parametrize(
    ("start", "end", "problem"),
    [
        pytest.param(
            "2023-12-15T10:30:00",
            "2023-12-15T12:00:00",
            "start 2023-12-15T10:30:00Z.*2023-12-15T10:00:00Z and 2023-12-15T11:00:00Z",
            id="start-between-edges",
        ),
        pytest.param(
            "2023-12-15T10:00:00",
            "2023-12-15T11:59:59.999999",
            "end 2023-12-15T11:59:59.999999Z.*2023-12-15T11:00:00Z and 2023-12-15T12:00:00Z",
            id="end-between-edges",
        ),
        pytest.param("2023-12-15T10:00:00", "2023-12-15T10:00:00", "not before", id="empty"),
        pytest.param("2023-12-15T11:00:00", "2023-12-15T10:00:00", "not before", id="backwards"),
    ],
)
def test_covering_refuses_part_of_a_window_and_names_the_nearest_edges(start, end, problem):
    with pytest.raises(ConfigError, match=problem):
        HOURLY.covering(at(start), at(end))


@pytest.mark.parametrize(
    ("now", "prefix"),
    [
        pytest.param("2023-12-15T02:20:00", "20231215T010000Z", id="just-due"),
        pytest.param("2023-12-15T02:19:59.999999", "20231215T000000Z", id="not-quite"),
        pytest.param("1969-12-31T02:20:00", "19691231T010000Z", id="before-the-origin"),
    ],
)
def test_a_window_is_due_once_its_end_and_the_lag_are_past(now, prefix):
    window = HOURLY.last_due(now=at(now), lag=timedelta(minutes=20))

    assert window is not None
    assert window.prefix == prefix


@given(
    grid=GRIDS,
    first=INSTANTS,
    ahead=st.integers(-5, 20),
    lag=st.timedeltas(NO_LAG, timedelta(days=3)),
)
def test_due_windows_run_from_the_first_event_to_the_last_due(grid, first, ahead, lag):
    now = first + ahead * grid.every

    due = list(grid.due(first, now=now, lag=lag))

    last = grid.last_due(now=now, lag=lag)
    assert last is not None
    assert last.end + lag <= now < last.end + grid.every + lag
    until = max(first, last.start)
    assert due == (list(grid.overlapping(first, until)) if last.end > first else [])


def test_nothing_is_due_when_the_lag_reaches_before_the_calendar():
    assert HOURLY.last_due(now=at("2023-12-15"), lag=timedelta.max) is None
    assert list(HOURLY.due(at("2023-12-15"), now=at("2023-12-15"), lag=timedelta.max)) == []


def test_a_negative_lag_is_refused():
    with pytest.raises(ValueError, match="lag"):
        HOURLY.due(at("2023-12-15"), now=at("2023-12-15"), lag=-HOUR)


@pytest.mark.parametrize(
    ("grid", "instant"),
    [
        pytest.param(HOURLY, LAST, id="end-after-9999"),
        pytest.param(Grid(timedelta(weeks=1), EPOCH), FIRST, id="start-before-1"),
        pytest.param(Grid(timedelta(days=999_999_999), EPOCH), at("1969-12-31"), id="huge"),
    ],
)
def test_a_window_that_leaves_the_calendar_is_a_config_error(grid, instant):
    with pytest.raises(ConfigError, match="years 1 to 9999"):
        grid.window_at(instant)


@given(count=st.integers(microseconds(FIRST), microseconds(LAST)))
@example(count=microseconds(FIRST))
@example(count=microseconds(LAST))
def test_microseconds_are_counted_exactly_from_1970(count):
    assert microseconds(EPOCH + timedelta(microseconds=count)) == count


def test_a_naive_instant_is_never_taken_for_utc():
    with pytest.raises(ValueError, match="not an instant in UTC"):
        HOURLY.window_at(NAIVE)
