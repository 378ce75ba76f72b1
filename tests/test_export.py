"""Export end to end: what lies at the destination, which copies win, order, limits and readers."""

import gzip
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from fsspec.core import url_to_fs

import pipelines.accounting
import pipelines.export
import pipelines.plan
from pipelines.errors import ConfigError
from pipelines.export import run_export
from pipelines.layout import parse_part, partition_path
from pipelines.shard import run_shard
from pipelines.storage import Store
from tests.builders import (
    NOW,
    event,
    export,
    make_config,
    read_manifest,
    read_manifest_json,
    read_manifests,
    read_records,
    read_rejects,
    schema_with,
    split_lines,
    unpack,
    write_batch,
)
from tests.conftest import make_site
from tests.many import DAILY, NOON, call, many_config, put_many, written_bytes

DAY_1 = "20240601T000000Z_20240602T000000Z"
DAY_2 = "20240602T000000Z_20240603T000000Z"
AFTER = datetime(2024, 6, 3, 1, tzinfo=UTC)


def names(site):
    """Names of the exported events, in the manifests' order."""
    return [json.loads(line)["input"]["name"] for line in read_records(site)]


def put_two_days(site):
    """Two days of events in three batches, one of which spans midnight."""
    day = timedelta(days=1)
    site.put("a.parquet", write_batch([call("a1"), call("a2", model="o1")]))
    site.put("b.parquet", write_batch([call("b1"), call("b2", NOON + day)]))
    site.put("c.parquet", write_batch([call("c1", NOON + day, model=None)]))


def two_days_config(site, **changes):
    settings = {"window": DAILY, "partition_by": ["date", "model"], **changes}
    return make_config(site, **settings)


def snapshot(site):
    """Every object at the destination with its ETag, which on a disk covers its mtime."""
    return [(found.path, found.size, found.etag) for found in site.destination.list_objects()]


def part_bytes(site):
    """Bytes of each committed part by path."""
    return {
        part.path: site.destination.read_bytes(part.path)
        for manifest in read_manifests(site)
        for part in manifest.parts
    }


def test_paths_are_the_layout_of_the_contract(site):
    put_two_days(site)

    export(two_days_config(site), now=AFTER)

    digests = [manifest.input_digest[:16] for manifest in read_manifests(site)]
    caches = ("_meta/batches/", "_meta/windows/")
    listed = [path for path in site.paths() if not path.startswith(caches)]
    assert sum(path.startswith(caches) for path in site.paths()) == 2
    data_1, data_2 = ("data/date=2024-06-01", "data/date=2024-06-02")
    null = "__HIVE_DEFAULT_PARTITION__"
    names_1, names_2 = (
        f"{prefix}-{digest}"
        for prefix, digest in zip(("20240601T000000Z", "20240602T000000Z"), digests, strict=True)
    )
    assert listed == sorted(
        [
            f"_meta/manifests/{DAY_1}/00000001.json",
            f"_meta/manifests/{DAY_2}/00000001.json",
            "_meta/owner.json",
            f"{data_1}/model=gpt-4o/{names_1}-00000-00000.jsonl.gz",
            f"{data_1}/model=o1/{names_1}-00000-00000.jsonl.gz",
            f"{data_2}/model=gpt-4o/{names_2}-00000-00000.jsonl.gz",
            f"{data_2}/model={null}/{names_2}-00000-00000.jsonl.gz",
        ]
    )


def test_record_holds_input_output_and_tags_as_recorded(site):
    site.put("a.parquet", write_batch([event(request='{"n":1.0, "k":"\\u00e9"}', response=None)]))

    export(make_config(site))

    assert read_records(site) == [
        b'{"input":{"n":1.0, "k":"\\u00e9"},"output":null,"tags":{"prompt_id":"greet"}}'
    ]


