"""Plan: which windows a run would write and why, and what of an event's time decides it."""

import datetime as dt
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.config import load_config
from pipelines.errors import ConfigError, QualityError
from pipelines.export import run_export
from pipelines.plan import plan_export
from tests.builders import (
    NOW,
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_manifests,
    read_records,
    read_rejects,
    schema_with,
    write_batch,
)

DAY_1 = "20240601T000000Z_20240602T000000Z"
DAY_2 = "20240602T000000Z_20240603T000000Z"
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AFTER = datetime(2024, 6, 3, 1, tzinfo=UTC)
DAILY = {"every": "1d", "lag": "20m"}


def at(*times):
    """Batch bytes of one event without id for each time."""
    return write_batch(events({"requested_at": time, "id": None} for time in times))


def daily(site, **changes):
    return make_config(site, window=DAILY, **changes)


def statuses(config, now=AFTER, **options):
    """Status by window of a plan."""
    return {w.window.name: w.status for w in plan_export(config, now=now, **options).windows}


@pytest.fixture
def exported(site):
    """Two days of events in two batches of a day each, exported."""
    site.put("a.parquet", at(NOON, NOON))
    site.put("b.parquet", at(NOON + DAY))
    export(daily(site), now=AFTER)
    return site


def test_plan_writes_nothing(site):
    site.put("a.parquet", at(NOON))

    plan = plan_export(daily(site), now=AFTER)

    assert [w.status for w in plan.windows] == ["missing", "missing"]
    assert (plan.windows[0].input.rows, plan.windows[1].input.rows) == (1, 0)
    assert plan.windows[0].input.bytes > 0
    assert site.paths() == []


def test_late_batch_makes_only_its_windows_stale(exported):
    exported.put("c.parquet", at(NOON + DAY))

    summary = export(daily(exported), now=AFTER)

    assert [(w.window, w.detail) for w in summary.written] == [(DAY_2, "late batch")]
    assert [manifest.generation for manifest in read_manifests(exported)] == [1, 2]
    assert len(read_records(exported)) == 4


def test_overwritten_batch_makes_its_windows_stale(exported):
    exported.put("a.parquet", at(NOON))

    assert statuses(daily(exported)) == {DAY_1: "changed batch", DAY_2: "up to date"}


def test_batch_overwritten_with_another_day_makes_both_days_stale(exported):
    exported.put("c.parquet", at(NOON))
    export(daily(exported), now=AFTER)
    exported.put("a.parquet", at(NOON + DAY))

    assert statuses(daily(exported)) == {DAY_1: "changed batch", DAY_2: "late batch"}
    export(daily(exported), now=AFTER)
    assert [manifest.ledger.read for manifest in read_manifests(exported)] == [1, 2]


def test_vanished_batch_makes_no_window_stale(exported):
    exported.source.delete("a.parquet")

    summary = export(daily(exported), now=AFTER)

    assert {w.window: w.status for w in summary.windows}.get(DAY_1, "up to date") == "up to date"
    assert summary.written == ()
    assert len(read_records(exported)) == 3


@pytest.mark.parametrize("force", [False, True])
def test_stale_window_of_a_vanished_batch_is_left_alone(exported, force):
    exported.put("c.parquet", at(NOON))
    exported.source.delete("a.parquet")
    config = daily(exported, where="model is not null")

    assert statuses(config, force=force) == {DAY_1: "source expired", DAY_2: "changed config"}


def test_force_leaves_a_window_of_a_vanished_batch_alone(exported):
    exported.put("c.parquet", at(NOON))
    export(daily(exported), now=AFTER)
    exported.source.delete("a.parquet")

    summary = export(daily(exported), now=AFTER, force=True)

    assert {w.window: w.status for w in summary.windows} == {
        DAY_1: "source expired",
        DAY_2: "committed",
    }


def test_rebuild_from_remaining_writes_a_window_without_its_vanished_batch(exported):
    exported.put("c.parquet", at(NOON))
    exported.source.delete("a.parquet")
    config = daily(exported)
    (lossy, _) = plan_export(config, now=AFTER, rebuild_from_remaining=True).windows

    export(config, now=AFTER, rebuild_from_remaining=True)

    assert (lossy.status, lossy.lost_events) == ("late batch", 2)
    assert [batch.path for batch in read_manifest(exported, DAY_1).batches] == ["c.parquet"]
    assert statuses(config) == {DAY_1: "up to date", DAY_2: "up to date"}


