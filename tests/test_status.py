"""The calendar of windows."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.plan import plan_export
from pipelines.status import describe_status, status_as_dict
from tests.builders import event, export, make_config, write_batch

FIRST = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def five_states(site):
    """Five days: committed, stale, source expired, failed and missing."""
    days = {"every": "1d", "start": "2024-06-01"}
    dated = {"date_path": "date=%Y-%m-%d"}

    def put(day, name, *, data=None):
        at = FIRST + (day - 1) * DAY
        made = write_batch([event(id=f"{day}{name}", requested_at=at)])
        site.put(f"date=2024-06-{day:02d}/{name}.parquet", data or made)

    for day in (1, 2, 3):
        put(day, "a")
    config = make_config(site, window=days, source=dated)
    export(config, now=FIRST + 2.6 * DAY)
    put(2, "b")
    put(3, "b")
    site.source.delete("date=2024-06-03/a.parquet")
    put(4, "a", data=b"no parquet")
    put(5, "a")
    return plan_export(config, now=FIRST + 5 * DAY)


def test_calendar_shows_a_row_a_month_and_why_a_window_needs_a_look(five_states):
    lines = [line.plain for line in describe_status(five_states)]

    assert lines[0] == "2024-06    ■◪▨✗□"
    assert [line.strip().split(":")[0] for line in lines[1:]] == [
        "■ 1 committed",
        "◪ 1 stale",
        "□ 1 missing",
        "✗ 1 failed",
        "▨ 1 source expired",
    ]
    assert "date=2024-06-04/a.parquet" in lines[4]


def test_calendar_as_plain_data(five_states):
    found = status_as_dict(five_states)

    assert [window["state"] for window in found["windows"]] == [
        "committed",
        "stale",
        "source expired",
        "failed",
        "missing",
    ]
    assert found["counts"]["stale"] == 1


@pytest.mark.parametrize(
    ("every", "label", "rows"),
    [("1h", "2024-06-01", 2), ("1d", "2024-06", 1), ("7d", "2024", 1), (None, "all", 1)],
)
def test_rows_are_days_months_or_years(site, every, label, rows):
    site.put("a.parquet", write_batch([event(requested_at=FIRST)]))
    window = {"every": every, "start": "2024-06-01"} if every else None
    plan = plan_export(
        make_config(site, window=window),
        now=FIRST + 10 * DAY if every != "1h" else FIRST + DAY,
    )

    lines = [line.plain for line in describe_status(plan)]

    assert lines[0].startswith(label)
    assert len(lines) == rows + 1


def test_source_without_batches_has_no_calendar(site):
    plan = plan_export(make_config(site), now=FIRST)

    assert [line.plain for line in describe_status(plan)] == [
        f"No window: no batch at {site.source_url}."
    ]