def test_digests_and_sizes_of_parts_are_those_of_their_bytes(site):
    put_two_days(site)

    export(two_days_config(site), now=AFTER)

    for manifest in read_manifests(site):
        for part in manifest.parts:
            data = site.destination.read_bytes(part.path)
            raw = unpack(part.path, data)
            assert part.sha256 == hashlib.sha256(data).hexdigest()
            assert part.md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()
            assert (part.bytes, part.raw_bytes) == (len(data), len(raw))
            assert part.records == raw.count(b"\n")


def test_gzip_parts_carry_no_time(site):
    put_two_days(site)

    export(two_days_config(site), now=AFTER)

    assert all(data[4:8] == bytes(4) for data in part_bytes(site).values())


def test_ledger_of_each_batch_counts_only_the_window(site):
    put_two_days(site)

    export(two_days_config(site), now=AFTER)

    found = [
        {
            batch.path: (batch.rows, batch.ledger.read, batch.ledger.exported)
            for batch in manifest.batches
        }
        for manifest in read_manifests(site)
    ]
    assert found == [
        {"a.parquet": (2, 2, 2), "b.parquet": (2, 1, 1)},
        {"b.parquet": (2, 1, 1), "c.parquet": (1, 1, 1)},
    ]


def test_second_run_writes_nothing(site):
    put_two_days(site)
    config = two_days_config(site)
    export(config, now=AFTER)
    before = snapshot(site)

    again = export(config, now=AFTER)

    assert snapshot(site) == before
    assert [window.status for window in again.windows] == ["up to date", "up to date"]
    assert again.written == ()


def test_summary_lists_committed_parts_and_manifests(site):
    put_two_days(site)
    config = two_days_config(site)
    first = export(config, now=AFTER)

    again = export(config, now=AFTER)

    assert first.data_files == again.data_files
    assert len(first.data_files) == 4
    assert [window.manifest for window in first.windows] == [
        site.destination.absolute_url(manifest.path) for manifest in read_manifests(site)
    ]
    assert json.loads(json.dumps(first.as_dict()))["committed"] == 2


def test_force_writes_the_same_parts_again(site):
    put_two_days(site)
    config = two_days_config(site)
    export(config, now=AFTER)
    before = part_bytes(site)

    export(config, now=AFTER, force=True)

    assert part_bytes(site) == before
    assert [manifest.generation for manifest in read_manifests(site)] == [2, 2]


def test_progress_counts_events_and_bytes(site):
    put_two_days(site)
    seen = []

    export(two_days_config(site), now=AFTER, progress=lambda *counts: seen.append(counts))

    assert sum(events for events, _ in seen) == 5
    assert sum(size for _, size in seen) == sum(len(r) + 1 for r in read_records(site))


def test_newest_copy_of_an_id_wins_across_batches(site):
    newer = call("new", id="x", received_at=NOON + timedelta(hours=1))
    site.put("a.parquet", write_batch([newer]))
    site.put("b.parquet", write_batch([call("old", id="x"), call("other")]))

    export(make_config(site))

    assert names(site) == ["new", "other"]
    ledgers = {batch.path: batch.ledger.superseded for batch in read_manifest(site).batches}
    assert ledgers == {"a.parquet": 0, "b.parquet": 1}


def test_newest_copy_of_an_id_wins_within_a_batch(site):
    newer = call("new", id="x", received_at=NOON + timedelta(hours=1))
    site.put("a.parquet", write_batch([call("old", id="x"), newer, call("old", id="x")]))

    export(make_config(site))

    assert names(site) == ["new"]
    assert read_manifest(site).ledger.superseded == 2


def test_last_batch_and_row_win_among_copies_of_one_version(site):
    site.put("a.parquet", write_batch([call("a1", id="x"), call("a2", id="y"), call("a3", id="y")]))
    site.put("b.parquet", write_batch([call("b1", id="x")]))

    export(make_config(site))

    assert names(site) == ["a3", "b1"]