def test_comments_and_key_order_are_no_change(site, tmp_path):
    site.put("a.parquet", at(NOON))
    document = {
        "name": "test-export",
        "source": {"url": site.source_url, "preset": "generic"},
        "destination": {"url": site.destination_url},
        "window": {"every": "1d"},
    }
    path = tmp_path / "export.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    export(load_config(path), now=AFTER)
    turned = dict(reversed(document.items())) | {"window": {"every": "24h"}}
    path.write_text("# a comment\n" + yaml.safe_dump(turned, sort_keys=False))

    assert set(statuses(load_config(path)).values()) == {"up to date"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param(
            {"filters": [{"field": "model", "comparator": "=", "value": "gpt-4o"}]},
            "changed config",
            id="filter",
        ),
        pytest.param({"where": "true"}, "changed config", id="where"),
        pytest.param({"compression": "zstd"}, "changed config", id="compression"),
        pytest.param({"compression_level": 1}, "up to date", id="default-level"),
        pytest.param({"partition_by": ["date"]}, "changed config", id="partition"),
        pytest.param(
            {"source": {"valid_times": ["2001-01-01", "2090-01-01"]}},
            "changed config",
            id="valid-times",
        ),
        pytest.param({"threads": 1}, "up to date", id="threads"),
        pytest.param({"memory_limit": "800MB"}, "up to date", id="memory"),
        pytest.param({"max_reject_ratio": 0.5}, "up to date", id="reject-ratio"),
        pytest.param({"max_partitions": 5}, "up to date", id="max-partitions"),
    ],
)
def test_only_what_alters_records_is_a_change_of_config(site, changes, status):
    site.put("a.parquet", at(NOON))
    export(daily(site), now=AFTER)

    assert statuses(daily(site, **changes))[DAY_1] == status


def test_window_is_half_open(site):
    midnight = datetime(2024, 6, 2, tzinfo=UTC)
    just_before = midnight - timedelta(microseconds=1)
    site.put("a.parquet", at(just_before, midnight))

    export(daily(site), now=AFTER)

    found = {
        m.window: (m.first_event_at, m.last_event_at, m.ledger.read) for m in read_manifests(site)
    }
    assert found == {
        DAY_1: ("2024-06-01T23:59:59.999999Z", "2024-06-01T23:59:59.999999Z", 1),
        DAY_2: ("2024-06-02T00:00:00.000000Z", "2024-06-02T00:00:00.000000Z", 1),
    }


@pytest.mark.parametrize(
    ("late_by", "due"),
    [
        pytest.param(timedelta(minutes=20), [DAY_1], id="at-lag"),
        pytest.param(timedelta(minutes=20) - timedelta(microseconds=1), [], id="before-lag"),
    ],
)
def test_window_is_due_once_its_end_and_lag_are_past(site, late_by, due):
    site.put("a.parquet", at(NOON))

    assert list(statuses(daily(site), now=datetime(2024, 6, 2, tzinfo=UTC) + late_by)) == due


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(NOON, NOON + DAY, id="both-off"),
        pytest.param(NOON - timedelta(hours=12), NOON, id="end-off"),
    ],
)
def test_range_off_the_grid_is_refused(site, start, end):
    site.put("a.parquet", at(NOON))

    with pytest.raises(ConfigError, match="is not an edge of a window: the nearest are"):
        plan_export(daily(site), now=AFTER, start=start, end=end)


def test_range_chooses_whole_windows(site):
    site.put("a.parquet", at(NOON, NOON + DAY))
    start = datetime(2024, 6, 2, tzinfo=UTC)

    export(daily(site), now=AFTER, start=start, end=start + DAY)

    assert [manifest.window for manifest in read_manifests(site)] == [DAY_2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"start": NOON}, "start and end go together", id="one"),
        pytest.param({"start": NOON, "end": AFTER}, "has no `window`", id="no-grid"),
    ],
)
def test_range_without_meaning_is_refused(site, options, message):
    with pytest.raises(ConfigError, match=message):
        plan_export(make_config(site), now=AFTER, **options)


