"""A run over chosen windows lists what may feed them: their date folders, and all beside those."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import plan_export
from pipelines.sources.listing import list_batches, open_source, why_no_batch
from pipelines.storage import Store
from tests.builders import event, export, make_config, read_manifests, read_records, write_batch

DAY = timedelta(days=1)
FIRST = datetime(2024, 6, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 5, 1, tzinfo=UTC)
SPAN: dict[str, Any] = {"start": FIRST, "end": FIRST + DAY}


def daily(site, template="date=%Y-%m-%d", **source):
    window = {"every": "1d", "start": "2024-06-01"}
    return make_config(site, window=window, source={"date_path": template, **source})


def put(site, path, day=0, **changes):
    at = FIRST + day * DAY + DAY / 2
    site.put(path, write_batch([event(requested_at=at, **changes)]))


def listed(config, span):
    files = open_source(config.source)
    return [found.path for found in list_batches(config.source, files, *span)]


@pytest.mark.parametrize(
    ("template", "beside", "other_days"),
    [
        pytest.param(
            "date=%Y-%m-%d",
            ["a.parquet", "backfill/x/b.parquet", "date=2024-06-01-again/c.parquet", "z.parquet"],
            ["date=2024-06-03/a.parquet", "date=2023-01-01/a.parquet"],
            id="days",
        ),
        pytest.param(
            "logs/%Y/%m/%d",
            [
                "logs/2023/12/31st/a.parquet",
                "logs/2023/extra/a.parquet",
                "logs/2024/06/a.parquet",
                "logs/2024/13/40/a.parquet",
                "logs/a.parquet",
                "old/2024/06/02/a.parquet",
            ],
            ["logs/2024/06/03/a.parquet", "logs/2024/05/30/a.parquet", "logs/2023/06/01/a.parquet"],
            id="levels",
        ),
        pytest.param(
            "%Y%m%d/%H",
            ["20240531/a.parquet", "20240601/x/a.parquet"],
            ["20240602/01/a.parquet", "20240531/22/a.parquet"],
            id="hours",
        ),
    ],
)
def test_a_chosen_span_lists_its_date_folders_and_what_lies_beside_any(
    site, template, beside, other_days
):
    own = f"{FIRST:{template}}/a.parquet"
    for path in (*beside, *other_days, own, "_delta_log/a.parquet"):
        put(site, path)

    assert listed(daily(site, template), SPAN.values()) == sorted([*beside, own])


def test_months_are_listed_as_a_whole_for_a_long_span_and_nothing_twice(site):
    inside = [f"date={FIRST + day * DAY:%Y-%m-%d}/a.parquet" for day in range(0, 365, 40)]
    for path in [*inside, "date=2024-06-0x/a.parquet"]:
        put(site, path)
    for year in (2022, 2026):  # whole months are listed
        put(site, f"date={year}-06-01/a.parquet")

    found = listed(daily(site), (FIRST, FIRST + 365 * DAY))

    assert found == sorted([*inside, "date=2024-06-0x/a.parquet"])


def test_a_batch_of_the_day_before_feeds_a_chosen_window_past_midnight(site):
    put(site, "date=2024-06-01/a.parquet", day=1)  # its event is of the second

    export(daily(site), now=AFTER, start=FIRST + DAY, end=FIRST + 2 * DAY)

    assert len(read_records(site)) == 1


def test_an_empty_span_looks_for_one_batch_and_no_further(site, monkeypatch):
    for day in range(4, 9):
        put(site, f"date=2024-06-{day:02d}/a.parquet", day=day)
    folders = []
    list_folder = Store.list_folder

    def count(store, prefix):
        folders.append(prefix)
        return list_folder(store, prefix)

    monkeypatch.setattr(Store, "list_folder", count)
    plan = plan_export(daily(site), now=AFTER, **SPAN)

    assert [window.status for window in plan.windows] == ["missing"]
    assert len(folders) == 3  # beside the date folders, then the root again and one folder
    assert plan.batches == 1


def test_an_unreadable_batch_beside_the_date_folders_blocks_a_chosen_window(site):
    put(site, "date=2024-06-01/a.parquet")
    site.put("backfill/b.parquet", b"not Parquet")

    plan = plan_export(daily(site), now=AFTER, **SPAN)

    assert [window.status for window in plan.windows] == ["blocked"]
    assert plan.windows[0].detail.startswith("backfill/b.parquet")


def test_a_new_batch_beside_the_date_folders_is_exported_by_a_run_over_its_span(site):
    put(site, "date=2024-06-01/a.parquet")
    export(daily(site), now=AFTER, **SPAN)
    put(site, "backfill/b.parquet", id="late")

    export(daily(site), now=AFTER, **SPAN)

    assert len(read_records(site)) == 2


def test_a_chosen_window_in_which_nothing_is_listed_is_committed_empty(site):
    put(site, "date=2024-06-01/a.parquet")

    summary = export(daily(site), now=AFTER, start=FIRST + DAY, end=FIRST + 2 * DAY)

    assert [window.status for window in summary.windows] == ["committed"]
    (manifest,) = read_manifests(site)
    assert (manifest.window, manifest.ledger.read) == ("20240602T000000Z_20240603T000000Z", 0)
    export(daily(site), now=AFTER)
    assert sorted(m.generation for m in read_manifests(site)) == [1, 1, 1, 1]


def test_a_chosen_window_of_which_the_only_batch_is_unreadable_is_blocked(site):
    put(site, "date=2024-06-04/a.parquet")
    site.put("date=2024-06-01/a.parquet", b"not Parquet")

    plan = plan_export(daily(site), now=AFTER, **SPAN)

    assert [window.status for window in plan.windows] == ["blocked"]


def test_a_span_of_a_source_without_batches_has_nothing_to_do(site):
    summary = export(daily(site), now=AFTER, **SPAN)

    assert not summary.windows
    assert not summary.batches


@pytest.mark.parametrize(
    ("below", "objects", "why"),
    [
        pytest.param("/2024", ["2023/a.parquet"], "nothing at all lies under", id="nothing"),
        pytest.param("", ["2023/a.csv"], "is named *.parquet or *.parq", id="others"),
        pytest.param("/*/b*", ["2023/a.parquet"], "has a name that fits", id="pattern"),
        pytest.param("/b.parquet", ["a.parquet"], "has a name that fits", id="object"),
    ],
)
def test_a_source_without_batches_says_whether_anything_is_there(site, below, objects, why):
    for path in objects:
        site.put(path, b"")
    if site.kind == "file":
        Path(f"{site.source_url.removeprefix('file://')}/2024").mkdir()
    config = make_config(site, source={"url": f"{site.source_url}{below}"})

    assert why in why_no_batch(config.source)


def test_a_source_that_is_a_file_or_not_there_says_so(tmp_path, file_site):
    (tmp_path / "logs.csv").write_text("")

    for name, why in (("logs.csv", "is a file"), ("lgos", "does not exist")):
        config = make_config(file_site, source={"url": f"{tmp_path}/{name}"})
        assert why_no_batch(config.source) == f"{tmp_path}/{name} {why}"