def test_copy_with_a_version_beats_one_without(site):
    site.put("a.parquet", write_batch([call("known", id="x")]))
    site.put("b.parquet", write_batch([call("unknown", id="x", received_at=None)]))

    export(make_config(site))

    assert names(site) == ["known"]


def test_events_without_id_are_never_superseded(site):
    site.put("a.parquet", write_batch([call("a", id=None), call("a", id=None)]))

    export(make_config(site))

    assert names(site) == ["a", "a"]


def test_newer_copy_that_a_filter_drops_keeps_the_older_out(site):
    newer = call("new", id="x", model="o1", received_at=NOON + timedelta(hours=1))
    site.put("a.parquet", write_batch([call("old", id="x"), newer]))

    export(make_config(site, where="model = 'gpt-4o'"))

    ledger = read_manifest(site).ledger
    assert (ledger.exported, ledger.superseded, ledger.filtered) == (0, 1, 1)


def test_updated_at_decides_where_a_batch_has_no_received_at(site):
    schema = schema_with(received_at=None, updated_at=pa.timestamp("us", tz="UTC"))
    rows = [call("new", id="x", updated_at=AFTER), call("old", id="x", updated_at=NOON)]
    site.put("a.parquet", write_batch(rows, schema))

    export(make_config(site))

    assert names(site) == ["new"]


@pytest.mark.parametrize(
    ("what", "kept"),
    [
        pytest.param("none", 4, id="none"),
        pytest.param("record", 3, id="record"),
        pytest.param("input", 2, id="input"),
    ],
)
def test_remove_duplicates_keeps_the_first(site, what, kept):
    same = {"request": '{"name":"same"}'}
    site.put("a.parquet", write_batch([call("a1", **same), call("a2")]))
    site.put("b.parquet", write_batch([call("b1", **same), call("b2", response="1", **same)]))

    export(make_config(site, remove_duplicates=what))

    assert names(site) == ["same", "a2", "same", "same"][:kept]
    assert read_manifest(site).ledger.duplicate == 4 - kept
    assert read_manifest(site).batches[0].ledger.duplicate == 0


def test_reject_is_never_the_first_copy(site):
    same = {"request": '{"name":"same"}'}
    site.put("a.parquet", write_batch([call("a1", response="{", **same), call("a2", **same)]))

    export(make_config(site, remove_duplicates="input", max_reject_ratio=1))

    ledger = read_manifest(site).ledger
    assert (ledger.exported, ledger.duplicate, ledger.rejected) == (1, 0, 1)


def test_superseded_event_is_never_the_first_copy(site):
    same = {"request": '{"name":"same"}'}
    newer = call("n", id="x", received_at=AFTER)
    site.put("a.parquet", write_batch([call("o", id="x", **same), newer, call("b", **same)]))

    export(make_config(site, remove_duplicates="input"))

    assert names(site) == ["n", "same"]


def test_sample_keeps_the_same_events_whatever_their_batches(site):
    rows = [call(f"e{number}") for number in range(200)]
    site.put("a.parquet", write_batch(rows))
    config = make_config(site, sample={"fraction": 0.3, "seed": 7})
    export(config)
    first = names(site)
    site.put("a.parquet", write_batch(rows[:50]))
    site.put("b.parquet", write_batch(rows[50:]))

    export(config)

    assert names(site) == first
    assert 30 < len(first) < 90
    assert read_manifest(site).ledger.sampled_out == 200 - len(first)


def test_sample_of_another_seed_keeps_other_events(site):
    site.put("a.parquet", write_batch([call(f"e{number}") for number in range(200)]))
    export(make_config(site, sample={"fraction": 0.3, "seed": 7}))
    first = names(site)

    export(make_config(site, sample={"fraction": 0.3, "seed": 8}))

    assert names(site) != first