def test_range_lists_only_the_date_folders_of_its_windows(site):
    site.put("date=2024-05-31/a.parquet", at(NOON))
    site.put("date=2024-06-02/a.parquet", at(NOON + DAY))
    start = datetime(2024, 6, 2, tzinfo=UTC)
    config = daily(site, source={"date_path": "date=%Y-%m-%d"})

    plan = plan_export(config, now=AFTER, start=start, end=start + DAY)

    assert plan.batches == 1
    assert [batch.path for batch in plan.batches_of(plan.windows[0])] == [
        "date=2024-06-02/a.parquet"
    ]


def test_empty_window_is_committed_without_parts(site):
    site.put("a.parquet", at(NOON, NOON + 2 * DAY))

    export(daily(site), now=AFTER + DAY)

    found = {m.window: (m.generation, len(m.parts)) for m in read_manifests(site)}
    assert found[DAY_2] == (1, 0)
    assert set(statuses(daily(site), now=AFTER + DAY).values()) == {"up to date"}


def test_window_start_is_the_first_window(site):
    site.put("a.parquet", at(NOON, NOON + DAY))
    config = make_config(site, window={"every": "1d", "start": "2024-06-02"})

    export(config, now=AFTER)

    assert [manifest.window for manifest in read_manifests(site)] == [DAY_2]
    assert len(read_records(site)) == 1


def test_export_without_window_has_one_window(site):
    site.put("a.parquet", at(NOON, NOON + DAY))

    export(make_config(site))

    assert [manifest.window for manifest in read_manifests(site)] == ["all"]
    assert len(read_records(site)) == 2


def test_window_without_event_time_is_refused(site):
    site.put("a.parquet", at(NOON))
    mapping = {"request": {"column": "request"}, "response": {"column": "response"}}

    with pytest.raises(ConfigError, match="window: the source maps no field 'requested_at'"):
        plan_export(daily(site, source={"preset": None, "mapping": mapping}), now=AFTER)


def test_events_without_mapped_time_go_into_the_one_window(site):
    site.put("a.parquet", at(NOON, None))
    mapping = {"request": {"column": "request"}, "response": {"column": "response"}}

    export(make_config(site, source={"preset": None, "mapping": mapping}))

    assert len(read_records(site)) == 2


@pytest.mark.parametrize("window", [None, DAILY])
def test_events_without_a_valid_time_are_rejects_of_undated(site, window):
    far, old = datetime(2150, 1, 1, tzinfo=UTC), datetime(1999, 12, 31, tzinfo=UTC)
    site.put("a.parquet", at(NOON, None, far, old))

    export(make_config(site, window=window, max_reject_ratio=0.75), now=AFTER)

    assert read_manifest(site, "undated").ledger.rejected_by == {
        "event_time_missing": 1,
        "event_time_out_of_range": 2,
    }
    rejects = sorted((r["row"], r["reason"], r["raw"]["requested_at"]) for r in read_rejects(site))
    assert [(row, reason) for row, reason, _ in rejects] == [
        (1, "event_time_missing"),
        (2, "event_time_out_of_range"),
        (3, "event_time_out_of_range"),
    ]
    assert rejects[1][2].startswith("2150-01-01")
    assert len(read_records(site)) == 1


def test_undated_ratio_is_of_all_events(site):
    site.put("a.parquet", at(*[NOON] * 99, None))

    assert not run_export(make_config(site, max_reject_ratio=0.01), now=NOW).failed
    failed = run_export(make_config(site, max_reject_ratio=0.009), now=NOW, force=True).failed
    assert "window undated: 1 of 100 events is a reject" in failed[0].error


def test_bad_time_never_makes_its_batch_overlap_other_windows(site):
    site.put(
        "a.parquet",
        at(NOON, datetime(2150, 1, 1, tzinfo=UTC), None, datetime(1970, 1, 1, tzinfo=UTC)),
    )
    site.put("b.parquet", at(NOON + DAY))

    plan = plan_export(daily(site), now=AFTER)

    found = {w.window.name: [batch.path for batch in plan.batches_of(w)] for w in plan.windows}
    assert found == {DAY_1: ["a.parquet"], DAY_2: ["b.parquet"], "undated": ["a.parquet"]}


