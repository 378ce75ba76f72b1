"""Garbage: what is removed, what never is, and commits that keep out of its way."""

import json
import logging
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import count
from time import monotonic

import pytest

import pipelines.garbage
import pipelines.plan
from pipelines import shard
from pipelines.deadline import Deadline
from pipelines.errors import QualityError, StorageError
from pipelines.export import run_export
from pipelines.garbage import collect_garbage, find_garbage
from pipelines.layout import parse_part, parse_rejects
from pipelines.local import Directory
from pipelines.s3 import Bucket
from pipelines.storage import Store
from pipelines.upkeep import sweep_export
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
    write_batch,
)

HOUR = 3600
DAILY = {"every": "1d", "lag": "20m", "start": "2024-06-01"}
EVERYTHING_IS_OLD = -60  # a grace below zero: S3 tells times in whole seconds


@pytest.fixture
def aged(monkeypatch):
    """Seconds by which objects are older than they are, by what their paths contain."""
    ages: dict[str, float] = {}

    def older(found):
        if found is None:
            return None
        seconds = max((age for text, age in ages.items() if text in found.path), default=0)
        return replace(found, modified_at=found.modified_at - seconds)

    list_objects, stat = Store.list_objects, Store.stat
    monkeypatch.setattr(
        Store, "list_objects", lambda *args, **options: map(older, list_objects(*args, **options))
    )
    monkeypatch.setattr(Store, "stat", lambda *args: older(stat(*args)))
    return ages


@pytest.fixture
def models(site):
    """A source of three models, and the config that exports those named; none exports all."""
    rows = events([{"model": "a"}, {"model": "b"}, {"model": "c", "response": "{"}])
    site.put("a.parquet", write_batch(rows))

    def config(*chosen, **changes):
        settings = {"partition_by": ["model"], "max_reject_ratio": 1, **changes}
        if chosen:
            names = ", ".join(f"'{model}'" for model in chosen)
            settings["where"] = f"model in ({names})"
        return make_config(site, **settings)

    return config


def collect(site, *, keep_generations=1, grace_seconds=HOUR, **options):
    return collect_garbage(
        site.destination, keep_generations=keep_generations, grace_seconds=grace_seconds, **options
    )


def find(site, *, keep_generations=1, grace_seconds=HOUR):
    return find_garbage(
        site.destination, keep_generations=keep_generations, grace_seconds=grace_seconds
    )


def written(site):
    """Paths of all parts and rejects, committed or not."""
    return {path for path in site.paths() if parse_part(path) or parse_rejects(path)}


def named(manifest):
    return {part.path for part in (*manifest.parts, *manifest.rejects)}


def paths(garbage):
    return {found.path for found in garbage.objects}


def is_sound(config):
    """Whether every newest generation has all it names, byte for byte."""
    return not verify_export(config, deep=True).problems


def test_superseded_parts_stay_during_the_grace_and_go_after_it(site, models, aged):
    export(models())
    first = named(read_manifest(site))
    export(models("a"))
    manifests = [path for path in site.paths() if "manifests" in path]

    during = collect(site)
    aged[""] = HOUR + 60
    after = collect(site)

    assert during.objects == ()
    assert len(first) == 3
    assert paths(after) == first
    assert written(site) == named(read_manifest(site))
    assert [path for path in site.paths() if "manifests" in path] == manifests
    assert is_sound(models())


def test_nothing_younger_than_the_grace_is_removed(site, models, aged):
    export(models())
    export(models("a"))
    aged[""] = HOUR - 60

    assert collect(site).objects == ()


def test_kept_generations_keep_their_parts(site, models, aged):
    generations = []
    for chosen in ("a", "b", "c"):
        export(models(chosen, destination={"keep_generations": 2}))
        generations.append(named(read_manifest(site)))
    aged[""] = 2 * HOUR

    removed = collect(site, keep_generations=2)

    assert paths(removed) == generations[0]
    assert written(site) == generations[1] | generations[2]


def test_reader_of_the_generation_before_finds_its_parts(site, models, aged):
    export(models())
    reading = read_manifest(site)
    aged["data/"] = aged["rejects/"] = aged["00000001.json"] = 24 * HOUR
    export(models("a", "b"))

    collect(site)

    for part in reading.parts:
        assert len(site.destination.read_bytes(part.path)) == part.bytes


