"""The batch index and the cache of window states: what a run need not read again."""

import io
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.plan import plan_export
from pipelines.s3_client import Client
from pipelines.sources import batches as batches_module
from pipelines.sources import fetch
from pipelines.sources.index import open_index
from pipelines.storage import Store
from pipelines.upkeep import rebuild_index
from tests.builders import (
    SCHEMA,
    events,
    export,
    make_config,
    read_manifest,
    read_manifests,
    read_records,
    schema_with,
    write_batch,
)

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AFTER = datetime(2024, 6, 4, 1, tzinfo=UTC)
DAILY = {"every": "1d", "lag": "20m"}
DAY_1 = "20240601T000000Z_20240602T000000Z"
DAY_2 = "20240602T000000Z_20240603T000000Z"


def at(*times):
    return write_batch(events({"requested_at": time, "id": None} for time in times))


def daily(site, **changes):
    return make_config(site, window=DAILY, **changes)


def below(site, folder):
    return [path for path in site.paths() if path.startswith(folder)]


@pytest.fixture
def footers(monkeypatch):
    """Paths of the batches whose footer is read, in order."""
    read = []
    library = fetch.read_footer

    def reading(store, path, **options):
        read.append(path)
        return library(store, path, **options)

    monkeypatch.setattr(batches_module, "read_footer", reading)
    return read


@pytest.fixture
def manifests_read(monkeypatch):
    """Paths of the manifests that are read, in order."""
    read = []
    library = Store.read_bytes

    def reading(store, path, **options):
        if path.startswith("_meta/manifests/"):
            read.append(path)
        return library(store, path, **options)

    monkeypatch.setattr(Store, "read_bytes", reading)
    return read


@pytest.fixture
def three_days(site):
    for number in range(3):
        site.put(f"{number}.parquet", at(NOON + number * DAY))
    return site


def test_known_batch_is_not_read_again(three_days, footers):
    export(daily(three_days), now=AFTER)
    assert set(footers) == {"0.parquet", "1.parquet", "2.parquet"}
    three_days.put("3.parquet", at(NOON))
    footers.clear()

    export(daily(three_days), now=AFTER)

    assert set(footers) == {"3.parquet"}


def test_overwritten_batch_is_read_again(three_days, footers):
    export(daily(three_days), now=AFTER)
    three_days.put("1.parquet", at(NOON + DAY, NOON + DAY))
    footers.clear()

    export(daily(three_days), now=AFTER)

    assert set(footers) == {"1.parquet"}
    assert len(read_records(three_days)) == 4


def test_second_run_reads_no_manifest_and_writes_nothing(three_days, manifests_read):
    export(daily(three_days), now=AFTER)
    before = three_days.paths()
    manifests_read.clear()

    summary = export(daily(three_days), now=AFTER)

    assert summary.written == ()
    assert len(summary.data_files) == 3
    assert manifests_read == []
    assert three_days.paths() == before


def test_plan_adds_nothing_to_the_index(three_days):
    plan_export(daily(three_days), now=AFTER)

    assert three_days.paths() == []


@pytest.mark.parametrize("folder", ["_meta/batches/", "_meta/windows/"])
def test_lost_cache_costs_time_alone(three_days, folder):
    export(daily(three_days), now=AFTER)
    for path in below(three_days, folder):
        three_days.destination.delete(path)

    summary = export(daily(three_days), now=AFTER)

    assert summary.written == ()
    assert len(summary.data_files) == 3
    assert below(three_days, folder)


@pytest.mark.parametrize("damage", [b"", b"no parquet", None], ids=["empty", "text", "other"])
def test_damaged_segment_is_passed_over(three_days, damage):
    export(daily(three_days), now=AFTER)
    if damage is None:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"path": ["a"]}), buffer)
        damage = buffer.getvalue()
    for path in (*below(three_days, "_meta/batches/"), *below(three_days, "_meta/windows/")):
        three_days.put(path, damage, url=three_days.destination_url)

    summary = export(daily(three_days), now=AFTER)

    assert summary.written == ()
    assert len(summary.data_files) == 3


def test_index_is_rebuilt_on_demand(three_days, footers):
    config = daily(three_days)
    export(config, now=AFTER)
    footers.clear()

    kept = rebuild_index(config, now=AFTER, rebuild=False)
    assert footers == []
    made = rebuild_index(config, now=AFTER, rebuild=True)

    assert (kept.batches, kept.windows, kept.removed_segments) == (3, 3, 0)
    assert (made.batches, made.windows, made.removed_segments) == (3, 3, 2)
    assert set(footers) == {"0.parquet", "1.parquet", "2.parquet"}


def test_many_small_segments_become_one(site, monkeypatch):
    monkeypatch.setattr("pipelines.segments._MANY_SMALL", 4)
    config = daily(site)
    for number in range(8):
        site.put(f"{number:02d}.parquet", at(NOON))
        export(config, now=AFTER)

    assert len(below(site, "_meta/batches/")) < 6
    assert len(below(site, "_meta/windows/")) < 6
    assert len(read_records(site)) == 8


def test_batch_that_two_runs_indexed_counts_once(three_days, tmp_path):
    config = daily(three_days)
    rebuild_index(config, now=AFTER, rebuild=False)
    index = open_index(three_days.destination)
    (segment,) = index.copy_to(tmp_path / "copies", remember=False).segments
    rows = pq.read_table(segment.file)
    index.add(pa.concat_tables([rows, rows]))

    export(config, now=AFTER)

    assert len(read_records(three_days)) == 3
    assert [len(manifest.batches) for manifest in read_manifests(three_days)] == [1, 1, 1]