def test_sample_without_a_mapped_id_is_refused(site):
    site.put("a.parquet", write_batch([call("a")]))
    mapping = {"request": {"column": "request"}, "response": {"column": "response"}}
    source = {"preset": None, "mapping": mapping}

    with pytest.raises(ConfigError, match="sample: the source maps no field 'id'"):
        export(make_config(site, source=source, sample={"fraction": 0.3}))


def test_exclude_errors_counts_a_missing_status_as_an_error(site):
    rows = [call("ok"), call("failed", status_code=500), call("unknown", status_code=None)]
    schema = schema_with(status_code=None, statusCode=pa.int32())
    site.put(
        "a.parquet", write_batch([{**r, "statusCode": r["status_code"]} for r in rows], schema)
    )
    error = {"expression": '"statusCode" is distinct from 200'}

    export(make_config(site, source={"mapping": {"is_error": error}}, exclude_errors=True))

    assert names(site) == ["ok"]
    assert read_manifest(site).ledger.errors_excluded == 2


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_order_by_sorts_a_partition_across_its_parts(site, direction):
    times = [NOON + timedelta(minutes=(7 * number) % 100) for number in range(100)]
    rows = [
        call(f"{at:%H%M}", at, request=json.dumps({"name": f"{at:%H%M}", "pad": "x" * 200}))
        for at in times
    ]
    site.put("a.parquet", write_batch(rows[:60], row_group_size=10))
    site.put("b.parquet", write_batch(rows[60:]))

    export(make_config(site, order_by=f"requested_at {direction}", target_part_bytes=4000))

    assert len(read_manifest(site).parts) > 3
    assert names(site) == sorted(names(site), reverse=direction == "desc")


def test_order_by_breaks_ties_by_batch_and_row(site):
    site.put("a.parquet", write_batch([call("a1"), call("a2")]))
    site.put("b.parquet", write_batch([call("b1"), call("early", NOON - timedelta(hours=1))]))

    export(make_config(site, order_by="requested_at desc"))

    assert names(site) == ["a1", "a2", "b1", "early"]


def test_too_many_partitions_fail_their_window_alone(site):
    rows = [call(f"e{n}", model=f"m{n}") for n in range(20)]
    site.put("a.parquet", write_batch([*rows, call("late", NOON + timedelta(days=1))]))
    config = make_config(site, window=DAILY, partition_by=["model"], max_partitions=10)

    summary = run_export(config, now=AFTER)

    assert [(window.window, window.status) for window in summary.windows] == [
        (DAY_1, "failed"),
        (DAY_2, "committed"),
    ]
    assert "more than 10 partitions" in summary.windows[0].error
    assert [manifest.window for manifest in read_manifests(site)] == [DAY_2]


def test_partition_value_that_is_too_long_fails_its_window_alone(site):
    rows = [call("long", model="secret" * 50), call("late", NOON + timedelta(days=1))]
    site.put("a.parquet", write_batch(rows))

    summary = run_export(make_config(site, window=DAILY, partition_by=["model"]), now=AFTER)

    assert [window.status for window in summary.windows] == ["failed", "committed"]
    assert "'model'" in summary.windows[0].error
    assert "306 bytes" in summary.windows[0].error
    assert "secret" not in summary.windows[0].error


def test_values_of_many_keys_lead_to_their_own_partition(file_site):
    keys = "abcdefghijkl"
    rows = [
        call(
            f"e{n}", tags=json.dumps({key: f"{n * place % 101}" for place, key in enumerate(keys)})
        )
        for n in range(101)  # 101 ** 11 is more than 64 bits tell apart
    ]
    file_site.put("a.parquet", write_batch(rows))

    export(make_config(file_site, partition_by=[f"tags.{key}" for key in keys]))

    found = {
        json.loads(line)["input"]["name"]: part.partition
        for part in read_manifest(file_site).parts
        for line in split_lines(unpack(part.path, part_bytes(file_site)[part.path]))
    }
    assert found == {
        row["id"]: "/".join(f"tags.{key}={value}" for key, value in json.loads(row["tags"]).items())
        for row in rows
    }


