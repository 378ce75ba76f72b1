"""The calendar of windows."""

from datetime import UTC, datetime, timedelta

import pytest

import pipelines.export as exporting
from pipelines.errors import StorageError
from pipelines.export import run_export
from pipelines.failures import read_failures
from pipelines.garbage import collect_garbage
from pipelines.owner import open_destination
from pipelines.plan import plan_export
from pipelines.sources.listing import why_no_batch
from pipelines.status import describe_status, find_states, status_as_dict
from pipelines.storage import Store
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
    lines = [line.plain for line in describe_status(five_states, find_states(five_states, {}))]

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
    found = status_as_dict(five_states, find_states(five_states, {}))

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

    lines = [line.plain for line in describe_status(plan, find_states(plan, {}))]

    assert lines[0].startswith(label)
    assert len(lines) == rows + 1


def test_source_without_batches_has_no_calendar(site):
    plan = plan_export(make_config(site), now=FIRST)

    assert [line.plain for line in describe_status(plan, find_states(plan, {}))] == [
        f"No window: no batch at {site.source_url}, as {why_no_batch(plan.config.source)}."
    ]


def shown(config, **options):
    plan = plan_export(config, **options)
    return [
        (found.state, found.generation, found.detail)
        for found in find_states(plan, read_failures(open_destination(config)))
    ]


def broken_day(site):
    """A window that fails for its rejects, before and after one generation is committed."""
    config = make_config(site, window={"every": "1d", "start": "2024-06-01"}, max_reject_ratio=0.1)
    site.put("a.parquet", write_batch([event(request="{", requested_at=FIRST)]))
    return config


def collect(site):
    found = collect_garbage(site.destination, keep_generations=1, grace_seconds=-60)
    return [entry.path for entry in found.objects if entry.path.startswith("_meta/failures/")]


def test_a_window_that_failed_is_shown_so_until_it_is_committed(site):
    config = broken_day(site)
    now = FIRST + DAY
    summary = run_export(config, now=now)
    assert summary.failed

    ((state, generation, detail),) = shown(config, now=now)
    assert (state, generation) == ("failed", 0)
    assert detail.startswith("2024-06-02T12:00:00Z: ")
    assert "max_reject_ratio" in detail

    site.source.delete("a.parquet")
    site.put("b.parquet", write_batch([event(requested_at=FIRST)]))
    run_export(config, now=now)
    assert shown(config, now=now) == [("committed", 1, "generation 1")]


def test_a_failed_second_generation_is_shown_too_and_the_first_stays(site):
    config = broken_day(site)
    site.source.delete("a.parquet")
    site.put("b.parquet", write_batch([event(requested_at=FIRST)]))
    run_export(config, now=FIRST + DAY)
    site.put("c.parquet", write_batch([event(request="{", requested_at=FIRST)]))
    run_export(config, now=FIRST + DAY)

    ((state, generation, _),) = shown(config, now=FIRST + DAY)

    assert (state, generation) == ("failed", 1)


def test_a_window_that_fails_each_hour_leaves_one_note(site):
    config = broken_day(site)
    for hours in range(3):
        run_export(config, now=FIRST + DAY + timedelta(hours=hours))

    notes = [path for path in site.paths() if path.startswith("_meta/failures/")]
    (failure,) = read_failures(open_destination(config)).values()

    assert len(notes) == 1
    assert failure.failed_at == "2024-06-02T14:00:00Z"


def test_the_note_of_a_window_that_healed_is_garbage(site, monkeypatch):
    config = broken_day(site)
    run_export(config, now=FIRST + DAY)
    site.source.delete("a.parquet")
    site.put("b.parquet", write_batch([event(requested_at=FIRST)]))

    assert not collect(site)
    monkeypatch.setattr(exporting, "record_failures", lambda *_: None)  # as if killed before it
    run_export(config, now=FIRST + DAY)

    assert len(collect(site)) == 1
    assert read_failures(site.destination) == {}


def test_a_commit_takes_the_note_of_its_window_away(site):
    config = broken_day(site)
    run_export(config, now=FIRST + DAY)
    site.source.delete("a.parquet")
    site.put("b.parquet", write_batch([event(requested_at=FIRST)]))

    run_export(config, now=FIRST + DAY)

    assert read_failures(site.destination) == {}


def test_a_note_that_cannot_be_written_fails_no_run(site, monkeypatch):
    create = Store.create

    def refuse(store, path, data):
        if path.startswith("_meta/failures/"):
            raise StorageError(f"denied {store}")
        return create(store, path, data)

    config = broken_day(site)
    monkeypatch.setattr(Store, "create", refuse)

    summary = run_export(config, now=FIRST + DAY)

    assert "max_reject_ratio" in summary.failed[0].error
    assert read_failures(site.destination) == {}


@pytest.mark.parametrize(
    "note", [b"", b'{"window": ', b"[]", b"{}", b"\xff", b'{"window": "all", "generation": "x"}']
)
def test_a_damaged_note_is_passed_over(site, note):
    config = broken_day(site)
    run_export(config, now=FIRST + DAY)
    (path,) = (path for path in site.paths() if path.startswith("_meta/failures/"))
    site.destination.delete(path)
    site.destination.create(path, note)

    assert [state for state, _, _ in shown(config, now=FIRST + DAY)] == ["missing"]


def test_a_note_that_goes_while_it_is_read_is_passed_over(site, monkeypatch):
    run_export(broken_day(site), now=FIRST + DAY)
    read = Store.read_bytes

    def vanish(store, path, **options):
        store.delete(path)
        return read(store, path, **options)

    monkeypatch.setattr(Store, "read_bytes", vanish)

    assert read_failures(site.destination) == {}


def test_windows_that_were_not_tried_keep_the_reason_they_had(site, monkeypatch):
    config = make_config(site, window={"every": "1d", "start": "2024-06-01"}, max_reject_ratio=0.1)
    for day in range(5):
        at = FIRST + day * DAY
        site.put(f"{day}.parquet", write_batch([event(id=str(day), request="{", requested_at=at)]))
    now = FIRST + 5 * DAY
    run_export(config, now=now)

    def refuse(*_args, **_options):
        raise StorageError("denied")

    monkeypatch.setattr(exporting, "_export_window", refuse)
    run_export(config, now=now + DAY / 24)

    reasons = [failure.error for failure in read_failures(site.destination).values()]
    assert ["denied" in reason for reason in reasons] == [True, True, True, False, False]
    assert all("max_reject_ratio" in reason for reason in reasons[3:])


def test_a_window_with_other_inputs_than_those_that_failed_is_not_shown_as_failed(site):
    config = broken_day(site)
    run_export(config, now=FIRST + DAY)
    site.put("c.parquet", write_batch([event(id="c", requested_at=FIRST)]))

    assert [state for state, _, _ in shown(config, now=FIRST + DAY)] == ["missing"]