def test_unreadable_batches_among_the_others_shift_no_inputs(site):
    for number in range(3):
        site.put(f"{number}-a.parquet", b"no parquet")
        site.put(f"{number}-b.parquet", at(NOON + number * DAY))

    export(daily(site, source={"on_unreadable_batch": "skip"}), now=AFTER)

    read = [[b.path for b in m.batches if not b.unreadable] for m in read_manifests(site)]
    assert read == [["0-b.parquet"], ["1-b.parquet"], ["2-b.parquet"]]


def test_other_time_column_is_another_index(three_days, footers):
    export(daily(three_days), now=AFTER)
    footers.clear()
    mapping = {"requested_at": {"column": "received_at"}}

    plan_export(daily(three_days, source={"mapping": mapping}), now=AFTER)

    assert set(footers) == {"0.parquet", "1.parquet", "2.parquet"}


def naive(unit):
    return schema_with(requested_at=pa.timestamp(unit))


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        pytest.param(SCHEMA, {"write_statistics": False}, id="no-statistics"),
        pytest.param(naive("ns"), {"use_deprecated_int96_timestamps": True}, id="int96"),
        pytest.param(naive("ns"), {}, id="nanoseconds"),
        pytest.param(naive("ms"), {}, id="milliseconds"),
        pytest.param(naive("us"), {}, id="without-zone"),
        pytest.param(schema_with(requested_at=pa.timestamp("us", "Asia/Tokyo")), {}, id="tokyo"),
        pytest.param(schema_with(requested_at=pa.string()), {}, id="iso-text"),
    ],
)
def test_writers_of_every_kind_of_time_are_indexed(site, footers, schema, options):
    times = [NOON, NOON + DAY]
    kind = schema.field("requested_at").type
    values: list = [time.isoformat() for time in times]
    if not pa.types.is_string(kind):
        values = [time if kind.tz else time.replace(tzinfo=None) for time in times]
    rows = events({"requested_at": value} for value in values)
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, **options)
    site.put("a.parquet", buffer.getvalue())

    export(daily(site), now=AFTER)
    footers.clear()
    again = export(daily(site), now=AFTER)

    exported = {m.window: m.ledger.exported for m in read_manifests(site)}
    assert exported[DAY_1] == exported[DAY_2] == 1
    assert again.written == ()
    assert footers == []


@pytest.fixture
def requests(monkeypatch):
    """Requests by operation and kind of key, as they leave for S3."""
    sent: Counter = Counter()
    library = Client._request  # noqa: SLF001 - the one place that every request passes

    def sending(client, fs, operation, parameters, *more):
        key = parameters.get("Key") or parameters.get("Prefix", "")
        kind = "source" if client.bucket == "raw" else key.split("/")[1]
        sent[operation, kind] += 1
        return library(client, fs, operation, parameters, *more)

    monkeypatch.setattr(Client, "_request", sending)
    return sent


def test_new_batch_costs_two_requests_at_most_and_a_known_one_none(s3_site, requests):
    for number in range(3):
        s3_site.put(f"{number}.parquet", at(NOON + number * DAY))
    config = daily(s3_site)
    requests.clear()

    rebuild_index(config, now=AFTER, rebuild=False)

    assert 3 <= requests["get_object", "source"] <= 6
    export(config, now=AFTER)
    requests.clear()
    export(config, now=AFTER)
    assert requests["get_object", "source"] == 0
    assert requests["head_object", "source"] == 0
    assert sum(count for (operation, _), count in requests.items() if "put" in operation) == 0


def test_batch_overwritten_by_garbage_costs_no_record(site):
    config = daily(site, source={"on_unreadable_batch": "skip"})
    site.put("a.parquet", at(NOON))
    site.put("b.parquet", at(NOON, NOON))
    export(config, now=AFTER)
    site.put("b.parquet", b"garbage")

    plan = plan_export(config, now=AFTER)
    assert {w.status for w in plan.windows} == {"up to date"}
    forced = export(config, now=AFTER, force=True)

    status = {window.window: window.status for window in forced.windows}
    assert status[DAY_1] == "source expired"
    assert len(read_records(site)) == 3


def test_filter_of_the_last_days_rewrites_only_windows_that_it_crosses(site):
    for number in range(3):
        site.put(f"{number}.parquet", at(NOON + number * DAY))
    last = [{"field": "sent_at", "comparator": "last", "value": "30h"}]
    config = daily(site, filters=last)
    export(config, now=AFTER)  # from June 2, 19:00

    same = export(config, now=AFTER)
    later = export(config, now=AFTER + timedelta(hours=1))
    after = export(config, now=AFTER + timedelta(hours=6))

    assert same.written == ()
    assert [window.window for window in later.written] == [DAY_2]
    written = {window.window for window in after.written}
    assert DAY_1 not in written
    assert read_manifest(site, DAY_2).ledger.filtered == 1


def test_ranged_run_keeps_events_that_lie_in_another_date_folder(site):
    config = daily(site, source={"date_path": "date=%Y-%m-%d"})
    site.put("date=2024-06-01/a.parquet", at(NOON, NOON + DAY))
    site.put("date=2024-06-02/b.parquet", at(NOON + DAY))
    site.put("date=__HIVE_DEFAULT_PARTITION__/c.parquet", at(NOON + DAY))
    export(config, now=AFTER)

    day_2 = {"start": datetime(2024, 6, 2, tzinfo=UTC), "end": datetime(2024, 6, 3, tzinfo=UTC)}
    summary = export(config, now=AFTER, force=True, **day_2)

    assert [window.status for window in summary.windows] == ["committed"]
    assert read_manifest(site, DAY_2).ledger.exported == 3