def put_long(site, **columns):
    """Three batches, each many reads long, of which a filter drops some so that reads are cut."""
    for batch in range(3):
        rows = [
            call(
                f"{batch}-{n}",
                status_code=200 if n % 50 else 500,
                request=json.dumps({"name": f"{batch}-{n:05d}", "x": "y" * (n * 13 % 90)}),
                **{name: value(n) for name, value in columns.items()},
            )
            for n in range(9_000)
        ]
        site.put(f"{batch}.parquet", write_batch(rows, row_group_size=3001))


def export_on_threads(site, threads, **changes):
    """What an export on so many threads writes: bytes by path."""
    only = [{"field": "status_code", "comparator": "=", "value": 200}]
    destination = {"url": f"{site.destination_url}-{threads}"}
    settings = {"filters": only, "max_reject_ratio": 1, "threads": threads, **changes}
    export(make_config(site, destination=destination, **settings))
    return written_bytes(site, f"-{threads}")


def test_values_that_share_a_partition_stay_in_batch_order_on_any_threads(site):
    put_long(site, model=lambda n: (None, "", "__HIVE_DEFAULT_PARTITION__")[n * 7 % 3])

    found = [
        export_on_threads(site, threads, partition_by=["model"], target_part_bytes=400_000)
        for threads in (1, 2, 4)
    ]

    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 5
    lines = [
        line for path in sorted(found[0]) for line in split_lines(unpack(path, found[0][path]))
    ]
    kept = [json.loads(line)["input"]["name"] for line in lines]
    assert kept == sorted(kept)


def test_rejects_of_several_reasons_are_in_batch_order_on_any_threads(site):
    put_long(site, response=lambda n: "{bad" if n % 2 else "{}", tags=lambda n: "[{"[n % 2])

    found = [export_on_threads(site, threads) for threads in (1, 2, 4)]

    assert found[0] == found[1] == found[2]
    ((path, data),) = found[0].items()
    rejects = [json.loads(line) for line in split_lines(unpack(path, data))]
    places = [(reject["batch"], reject["row"]) for reject in rejects]
    assert places == sorted(places)
    assert len({reject["reason"] for reject in rejects}) == 2


def test_partitions_that_differ_in_case_alone_have_the_same_names_on_any_threads(site):
    put_long(site, model=lambda n: "GPT" if n * 7 % 3 else "gpt")
    changes = {"partition_by": ["model"], "target_part_bytes": 130_000}

    found = [export_on_threads(site, threads, **changes) for threads in (1, 2, 4)]

    assert found[0] == found[1] == found[2]
    assert all(parse_part(path) for path in found[0])
    assert len({path.rpartition("/")[2] for path in found[0]}) == len(found[0]) > 20


def test_as_many_partitions_as_allowed_are_written(site):
    site.put("a.parquet", write_batch([call(f"e{n}", model=f"m{n}") for n in range(10)]))

    summary = export(make_config(site, partition_by=["model"], max_partitions=10))

    assert summary.windows[0].partitions == 10


def test_too_many_rejects_fail_the_window_and_name_an_example(site):
    rows = [call("a"), call("b", response="{oops"), call("c", request="[1,]"), call("d")]
    site.put("a.parquet", write_batch(rows))

    summary = run_export(make_config(site, max_reject_ratio=0.4), now=NOW)

    error = summary.failed[0].error
    assert "2 of 4 events are rejects" in error
    assert "response_not_json 1 (such as a.parquet row 1)" in error
    assert "request_not_json 1 (such as a.parquet row 2)" in error
    assert read_manifests(site) == []