def test_parts_go_once_the_manifest_that_pushed_them_out_is_old(site, models, aged):
    export(models())
    first = named(read_manifest(site))
    aged["data/"] = aged["rejects/"] = aged["00000001.json"] = 24 * HOUR
    export(models("a", "b"))
    aged["00000002.json"] = HOUR + 60

    assert paths(collect(site)) == first


def test_parts_that_no_manifest_names_go(site, models, aged, monkeypatch):
    def fail(*_, **__):
        raise StorageError("killed")

    monkeypatch.setattr(pipelines.export, "commit", fail)
    run_export(models(), now=NOW)
    aged[""] = 2 * HOUR

    removed = collect(site)

    assert len(removed.objects) == 3
    assert written(site) == set()


def test_other_windows_lose_nothing(site, aged):
    days = ["2024-06-01T09:00:00+00:00", "2024-06-02T09:00:00+00:00", None]
    rows = [
        event(id=str(number), requested_at=None if day is None else NOW.fromisoformat(day))
        for number, day in enumerate(days)
    ]
    site.put("a.parquet", write_batch(rows))
    settings = {"window": DAILY, "max_reject_ratio": 1}
    export(make_config(site, **settings))
    site.put("b.parquet", write_batch([event(id="late", requested_at=rows[1]["requested_at"])]))
    export(make_config(site, **settings))
    aged[""] = 2 * HOUR

    removed = collect(site)

    (path,) = paths(removed)
    assert "/20240602T000000Z-" in path
    assert written(site) == {path for manifest in read_manifests(site) for path in named(manifest)}
    assert is_sound(make_config(site, **settings))


def test_windows_without_old_objects_cost_no_read(site, models, aged, monkeypatch):
    export(models())
    reads: list[str] = []
    read_bytes = Store.read_bytes

    def count(store, path, **options):
        reads.append(path)
        return read_bytes(store, path, **options)

    monkeypatch.setattr(Store, "read_bytes", count)

    find(site)
    young = list(reads)
    aged[""] = 2 * HOUR
    find(site)

    assert young == []
    assert reads == ["_meta/manifests/all/00000001.json"]


def test_foreign_objects_are_left_and_reported(site, models, aged):
    export(models())
    foreign = {"data/model=a/notes.jsonl", "data/README.md", "_meta/rejects/all/notes.txt"}
    for path in foreign:
        site.put(path, b"mine", url=site.destination_url)
    aged[""] = 2 * HOUR

    removed = collect(site)

    assert removed.objects == ()
    assert set(removed.foreign) == foreign
    assert foreign < set(site.paths())


def test_dry_run_removes_nothing(site, models, aged):
    export(models())
    first = named(read_manifest(site))
    export(models("a"))
    aged[""] = 2 * HOUR
    before = site.paths()

    found = find(site)

    assert paths(found) == first
    assert found.bytes > 0
    assert site.paths() == before


@pytest.fixture
def hours_later(monkeypatch):
    """Put the store's clock ahead, once called."""
    on_disk, on_s3 = Directory.read_clock, Bucket.read_clock

    def put_ahead():
        monkeypatch.setattr(Directory, "read_clock", lambda place: on_disk(place) + 2 * HOUR)
        monkeypatch.setattr(Bucket, "read_clock", lambda place: on_s3(place) + 2 * HOUR)

    return put_ahead


def test_uploads_of_dead_runs_are_aborted(site, hours_later):
    writer = site.destination.open_writer("data/x")
    writer.write(bytes(9 * 1024**2))

    young = collect(site).leftovers
    hours_later()
    found, removed, left = find(site).leftovers, collect(site).leftovers, find(site).leftovers

    assert (young, found, removed, left) == (0, 1, 1, 0)
    writer.abort()


def test_uploads_of_runs_under_way_are_left(site, models, aged):
    aged["data/"] = 2 * HOUR
    with site.destination.open_writer("data/x") as writer:
        writer.write(bytes(9 * 1024**2))
        export(models())
        assert writer.commit()

    assert site.destination.read_bytes("data/x") == bytes(9 * 1024**2)


def test_probes_of_dead_runs_are_removed(s3_site, hours_later):
    s3_site.destination.create("_meta/tmp/probe-1", b"")

    hours_later()

    assert paths(collect(s3_site)) == {"_meta/tmp/probe-1"}
    assert s3_site.paths() == []


