"""Shards on Dask: the same bytes, workers that die or do not fit, a scheduler that goes away."""

import asyncio
import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest

import pipelines.cluster
import pipelines.plan
from pipelines.cluster import scheduler_address
from pipelines.errors import ConfigError, ExecutorError
from pipelines.export import run_export
from tests.builders import (
    NOW,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    write_batch,
)
from tests.dask_cluster import SOCKETS_LEFT, collected, run_cluster  # noqa: F401 - a fixture
from tests.many import NOON, many_config, put_many, written_bytes

pytestmark = SOCKETS_LEFT
SHARD_BYTES = 40_000
EVENTS = 20_000


@pytest.fixture(scope="module")
def cluster(s3, tmp_path_factory):
    """Two workers that may use the S3 server."""
    with run_cluster(tmp_path_factory.mktemp("dask"), **s3.environment(s3.admin)) as found:
        yield found


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", SHARD_BYTES)


def dask_config(site, address, destination="-dask", **changes):
    return many_config(site, destination, executor="dask", address=address, **changes)


def put_large(site):
    """Batches of which a shard takes many reads."""
    rows = events({"response": json.dumps("x" * 3000)} for _ in range(EVENTS))
    for number in range(4):
        site.put(f"{number}.parquet", write_batch(rows[number::4], row_group_size=1000))


def large_config(site, address, destination="", **changes):
    there = {"url": f"{site.destination_url}{destination}"}
    return make_config(site, executor="dask", address=address, destination=there, **changes)


class KillAtFirstReport:
    """Progress that ends a process with SIGKILL as soon as a shard is under way."""

    def __init__(self, process):
        self._process = process
        self._once = threading.Lock()
        self.events = 0

    def __call__(self, events, _line_bytes):
        self.events += events
        if self._once.acquire(blocking=False):
            self._process.kill()


def test_cluster_writes_what_one_process_writes(site, cluster):
    put_many(site)
    export(many_config(site, "-alone", executor="threads"))

    done = export(dask_config(site, cluster.address))

    assert not done.failed
    assert written_bytes(site, "-alone") == written_bytes(site, "-dask")
    assert len({Path(url).name.split("-")[2] for url in done.data_files}) > 2


def test_progress_comes_back_and_is_told_once(file_site, cluster):
    told = []
    put_large(file_site)

    def tell(events, line_bytes):
        with pytest.raises(RuntimeError):  # whoever is told may wait, for Prefect's server say
            asyncio.get_running_loop()
        told.append((events, line_bytes))

    done = run_export(large_config(file_site, cluster.address), now=NOW, progress=tell)

    assert len(told) > 1
    assert sum(events for events, _ in told) == EVENTS
    assert sum(size for _, size in told) == done.windows[0].raw_bytes


def test_shards_of_a_killed_worker_run_on_another(file_site, tmp_path):
    put_large(file_site)
    export(make_config(file_site, executor="threads"))
    alone = written_bytes(file_site)

    with run_cluster(tmp_path) as cluster:
        kill = KillAtFirstReport(cluster.workers["one"])
        config = large_config(file_site, cluster.address, "-dask")
        done = run_export(config, now=NOW, progress=kill)

    assert not done.failed
    assert kill.events == EVENTS
    assert written_bytes(file_site, "-dask") == alone


def test_a_shard_that_kills_every_worker_ends_the_window(file_site, tmp_path):
    put_large(file_site)

    with run_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster:
        kill = KillAtFirstReport(cluster.workers["one"])
        config = large_config(file_site, cluster.address)
        done = run_export(config, now=NOW, progress=kill)

    (window,) = done.failed
    assert "1 worker died while running one shard" in window.error
    assert "memory" in window.error


def test_a_lost_scheduler_fails_the_run_and_the_next_finishes(file_site, tmp_path):
    put_large(file_site)

    with run_cluster(tmp_path) as cluster:
        kill = KillAtFirstReport(cluster.scheduler)
        config = large_config(file_site, cluster.address)
        done = run_export(config, now=NOW, progress=kill)

    (window,) = done.failed
    assert f"the Dask scheduler {cluster.address} was lost" in window.error
    again = export(config.model_copy(update={"executor": "threads", "address": None}))
    assert [w.status for w in again.windows] == ["committed"]
    assert read_manifest(file_site).generation == 1
    assert len(read_records(file_site)) == EVENTS