def test_undated_is_up_to_date_on_the_next_run(site):
    site.put("a.parquet", at(NOON, None))
    config = daily(site, max_reject_ratio=1)
    export(config, now=AFTER)

    assert set(statuses(config).values()) == {"up to date"}


UTC_PLUS_2 = timezone(timedelta(hours=2))
LOCAL = datetime(2024, 6, 2, 1, 30, tzinfo=UTC_PLUS_2)  # the evening before in UTC
FORMS = [
    pytest.param(pa.timestamp("us", tz="UTC"), LOCAL, {}, id="zoned-us"),
    pytest.param(pa.timestamp("ns", tz="UTC"), LOCAL, {}, id="zoned-ns"),
    pytest.param(pa.timestamp("ms", tz="Europe/Paris"), LOCAL, {}, id="zoned-ms-paris"),
    pytest.param(pa.timestamp("us"), datetime(2024, 6, 1, 23, 30), {}, id="naive-us"),  # noqa: DTZ001 - naive
    pytest.param(pa.timestamp("ns"), datetime(2024, 6, 1, 23, 30), {}, id="naive-ns"),  # noqa: DTZ001 - naive
    pytest.param(pa.timestamp("ms"), datetime(2024, 6, 1, 23, 30), {}, id="naive-ms"),  # noqa: DTZ001 - naive
    pytest.param(pa.timestamp("s"), datetime(2024, 6, 1, 23, 30), {}, id="naive-s"),  # noqa: DTZ001 - naive
    pytest.param(pa.date32(), dt.date(2024, 6, 1), {}, id="date"),
    pytest.param(pa.string(), "2024-06-02T01:30:00+02:00", {}, id="text-offset"),
    pytest.param(pa.string(), "2024-06-01T23:30:00Z", {}, id="text-z"),
    pytest.param(pa.large_string(), "2024-06-01 23:30:00.25", {}, id="text-naive"),
    pytest.param(pa.binary(), b"2024-06-01T23:30:00", {}, id="bytes"),
    pytest.param(
        pa.int64(),
        1717284600000,
        {"expression": "make_timestamp(requested_at * 1000)"},
        id="epoch-ms",
    ),
    pytest.param(
        pa.int64(), 1717284600000, {"expression": "epoch_ms(requested_at)"}, id="epoch_ms"
    ),
]


@pytest.mark.parametrize(("kind", "value", "mapped"), FORMS)
@pytest.mark.parametrize("statistics", [True, False], ids=["footer", "scan"])
def test_event_time_of_any_form_is_an_instant_in_utc(site, kind, value, mapped, statistics):
    row = event(requested_at=value)
    table = pq.read_table(
        pa.BufferReader(
            write_batch(
                [row, {**row, "id": "none", "requested_at": None}], schema_with(requested_at=kind)
            )
        )
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_statistics=statistics)
    site.put("a.parquet", sink.getvalue().to_pybytes())
    mapping = {"requested_at": mapped} if mapped else {}

    export(daily(site, source={"mapping": mapping}, max_reject_ratio=1), now=AFTER)

    found = {manifest.window: manifest.ledger.read for manifest in read_manifests(site)}
    assert found == {DAY_1: 1, DAY_2: 0, "undated": 1}


def test_int96_times_are_instants_in_utc(site):
    table = pq.read_table(pa.BufferReader(at(NOON, NOON + DAY)))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, use_deprecated_int96_timestamps=True)
    site.put("a.parquet", sink.getvalue().to_pybytes())

    export(daily(site), now=AFTER)

    assert {m.window: m.first_event_at for m in read_manifests(site)} == {
        DAY_1: "2024-06-01T12:00:00.000000Z",
        DAY_2: "2024-06-02T12:00:00.000000Z",
    }