@pytest.mark.parametrize("few", [0, 100])
def test_clean_up_after_a_run_removes_what_is_old_of_its_windows(
    site, models, aged, monkeypatch, few
):
    monkeypatch.setattr(pipelines.garbage, "_FEW_WINDOWS", few)
    export(models())
    first = named(read_manifest(site))
    export(models("a", "b"))
    second = named(read_manifest(site))
    for text in ("data/", "rejects/", "00000001.json", "00000002.json"):
        aged[text] = 2 * HOUR

    export(models("b"))

    assert written(site) == second | named(read_manifest(site))
    assert not first & written(site)
    assert is_sound(models())


def test_clean_up_looks_only_into_the_windows_of_the_run(site, aged):
    site.put("a.parquet", write_batch([event()]))
    export(make_config(site, window=DAILY), now=NOW)
    stray = read_manifest(site, "20240601T000000Z_20240602T000000Z").parts[0].path
    strays = [stray.replace("T000000Z-", f"T{hour}0000Z-") for hour in ("01", "02")]
    for path in strays:
        site.destination.create(path, b"")
    aged[""] = 2 * HOUR

    removed = collect(site, windows=["20240601T010000Z_20240601T020000Z"])
    export(make_config(site, window=DAILY, where="model = 'x'"), now=NOW)

    assert removed.objects == ()  # no generation of that window names a partition
    assert set(strays) <= written(site)


def test_failed_clean_up_is_a_warning(models, monkeypatch, caplog):
    def refuse(*_, **__):
        raise StorageError("denied")

    monkeypatch.setattr(pipelines.garbage, "collect_garbage", refuse)
    with caplog.at_level(logging.WARNING, "pipelines"):
        summary = export(models())

    assert len(summary.written) == 1
    assert "the clean-up after the commits failed" in caplog.text
    assert "denied" in caplog.text


def test_damaged_manifest_stops_the_removal(site, models, aged):
    export(models())
    export(models("a"))
    path = read_manifest(site).path
    site.put(path, b"{", url=site.destination_url)
    aged[""] = 2 * HOUR
    before = site.paths()

    with pytest.raises(QualityError, match=r"00000002\.json: not a manifest"):
        collect(site)

    assert site.paths() == before


# -- inputs that return to an earlier state


def test_inputs_that_return_soon_reuse_their_parts(site, models):
    export(models())
    first = read_manifest(site)
    export(models("a"))

    export(models())

    assert read_manifest(site).generation == 3
    assert read_manifest(site).parts == first.parts
    assert is_sound(models())


def test_inputs_that_return_late_get_parts_of_their_own(site, models, aged):
    export(models())
    first, records = named(read_manifest(site)), read_records(site)
    export(models("a"))
    aged[""] = HOUR  # more than half of the grace, no more than the grace
    aged["_a1"] = aged["-a1"] = 0

    export(models())

    again = named(read_manifest(site))
    assert {path.replace("-a1.", ".") for path in again} == first
    assert not again & first
    assert read_records(site) == records
    assert is_sound(models())


def test_inputs_that_return_after_a_collection_are_right(site, models):
    export(models())
    records = read_records(site)
    export(models("a"))
    collect(site, grace_seconds=EVERYTHING_IS_OLD)

    export(models())

    assert read_records(site) == records
    assert is_sound(models())


def test_collection_spares_what_is_committed_after_its_listing(site, models, monkeypatch):
    export(models())
    first = named(read_manifest(site))
    export(models("a"))
    search = pipelines.garbage._Search  # noqa: SLF001 - the moment between listing and removal
    still_unnamed = search.still_unnamed
    seen: list[set[str]] = []

    def commit_in_between(self, objects):
        if seen:
            export(models())
        found = still_unnamed(self, objects)
        seen.append({entry.path for entry in found})
        return found

    monkeypatch.setattr(search, "still_unnamed", commit_in_between)
    monkeypatch.setattr(pipelines.export, "clean_up", lambda *_: None)
    removed = collect(site, grace_seconds=EVERYTHING_IS_OLD)

    assert seen == [first, set()]
    assert removed.objects == ()
    assert is_sound(models())


