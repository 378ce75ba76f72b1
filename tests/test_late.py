"""Late data: what comes days after its window, in whichever batch, heals exactly its windows."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.garbage import collect_garbage
from pipelines.plan import plan_export
from tests.builders import (
    events,
    export,
    make_config,
    read_manifest,
    read_manifests,
    read_records,
    write_batch,
)

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AFTER = datetime(2024, 6, 8, 1, tzinfo=UTC)
DAILY = {"every": "1d", "start": "2024-06-01", "lag": "20m"}
DAY_1, DAY_2, DAY_5 = (f"202406{d:02d}T000000Z_202406{d + 1:02d}T000000Z" for d in (1, 2, 5))


def batch(*rows):
    return write_batch(events({"id": name, "requested_at": at, **more} for name, at, more in rows))


def daily(site, **changes):
    return make_config(site, window=DAILY, extra_fields=["id"], **changes)


@pytest.fixture
def week(site):
    """A week of events, a batch a day, one of them spanning midnight, exported."""
    for day in range(5):
        at = NOON + day * DAY
        rows: list = [(f"day-{day}", at, {})]
        if day == 0:
            rows.append(("after-midnight", at + DAY / 2, {}))
        site.put(f"{day}.parquet", batch(*rows))
    export(daily(site), now=AFTER)
    return site


def generations(site):
    return {m.window: m.generation for m in read_manifests(site) if m.generation > 1}


def test_batch_that_spans_midnight_feeds_both_days(week):
    read = {m.window: [b.path for b in m.batches] for m in read_manifests(week)}

    assert read[DAY_1] == ["0.parquet"]
    assert read[DAY_2] == ["0.parquet", "1.parquet"]


def test_event_three_days_late_exports_its_window_again_and_no_other(week):
    week.put("late.parquet", batch(("late", NOON + DAY, {}), ("next", NOON + 7 * DAY, {})))

    summary = export(daily(week), now=AFTER)

    assert [(w.window, w.detail) for w in summary.written] == [(DAY_2, "late batch")]
    assert generations(week) == {DAY_2: 2}
    assert read_manifest(week, DAY_2).ledger.exported == 3


def test_parts_of_the_old_generation_stay_for_their_readers_and_then_go(week):
    old = read_manifest(week, DAY_2)
    week.put("late.parquet", batch(("late", NOON + DAY, {})))
    export(daily(week), now=AFTER)

    assert {part.path for part in old.parts} <= set(week.paths())
    collect_garbage(week.destination, keep_generations=1, grace_seconds=-60)

    named = {part.path for manifest in read_manifests(week) for part in manifest.parts}
    assert {path for path in week.paths() if path.startswith("data/")} == named
    assert not named & {part.path for part in old.parts}


def test_newest_copy_of_an_id_wins_across_batches_however_late(week):
    newer = {"received_at": NOON + 4 * DAY, "model": "newer"}
    week.put("late.parquet", batch(("day-1", NOON + DAY, newer)))

    export(daily(week), now=AFTER)

    ledgers = {b.path: b.ledger for b in read_manifest(week, DAY_2).batches}
    assert ledgers["1.parquet"].superseded == 1
    assert ledgers["late.parquet"].exported == 1
    assert sum(b'"id":"day-1"' in line for line in read_records(week)) == 1


def test_late_event_without_a_valid_time_makes_undated_alone(week):
    week.put("late.parquet", batch(("undated", None, {})))

    export(daily(week, max_reject_ratio=1), now=AFTER)

    assert read_manifest(week, "undated").ledger.rejected_by == {"event_time_missing": 1}
    assert generations(week) == {}


@pytest.mark.parametrize("force", [False, True])
def test_compaction_at_the_source_costs_no_record_and_makes_nothing_twice(week, force):
    """Two batches replaced by one: its windows are left alone until told otherwise."""
    for name in ("0", "1"):
        week.source.delete(f"{name}.parquet")
    week.put(
        "compacted.parquet",
        batch(
            ("day-0", NOON, {}), ("after-midnight", NOON + DAY / 2, {}), ("day-1", NOON + DAY, {})
        ),
    )
    before = sorted(read_records(week))

    plan = plan_export(daily(week), now=AFTER, force=force)
    export(daily(week), now=AFTER, force=force)

    expired = {w.window.name: w.lost_events for w in plan.windows if w.status == "source expired"}
    assert expired == {DAY_1: 1, DAY_2: 2}
    assert sorted(read_records(week)) == before
    assert DAY_5 in generations(week) if force else generations(week) == {}
    export(daily(week), now=AFTER, rebuild_from_remaining=True)
    assert sorted(read_records(week)) == before
    assert {m.window for m in read_manifests(week) if "compacted.parquet" in str(m.batches)} == {
        DAY_1,
        DAY_2,
    }
    assert export(daily(week), now=AFTER).written == ()