def test_rejects_within_the_ratio_are_committed_with_their_place(site):
    site.put("a.parquet", write_batch([call("a"), call("b", response="{oops")]))

    export(make_config(site, max_reject_ratio=0.5))

    (reject,) = read_rejects(site)
    assert list(reject) == ["reason", "detail", "batch", "row", "id", "raw"]
    assert (reject["reason"], reject["batch"], reject["row"]) == (
        "response_not_json",
        "a.parquet",
        1,
    )
    assert reject["raw"]["response"] == "{oops"


@pytest.mark.parametrize(
    ("kind", "compression"), [("file", "gzip"), ("file", "zstd"), ("file", "none"), ("s3", "zstd")]
)
def test_threads_do_not_alter_bytes(request, tmp_path, kind, compression):
    site = make_site(kind, request, tmp_path)
    put_many(site)
    found = []

    for threads in (1, 2, 4):
        config = many_config(site, f"-{threads}", compression=compression, threads=threads)
        export(config)
        found.append(written_bytes(site, f"-{threads}"))

    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 30


@pytest.mark.parametrize(
    ("kind", "executor"),
    [
        ("file", partial(ThreadPoolExecutor, 4)),
        ("s3", partial(ThreadPoolExecutor, 2)),
        ("file", partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))),
    ],
    ids=["file-threads", "s3-threads", "file-processes"],
)
def test_shards_in_pools_write_what_they_write_alone(
    request, tmp_path, monkeypatch, kind, executor
):
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 40_000)
    site = make_site(kind, request, tmp_path)
    put_many(site)
    alone = export(many_config(site, "-alone"))

    with executor() as pool:
        export(many_config(site, "-pool", threads=2), executor=pool)

    assert written_bytes(site, "-alone") == written_bytes(site, "-pool")
    shards = {Path(url).name.split("-")[2] for url in alone.data_files}
    assert len(shards) > 1


def test_shard_cut_alters_no_record(site, monkeypatch):
    put_many(site)
    whole = many_config(site, partition_by=[])
    export(whole)
    before, ledger = read_records(site), read_manifest(site, DAY_1).ledger
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 20_000)

    export(whole, force=True)

    assert read_records(site) == before
    assert read_manifest(site, DAY_1).ledger == ledger


def test_order_by_is_one_order_whatever_the_shard_size(site, monkeypatch):
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 20_000)
    put_many(site)

    export(
        many_config(
            site, partition_by=[], order_by="requested_at asc", extra_fields=["requested_at"]
        )
    )

    times = [json.loads(line)["requested_at"] for line in read_records(site)]
    assert times == sorted(times)


def test_text_that_is_not_utf8_does_not_alter_names_with_threads(site):
    from tests.builders import unchecked_text, write_table  # noqa: PLC0415 - this test alone

    rows = 10_000
    bad = [b'{"a":"\xff"}' if n == 9000 else b'{"n":%d}' % n for n in range(rows)]
    table = pa.table(
        {
            "id": [str(n) for n in range(rows)],
            "requested_at": pa.array([NOON] * rows, pa.timestamp("us", tz="UTC")),
            "model": [f"m{(n // 700) % 5}" for n in range(rows)],
            "status_code": pa.array([200 + n % 3 for n in range(rows)], pa.int32()),
            "request": unchecked_text(bad),
            "response": unchecked_text([b"{}"] * rows),
        }
    )
    site.put("a.parquet", write_table(table, row_group_size=2500))
    found = []

    for threads in (1, 2, 4):
        changes = {"partition_by": ["model", "status"], "threads": threads, "window": None}
        config = many_config(site, f"-{threads}", filters=[], exclude_errors=False, **changes)
        export(config)
        found.append(written_bytes(site, f"-{threads}"))

    assert found[0] == found[1] == found[2]


NASTY = ["plain", "with space", "ünïcode ✓", "100%", "a/b", "k=v", "..", "'quoted'", None]


@pytest.fixture
def nasty_site(site):
    site.put("a.parquet", write_batch([call(f"e{n}", model=m) for n, m in enumerate(NASTY)]))
    return site