def test_nanoseconds_just_before_midnight_are_in_one_day(site):
    nanoseconds = int(datetime(2024, 6, 2, tzinfo=UTC).timestamp()) * 10**9 - 1
    table = pq.read_table(pa.BufferReader(at(NOON)))
    sink = pa.BufferOutputStream()
    times = pa.array([nanoseconds], pa.timestamp("ns"))
    pq.write_table(table.set_column(1, "requested_at", times), sink)
    site.put("a.parquet", sink.getvalue().to_pybytes())

    export(daily(site), now=AFTER)

    assert sum(manifest.ledger.exported for manifest in read_manifests(site)) == 1


def test_only_row_groups_of_the_window_are_read(site):
    rows = events({"requested_at": NOON + DAY * (number // 10)} for number in range(30))
    site.put("a.parquet", write_batch(rows, row_group_size=10))

    plan = plan_export(daily(site), now=AFTER + DAY)

    assert [w.input.rows for w in plan.windows] == [10, 10, 10]


def test_source_without_batches_plans_no_windows(site):
    plan = plan_export(daily(site), now=AFTER)

    assert (plan.batches, plan.windows, plan.to_do) == (0, (), ())


@pytest.mark.parametrize("below", ["", "/exports"], ids=["equal", "inside"])
def test_destination_within_the_source_is_refused(site, below):
    site.put("a.parquet", at(NOON))

    with pytest.raises(ConfigError, match="overlap"):
        export(make_config(site, destination={"url": site.source_url + below}))


def test_source_within_the_destination_is_refused(site):
    with pytest.raises(ConfigError, match="overlap"):
        export(make_config(site, source={"url": f"{site.destination_url}/data"}))


def test_event_outside_the_valid_times_stands_in_no_window_that_covers_them(site):
    site.put("a.parquet", at(NOON - timedelta(hours=1), NOON + timedelta(hours=1)))
    valid = ["2024-06-01T00:00Z", "2024-06-01T12:00Z"]

    export(daily(site, source={"valid_times": valid}, max_reject_ratio=1), now=AFTER)

    read = {manifest.window: manifest.ledger.read for manifest in read_manifests(site)}
    assert read == {DAY_1: 1, DAY_2: 0, "undated": 1}


def test_too_many_windows_are_refused_before_they_are_planned(site):
    site.put("a.parquet", at(datetime(2000, 1, 2, tzinfo=UTC)))
    config = make_config(site, window={"every": "1m"})

    with pytest.raises(ConfigError, match=r"window\.every 1m: [0-9,]+ windows from 2000-01-02 on"):
        plan_export(config, now=AFTER)


def test_foreign_folder_among_the_manifests_is_passed_over(site):
    site.put("a.parquet", at(NOON))
    site.put("_meta/manifests/backup/00000001.json", b"{}", url=site.destination_url)

    assert statuses(daily(site)) == {DAY_1: "missing", DAY_2: "missing"}


def test_damaged_owner_record_is_named(site):
    site.put("a.parquet", at(NOON))
    site.put("_meta/owner.json", b"{", url=site.destination_url)

    with pytest.raises(QualityError, match=r"_meta/owner\.json: not an owner record"):
        plan_export(daily(site), now=AFTER)


def test_owner_knows_a_source_by_its_place_not_its_spelling(site):
    site.put("a.parquet", at(NOON))
    export(daily(site), now=AFTER)
    plain = site.source_url.removeprefix("file://")

    assert statuses(daily(site, source={"url": plain}))[DAY_1] == "up to date"


@pytest.mark.parametrize(
    ("pattern", "inside", "refused"),
    [
        ("logs.parquet", "out", False),
        ("*.parquet", "out", False),
        ("logs-*/x/*.parquet", "exports", False),
        ("**/*.parquet", "out", True),
        ("**", "out", True),
        ("", "out", True),
    ],
)
def test_destination_may_stand_beside_the_batches_that_a_pattern_names(
    site, pattern, inside, refused
):
    source = f"{site.source_url}/{pattern}".rstrip("/")
    config = make_config(
        site, source={"url": source}, destination={"url": f"{site.source_url}/{inside}"}
    )

    if refused:
        with pytest.raises(ConfigError, match="overlap"):
            plan_export(config, now=AFTER)
    else:
        assert plan_export(config, now=AFTER).batches == 0
