"""What is committed stays known when the source has nothing left, and a slice replaces nothing."""

import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import ConfigError
from pipelines.export import run_export
from pipelines.overrides import with_overrides
from pipelines.plan import plan_export
from pipelines.verification import verify_export
from tests.builders import (
    NOW,
    event,
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
AFTER = datetime(2024, 6, 3, 1, tzinfo=UTC)
DAILY = {"every": "1d", "start": "2024-06-01"}
FIRST = "20240601T000000Z_20240602T000000Z"


def put_and_expire(site, config):
    site.put("a.parquet", write_batch([event(requested_at=NOON)]))
    export(config, now=AFTER)
    site.source.delete("a.parquet")


@pytest.mark.parametrize("force", [False, True])
def test_windows_stay_known_when_the_whole_source_has_expired(site, force):
    config = make_config(site, window=DAILY)
    put_and_expire(site, config)

    plan = plan_export(config, now=AFTER, force=force)

    status = "source expired" if force else "up to date"
    assert (plan.windows[0].window.name, plan.windows[0].status) == (FIRST, status)
    assert len(plan.windows) == 2
    assert not plan.to_do


def test_a_run_over_an_expired_span_names_its_windows(site):
    config = make_config(site, window=DAILY, source={"date_path": "date=%Y-%m-%d"})
    site.put("date=2024-06-01/a.parquet", write_batch([event(requested_at=NOON)]))
    export(config, now=AFTER)
    site.source.delete("date=2024-06-01/a.parquet")

    span = {"start": NOON.replace(hour=0), "end": NOON.replace(day=2, hour=0)}
    summary = export(config, now=AFTER, **span)

    assert [window.window for window in summary.windows] == [FIRST]
    assert len(summary.data_files) == 1


def test_a_rebuild_without_gone_batches_says_first_how_many_events_it_loses(site, caplog):
    config = make_config(site, window=DAILY)
    put_and_expire(site, config)
    site.put("b.parquet", write_batch([event(id="late", requested_at=NOON)]))

    with caplog.at_level(logging.WARNING):
        export(config, now=AFTER, rebuild_from_remaining=True)

    assert f"window {FIRST} is made again without 1 events" in caplog.text


def test_a_span_before_the_first_window_is_refused(site):
    site.put("a.parquet", write_batch([event(requested_at=NOON)]))
    config = make_config(site, window={**DAILY, "start": "2024-06-02"})

    with pytest.raises(ConfigError, match=r"first window starts at window\.start, 2024-06-02"):
        plan_export(config, now=AFTER, start=NOON.replace(hour=0), end=NOON.replace(day=2, hour=0))


def test_a_gone_batch_of_undated_events_does_not_keep_others_out(site):
    site.put("u.parquet", write_batch([event(requested_at=None)]))
    export(make_config(site, max_reject_ratio=1))
    site.source.delete("u.parquet")
    site.put("a.parquet", write_batch([event(id="good")]))

    export(make_config(site, max_reject_ratio=1))

    assert len(read_records(site)) == 1


def test_a_slice_does_not_replace_a_full_export_elsewhere(site):
    site.put("a.parquet", write_batch([event()]))
    elsewhere = f"{site.destination_url}-other"
    export(make_config(site, destination={"url": elsewhere}))

    config = with_overrides(make_config(site), to=elsewhere, where="false", base=Path("/"))
    with pytest.raises(ConfigError, match="belongs to another export: 'test-export'"):
        run_export(config, now=NOW)


def test_a_full_export_does_not_replace_a_slice(site):
    site.put("a.parquet", write_batch([event()]))
    elsewhere = f"{site.destination_url}-other"
    export(with_overrides(make_config(site), to=elsewhere, where="true", base=Path("/")))

    with pytest.raises(ConfigError, match="belongs to another export: 'test-export-slice-"):
        verify_export(make_config(site, destination={"url": elsewhere}), deep=False)


@pytest.mark.parametrize("inside", ["data", "data/date=2024-06-01", "_meta", "sub"])
def test_a_destination_inside_of_another_is_refused(site, inside):
    site.put("a.parquet", write_batch([event()]))
    export(make_config(site))

    config = make_config(site, destination={"url": f"{site.destination_url}/{inside}"})
    with pytest.raises(ConfigError, match="which is an export's"):
        run_export(config, now=NOW)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(pa.float64(), 7.0, id="double"),
        pytest.param(pa.float32(), 7.0, id="float"),
        pytest.param(pa.decimal128(10, 2), Decimal("7.00"), id="decimal"),
    ],
)
def test_an_id_written_as_a_float_is_the_id_it_was(site, kind, value):
    later = NOON.replace(hour=13)
    site.put("a.parquet", write_batch([event(id=7)], schema_with(id=pa.int64())))
    newer = event(id=value, received_at=later, request='{"new":1}')
    site.put("b.parquet", write_batch([newer], schema_with(id=kind)))

    export(make_config(site, extra_fields=["id"]))

    ledger = read_manifest(site).ledger
    assert (ledger.read, ledger.superseded, ledger.exported) == (2, 1, 1)
    (record,) = read_records(site)
    assert record.endswith(b',"id":"7"}')


def test_a_model_written_as_a_float_is_one_partition_with_the_whole_numbers(site):
    for name, kind in (("a", pa.int64()), ("b", pa.float64())):
        rows = [event(id=name, model=4)]
        site.put(f"{name}.parquet", write_batch(rows, schema_with(model=kind)))

    export(make_config(site, partition_by=["model"]))

    assert {part.partition for part in read_manifest(site).parts} == {"model=4"}


def test_ids_past_what_a_float_holds_tell_no_events_apart(site):
    rows = events({"id": float(2**53)} for _ in range(2))
    site.put("a.parquet", write_batch(rows, schema_with(id=pa.float64())))

    export(make_config(site))

    assert len(read_records(site)) == 2


def test_a_changed_filter_leaves_the_undated_window_alone(site):
    rows = [event(requested_at=NOON), event(id="u", requested_at=None)]
    site.put("a.parquet", write_batch(rows))
    export(make_config(site, window=DAILY, max_reject_ratio=1), now=AFTER)

    changed = make_config(site, window=DAILY, max_reject_ratio=1, where="status_code = 500")
    plan = plan_export(changed, now=AFTER)

    found = {window.window.name: window.status for window in plan.windows}
    assert (found[FIRST], found["undated"]) == ("changed config", "up to date")


def test_a_manifest_that_took_the_place_of_a_known_one_is_read(site):
    """As after the manifests were removed and written anew, and the cache was not."""
    config = make_config(site, window=DAILY)
    put_and_expire(site, config)
    site.put("b.parquet", write_batch([event(id="other", requested_at=NOON)]))
    for found in list(site.destination.list_objects("_meta/manifests/")):
        site.destination.delete(found.path)

    summary = export(config, now=AFTER)

    assert {window.status for window in summary.windows} == {"committed"}
    assert {window.generation for window in summary.windows} == {1}
    plan = plan_export(config, now=AFTER)
    assert {window.status for window in plan.windows} == {"up to date"}
    batches = [batch.path for m in read_manifests(site) for batch in m.batches]
    assert batches == ["b.parquet"]