def data_of(site):
    """How a reader gets at `data/`: a file system, and the path there."""
    return url_to_fs(f"{site.destination_url}/data", **site.storage_options)


def test_duckdb_reads_partition_values_back(nasty_site):
    export(make_config(nasty_site, partition_by=["model"]))

    fs, path = data_of(nasty_site)
    scheme = nasty_site.kind
    with duckdb.connect() as con:
        if scheme == "s3":
            con.register_filesystem(fs)
        found = con.execute(
            "select model from read_json($files, hive_partitioning = true)",
            {"files": f"{scheme}://{path}/**/*.jsonl.gz"},
        ).fetchall()

    assert {model for (model,) in found} == set(NASTY)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_pyarrow_reads_partition_values_back(nasty_site, compression):
    export(make_config(nasty_site, partition_by=["model"], compression=compression))

    partitioning = ds.partitioning(pa.schema({"model": pa.string()}), flavor="hive")
    fs, path = data_of(nasty_site)
    found = ds.dataset(path, format="json", partitioning=partitioning, filesystem=fs)

    assert set(found.to_table(columns=["model"]).column("model").to_pylist()) == set(NASTY)


def test_pandas_reads_the_files_that_an_export_names(nasty_site):
    committed = export(make_config(nasty_site, partition_by=["model"]))

    options = nasty_site.storage_options or None
    found = pd.concat(
        pd.read_json(url.removeprefix("file://"), lines=True, storage_options=options)
        for url in committed.data_files
    )
    assert list(found.columns) == ["input", "output", "tags"]
    assert len(found) == len(NASTY)


def test_nasty_values_are_partitions_of_their_own_on_any_store(site):
    site.put("a.parquet", write_batch([call(f"e{n}", model=m) for n, m in enumerate(NASTY)]))

    export(make_config(site, partition_by=["model"]))

    parts = read_manifest(site).parts
    assert {part.partition for part in parts} == {partition_path(["model"], [m]) for m in NASTY}
    entries = read_manifest_json(site)["export"]["parts"]
    assert {entry["partition"]["model"] for entry in entries} == set(NASTY)


def test_partitions_that_differ_in_case_alone_keep_their_records(site):
    site.put("a.parquet", write_batch([call("a", model="GPT"), call("b", model="gpt")]))

    export(make_config(site, partition_by=["model"]))

    assert sorted(names(site)) == ["a", "b"]
    assert len({part.path.rpartition("/")[2] for part in read_manifest(site).parts}) == 2


def test_one_of_two_runs_at_once_commits(site, monkeypatch):
    put_two_days(site)
    config = make_config(site)
    barrier = pipelines.accounting.check_rejects
    from threading import Barrier  # noqa: PLC0415 - this test alone

    meet = Barrier(2, timeout=60)

    def wait(*args):
        barrier(*args)
        meet.wait()

    monkeypatch.setattr(pipelines.export, "check_rejects", wait)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_export, config, now=NOW) for _ in range(2)]
    found = [run.result().windows[0] for run in runs]

    assert sorted(window.status for window in found) == ["committed", "committed by another run"]
    assert found[0].data_files == found[1].data_files != ()
    assert found[0].manifest == found[1].manifest
    assert not any(window.error for window in found)
    assert read_manifest(site).generation == 1


@pytest.mark.parametrize("same", [True, False], ids=["same-inputs", "other-inputs"])
def test_run_that_comes_second_says_who_was_first_and_when(site, monkeypatch, same):
    put_two_days(site)
    check = pipelines.accounting.check_rejects
    rivals: list[Any] = []

    def overtake(*args):
        check(*args)
        if not rivals:
            rivals.append(None)
            rivals[0] = export(make_config(site, where=None if same else "model = 'o1'"))

    monkeypatch.setattr(pipelines.export, "check_rejects", overtake)

    (window,) = export(make_config(site)).windows

    first = read_manifest(site)
    said = f"already committed by run {first.run_id} at {first.committed_at}"
    assert window.status == "committed by another run"
    assert window.detail.startswith(said)
    assert ("from other inputs" in window.detail) is not same
    assert window.data_files == rivals[0].data_files