def test_forced_run_reuses_old_parts_that_are_committed(site, models, aged):
    export(models())
    first = read_manifest(site)
    aged[""] = 24 * HOUR

    export(models(), force=True)

    assert read_manifest(site).generation == 2
    assert read_manifest(site).parts == first.parts
    assert read_manifest(site).rejects == first.rejects


def test_foreign_bytes_under_the_name_of_rejects_fail_no_window(site, models):
    export(models())
    (rejects,) = read_manifest(site).rejects
    site.put(rejects.path, b"other", url=site.destination_url)

    export(models(), force=True)

    (again,) = read_manifest(site).rejects
    assert again.path == rejects.path.replace(".jsonl", "-a1.jsonl")
    assert site.destination.read_bytes(rejects.path) == b"other"
    assert is_sound(models())


def test_window_without_a_free_name_says_what_to_do(site, monkeypatch):
    site.put("a.parquet", write_batch([event()]))
    monkeypatch.setattr(shard, "_ATTEMPTS", 1)
    config = make_config(site)
    export(config)
    site.put(read_manifest(site).parts[0].path, b"x", url=site.destination_url)

    (window,) = run_export(config, now=NOW, force=True).failed

    assert "exists with other bytes" in window.error
    assert "request-logs gc --delete" in window.error


# -- runs that take too long


def test_run_longer_than_half_of_the_grace_commits_nothing(site, models, monkeypatch):
    monkeypatch.setattr("pipelines.deadline.monotonic", count(0.0, 1801.0).__next__)

    (window,) = run_export(models(), now=NOW).failed

    assert "more than half of destination.grace (1:00:00)" in window.error
    assert read_manifests(site) == []


def test_deadline_tells_the_age_and_what_to_do(monkeypatch):
    monkeypatch.setattr("pipelines.deadline.monotonic", lambda: 1801.0)
    deadline = Deadline("all", timedelta(hours=1), started=0.0)

    with pytest.raises(QualityError, match=r"taken 0:30:01, .* raise destination\.grace, or take"):
        deadline.check()
    Deadline("all", timedelta(hours=1), started=1.0).check()


def test_run_that_is_late_at_the_manifest_alone_commits_nothing(site, models, monkeypatch):
    calls: Counter[str] = Counter()

    def late_at_last():
        calls["all"] += 1
        return monotonic() + (1801 if calls["all"] > 2 else 0)

    monkeypatch.setattr("pipelines.deadline.monotonic", late_at_last)

    (window,) = run_export(models(), now=NOW).failed

    assert calls["all"] == 3  # begun, a shard done, the manifest
    assert "Nothing was committed" in window.error
    assert read_manifests(site) == []


def test_late_run_stops_between_shards(site, monkeypatch):
    for name in "abc":
        site.put(f"{name}.parquet", write_batch(events([{"id": name}] * 20)))
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 1)
    monkeypatch.setattr("pipelines.deadline.monotonic", count(0.0, 1801.0).__next__)
    runs = []

    def noted(*args):
        runs.append(args)
        return shard.run_shard(*args)

    monkeypatch.setattr(pipelines.export, "run_shard", noted)

    summary = run_export(make_config(site), now=NOW)

    assert len(summary.failed) == 1
    assert len(runs) == 1


def test_longer_grace_gives_more_time(site, monkeypatch):
    site.put("a.parquet", write_batch([event()]))
    monkeypatch.setattr("pipelines.deadline.monotonic", count(0.0, 901.0).__next__)

    export(make_config(site, destination={"grace": "2h"}))

    assert len(read_manifests(site)) == 1


def test_settings_of_the_clean_up_are_no_change_of_the_config(models):
    export(models())

    again = export(models(destination={"grace": "1d", "keep_generations": 5}))

    assert [window.status for window in again.windows] == ["up to date"]


def test_sweep_takes_keep_and_grace_from_the_config(models, aged):
    export(models())
    export(models("a"))
    aged[""] = 2 * HOUR

    long = sweep_export(models(destination={"grace": "3h"}), delete=True)
    many = sweep_export(models(destination={"keep_generations": 2}), delete=True)
    found = sweep_export(models(), delete=False)

    assert (long.objects, many.objects) == ((), ())
    assert json.dumps(sorted(paths(found))).count("jsonl.gz") == 3