def test_a_lost_scheduler_fails_every_window_that_is_left(file_site, tmp_path):
    days = [NOON + timedelta(days=day) for day in range(12)]
    rows = events({"requested_at": at, "response": json.dumps("x" * 3000)} for at in days * 300)
    file_site.put("days.parquet", write_batch(rows))

    with run_cluster(tmp_path) as cluster:
        kill = KillAtFirstReport(cluster.scheduler)
        config = large_config(file_site, cluster.address, window={"every": "1d"})
        done = run_export(config, now=NOW, progress=kill)

    assert len(done.failed) > 5
    assert all("was lost" in window.error for window in done.failed), done.failed


@pytest.mark.s3
def test_a_worker_without_credentials_is_named(s3_site, tmp_path):
    put_many(s3_site)
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent"}
    nowhere["AWS_SHARED_CREDENTIALS_FILE"] = "/nonexistent"

    with run_cluster(tmp_path, workers=("poor",), **nowhere) as cluster:
        done = run_export(dask_config(s3_site, cluster.address), now=NOW)

    assert done.failed
    assert all("credentials" in window.error for window in done.failed)
    assert all("on worker poor at tcp://127.0.0.1:" in window.error for window in done.failed)


@pytest.fixture
def other_versions(tmp_path):
    """A folder that makes Python believe that it has another version of this package."""
    found = tmp_path / "other" / "request_log_export-0.0.9.dist-info"
    found.mkdir(parents=True)
    found.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: request-log-export\nVersion: 0.0.9\n"
    )
    return str(found.parent)


def test_a_worker_with_another_version_is_named_before_any_shard(
    file_site, tmp_path, other_versions
):
    put_many(file_site)

    with run_cluster(tmp_path, workers=()) as cluster:
        cluster.start_worker("old", path=other_versions)
        with pytest.raises(ExecutorError, match=r"worker tcp://\S+ has request-log-export 0\.0\.9"):
            export(dask_config(file_site, cluster.address))

    assert not written_bytes(file_site, "-dask")


def replace_worker(cluster, once, **options):
    """Progress that puts another worker in the place of the only one as soon as a shard runs."""

    def replace(_events, _line_bytes):
        if once.acquire(blocking=False):
            cluster.start_worker("later", **options)
            cluster.workers["first"].kill()

    return replace


def test_a_worker_that_comes_later_takes_over(file_site, tmp_path):
    put_large(file_site)

    with run_cluster(tmp_path, workers=("first",)) as cluster:
        done = run_export(
            large_config(file_site, cluster.address),
            now=NOW,
            progress=replace_worker(cluster, threading.Lock()),
        )

    assert not done.failed
    assert len(read_records(file_site)) == EVENTS


def test_a_worker_that_comes_later_with_another_version_gets_nothing_and_is_named(
    file_site, tmp_path, other_versions, monkeypatch
):
    put_large(file_site)
    monkeypatch.setattr(pipelines.cluster, "_SECONDS_WITHOUT_WORKERS", 2.0)

    with run_cluster(tmp_path, workers=("first",)) as cluster:
        done = run_export(
            large_config(file_site, cluster.address),
            now=NOW,
            progress=replace_worker(cluster, threading.Lock(), path=other_versions),
        )

    (window,) = done.failed
    assert "has had no worker that fits for 2 s; worker tcp://127.0.0.1:" in window.error
    assert "has request-log-export 0.0.9, and this run" in window.error


def test_a_scheduler_without_workers_is_told(file_site, tmp_path, monkeypatch):
    put_many(file_site)
    monkeypatch.setattr(pipelines.cluster, "_SECONDS_TO_CONNECT", 1.0)

    with (
        run_cluster(tmp_path, workers=()) as cluster,
        pytest.raises(ExecutorError, match="has no worker: start one with `dask worker tcp://"),
    ):
        export(dask_config(file_site, cluster.address))


def test_nobody_at_the_address_is_told(file_site, monkeypatch):
    put_many(file_site)
    monkeypatch.setattr(pipelines.cluster, "_SECONDS_TO_CONNECT", 1.0)

    with pytest.raises(ExecutorError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: "):
        export(dask_config(file_site, "tcp://127.0.0.1:9"))


def test_nothing_to_do_asks_no_cluster(file_site):
    put_many(file_site)
    export(many_config(file_site))

    done = export(dask_config(file_site, "tcp://127.0.0.1:9", ""))

    assert {window.status for window in done.windows} == {"up to date"}


def test_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://here:1")

    assert scheduler_address(None) == "tcp://here:1"
    assert scheduler_address("tcp://there:2") == "tcp://there:2"


def test_no_address_is_an_error_before_anything_is_touched(file_site, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    put_many(file_site)

    with pytest.raises(ConfigError, match="address: tcp://host:8786"):
        export(dask_config(file_site, None))

    assert file_site.paths() == []


def test_dask_that_is_not_installed_is_an_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=r"pip install 'request-log-export\[dask\]'"):
        scheduler_address("tcp://there:2")