def test_part_that_is_gone_before_the_commit_fails_the_window(site, monkeypatch):
    put_two_days(site)
    check = pipelines.accounting.check_rejects

    def lose_a_part(*args):
        check(*args)
        site.destination.delete(args[3].parts[0].path)

    monkeypatch.setattr(pipelines.export, "check_rejects", lose_a_part)
    summary = run_export(make_config(site), now=NOW)

    assert "is not there" in summary.failed[0].error
    assert read_manifests(site) == []


def test_ledger_that_does_not_add_up_fails_the_window(site, monkeypatch):
    put_two_days(site)
    run = run_shard

    def miscount(work, progress=None):
        result = run(work, progress)
        result.read[0] += 1
        return result

    monkeypatch.setattr(pipelines.export, "run_shard", miscount)
    summary = run_export(make_config(site), now=NOW)

    assert (
        "a.parquet: the ledger does not add up: read 3, accounted for 2" in summary.failed[0].error
    )
    assert read_manifests(site) == []


def test_lost_answer_to_the_own_commit_counts_as_committed(site, monkeypatch):
    put_two_days(site)
    create = Store.create

    def lose_answer(store, path, data):
        created = create(store, path, data)
        return created and "manifests" not in path

    monkeypatch.setattr(Store, "create", lose_answer)
    summary = export(make_config(site))

    assert [window.status for window in summary.windows] == ["committed"]


def test_failed_run_leaves_what_was_committed(site):
    put_two_days(site)
    config = make_config(site)
    export(config)
    site.put("d.parquet", write_batch([call("d1", response="{")]))

    summary = run_export(config, now=NOW)

    assert summary.failed
    assert read_manifest(site).generation == 1
    assert len(names(site)) == 5


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        pytest.param({"name": "other"}, "belongs to another export", id="name"),
        pytest.param({"window": {"every": "1h"}}, "belongs to another grid", id="grid"),
    ],
)
def test_destination_of_another_export_is_refused(site, changes, what):
    put_two_days(site)
    export(two_days_config(site), now=AFTER)
    before = snapshot(site)

    with pytest.raises(ConfigError, match=what):
        export(two_days_config(site, **changes), now=AFTER)

    assert snapshot(site) == before


def test_destination_of_another_source_is_refused(site):
    put_two_days(site)
    export(make_config(site))
    other = f"{site.source_url}-other"
    site.put("a.parquet", write_batch([call("a")]), url=other)

    with pytest.raises(ConfigError, match="belongs to another source"):
        export(make_config(site, source={"url": other}))


def test_run_that_writes_nothing_claims_no_destination(site):
    summary = export(make_config(site, source={"url": f"{site.source_url}-misspelt"}))

    assert (summary.batches, summary.windows) == (0, ())
    assert site.paths() == []


def test_extra_fields_follow_the_three_keys_in_order(site):
    site.put("a.parquet", write_batch([call("a")]))

    export(make_config(site, extra_fields=["id", "requested_at", "status_code"]))

    record = json.loads(read_records(site)[0])
    assert list(record) == ["input", "output", "tags", "id", "requested_at", "status_code"]
    assert record["requested_at"] == "2024-06-01T12:00:00.000000Z"


def test_rejects_are_gzip_whatever_the_compression(site):
    site.put("a.parquet", write_batch([call("a"), call("b", response="{")]))

    export(make_config(site, compression="none", max_reject_ratio=1))

    (rejects,) = read_manifest(site).rejects
    assert gzip.decompress(site.destination.read_bytes(rejects.path)).count(b"\n") == 1
