"""A store that fails: exports end whole and alike, or soon and with what to do."""

import re
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.errors import StorageError, ThrottledError
from pipelines.export import run_export
from pipelines.storage import open_store
from tests.builders import events, make_config, read_manifests, write_batch
from tests.conftest import Site, forget_connections, use_identity
from tests.fault_proxy import KINDS, Faults, fault_proxy

pytestmark = pytest.mark.s3

START, END = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 6, 3, tzinfo=UTC)
RATE = 0.3
SEED = 10
READ_TIMEOUT = 0.3
BIG = bytes(range(256)) * (20 * 1024 * 1024 // 256)
MANIFEST = r"^PUT .*/_meta/manifests/"


class Bench:
    """One source on S3, a clean export of it, and a proxy to break others."""

    def __init__(self, server, proxy):
        self.server = server
        self.proxy = proxy
        self.source_url = f"s3://raw/faults-{uuid.uuid4().hex[:12]}"
        self.rows = []  # of the table: fault, rate, outcome, requests, of them broken
        source = self.site()
        for number in range(4):
            # Two days, and one batch across the midnight between them.
            first = START + timedelta(hours=3 + 12 * number)
            changes = [
                {
                    "id": f"{number}-{event}",
                    "requested_at": first + timedelta(minutes=20 * event),
                    "model": ("gpt-4o", "gpt-4o-mini")[event % 2],
                    "request": '{"messages":[' if event == 7 * number else "{}",
                }
                for event in range(30)
            ]
            source.put(f"{number}.parquet", write_batch(events(changes)))
        clean = self.site()
        self.export(clean)
        self.clean = self.content(clean)
        self.clean_requests = len(proxy.log)
        self.rows.append(("none", 0, "committed", self.clean_requests, 0))

    def site(self):
        """A fresh destination, seen without the proxy."""
        url = f"s3://exports/faults-{uuid.uuid4().hex[:12]}"
        options = {"endpoint_url": self.server.endpoint}
        return Site("s3", self.source_url, url, options, self.server)

    def config(self, site, **config_kwargs):
        """The export to a site, through the proxy."""
        settings = {"read_timeout": READ_TIMEOUT, **config_kwargs}
        options = {"endpoint_url": self.proxy.endpoint, "config_kwargs": settings}
        return make_config(
            replace(site, storage_options=options),
            window={"every": "1d", "start": "2024-06-01"},
            partition_by=["date", "model"],
            max_reject_ratio=1,
        )

    def export(self, site, **options):
        config = self.config(site)
        return run_export(config, now=END + timedelta(days=1), start=START, end=END, **options)

    def content(self, site):
        """What is committed, without what names the run."""
        objects = {
            path: site.destination.read_bytes(path)
            for path in site.paths()
            if path.startswith(("data/", "_meta/rejects/"))
        }
        manifests = [
            replace(manifest, run_id="", committed_at="", destination="", config={})
            for manifest in read_manifests(site)
        ]
        return objects, manifests


@pytest.fixture(scope="module")
def shared(s3):
    with pytest.MonkeyPatch.context() as patch, fault_proxy(s3.endpoint) as proxy:
        use_identity(patch, s3, s3.admin)
        bench = Bench(s3, proxy)
        yield bench
        forget_connections()
    sys.stdout.write(
        "\n| fault | rate | outcome | requests | broken |\n| --- | --- | --- | --- | --- |\n"
    )
    for row in bench.rows:
        sys.stdout.write(f"| {' | '.join(map(str, row))} |\n")


@pytest.fixture
def bench(shared):
    """The bench, with a proxy that breaks nothing and connections without a history."""
    forget_connections()
    shared.proxy.use(Faults())
    return shared


def record(bench, fault, rate, outcome):
    broken = bench.proxy.faults().total()
    bench.rows.append((fault, f"{rate:.0%}", outcome, len(bench.proxy.log), broken))


@pytest.mark.parametrize("kinds", [*[(kind,) for kind in KINDS], tuple(KINDS)], ids="+".join)
def test_export_is_the_same_where_a_third_of_requests_fail(bench, kinds):
    site = bench.site()
    bench.proxy.use(Faults(kinds, RATE, SEED))

    summary = bench.export(site)

    record(bench, "mixed" if len(kinds) > 1 else kinds[0], RATE, "committed, same bytes")
    assert [window.status for window in summary.windows] == ["committed", "committed"]
    assert bench.content(site) == bench.clean
    assert bench.proxy.faults().keys() >= set(kinds if len(kinds) == 1 else ())


@pytest.fixture
def half(bench):
    """A destination with the first day committed."""
    site = bench.site()
    config = bench.config(site)
    run_export(config, now=END, start=START, end=START + timedelta(days=1))
    return site


def run_cli(bench, site, folder, attempts=2, end=END):
    """Export days by the command line; return its exit code and what stderr says."""
    document = bench.config(site, retries={"total_max_attempts": attempts}).model_dump(
        mode="json", exclude_unset=True
    )
    path = folder / "export.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    days = ["--start", START.isoformat(), "--end", end.isoformat()]
    result = CliRunner().invoke(app, ["export", str(path), *days])
    assert "Traceback" not in result.output
    return result.exit_code, result.stderr


# Not slow, which is no failure; and of `lost` the first put, of the owner record or a part.
DEAD = [kind for kind in KINDS if kind != "slow"]


@pytest.mark.parametrize("kind", DEAD)
def test_dead_store_ends_a_run_with_what_to_do(bench, half, tmp_path, kind):
    before = bench.content(half)
    bench.proxy.use(Faults((kind,), rate=1))

    code, said = run_cli(bench, half, tmp_path)

    record(bench, kind, 1, "exit 1, commits as before")
    assert code == 1
    assert re.search(r"cannot (list|read|look at|create|write) s3://(raw|exports)/faults-", said)
    assert ("check the credentials" if kind == "403" else "run again") in said
    assert not re.search(r"secret|X-Amz|Signature|\?list-type", said)
    assert bench.content(half)[1] == before[1]
    assert bench.content(half)[0].items() >= before[0].items()


@pytest.mark.parametrize("kind", ["500", "reset", "403"])
def test_dead_store_at_the_commit_leaves_the_window_to_the_next_run(bench, half, tmp_path, kind):
    committed = bench.content(half)[1]
    bench.proxy.use(Faults((kind,), rate=1, matching=MANIFEST))

    code, said = run_cli(bench, half, tmp_path)

    assert code == 1
    assert re.search(r"cannot create s3://exports/.*/_meta/manifests/.*/00000001\.json", said)
    assert bench.content(half)[1] == committed
    bench.proxy.use(Faults())
    bench.export(half)
    assert bench.content(half) == bench.clean


def test_own_commit_is_recognised_when_its_answer_was_lost(bench):
    site = bench.site()
    bench.proxy.use(Faults(("lost",), rate=1, matching=MANIFEST, at_most=3))
    summary = bench.export(site)

    record(bench, "lost, 3 puts of a manifest", 1, "own commit recognised")
    assert bench.proxy.faults() == {"lost": 3}
    assert [window.status for window in summary.windows] == ["committed", "committed"]
    assert [path for path in site.paths() if "/manifests/" in path] == [
        manifest.path for manifest in read_manifests(site)
    ]
    assert bench.content(site) == bench.clean


@pytest.mark.parametrize("what", ["data", "_meta/rejects", "_meta/owner.json"])
def test_object_is_used_when_the_answer_to_its_put_was_lost(bench, what):
    site = bench.site()
    bench.proxy.use(Faults(("lost",), rate=1, matching=rf"^PUT .*/{what}", at_most=1))

    bench.export(site)

    assert bench.proxy.faults() == {"lost": 1}
    assert bench.content(site) == bench.clean


def test_large_objects_pass_a_faulty_store_whole(bench, tmp_path):
    site = bench.site()
    options = bench.config(site).destination.storage_options
    store = open_store(site.destination_url, options)
    kinds = ("500", "503", "reset", "truncated", "lost")
    bench.proxy.use(Faults(kinds, RATE, SEED))

    with store.open_writer("big") as writer:
        writer.write(BIG)
        created = writer.commit()
    store.download("big", tmp_path / "copy", [(0, len(BIG))], etag=None, size=len(BIG))

    record(bench, "mixed, object of 20 MiB", RATE, "whole, both ways")
    assert created or store.sha256("big")
    assert site.destination.read_bytes("big") == BIG
    assert (tmp_path / "copy").read_bytes() == BIG


def test_completed_upload_is_not_an_error_when_its_answer_was_lost(bench):
    site = bench.site()
    store = open_store(site.destination_url, bench.config(site).destination.storage_options)
    bench.proxy.use(Faults(("lost",), rate=1, matching=r"^POST .*uploadId=", at_most=1))

    with store.open_writer("big") as writer:
        writer.write(BIG)
        created = writer.commit()

    assert bench.proxy.faults() == {"lost": 1}
    assert created is False  # the name is taken, by these very bytes
    assert site.destination.read_bytes("big") == BIG


def test_retries_are_not_used_up(bench):
    # botocore's quota is: 500 tokens for a process, of which a failed timeout takes ten for good.
    site = bench.site()
    store = open_store(site.source_url, bench.config(site).source.storage_options)
    bench.proxy.use(Faults(("500",), RATE, SEED))

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: store.stat("0.parquet"), range(400)))

    assert None not in found
    assert bench.proxy.faults()["500"] > 100


def test_denial_is_told_soon_where_nothing_was_allowed_yet(bench):
    site = bench.site()
    store = open_store(site.source_url, bench.config(site).source.storage_options)
    bench.proxy.use(Faults(("403",), rate=1))

    with pytest.raises(StorageError, match="access denied"):
        store.read_bytes("0.parquet")

    assert len(bench.proxy.log) == 5


def test_denial_is_sat_out_where_the_same_was_allowed_before(bench):
    site = bench.site()
    store = open_store(site.source_url, bench.config(site).source.storage_options)
    expected = store.read_bytes("0.parquet")
    bench.proxy.use(Faults(("403",), rate=1, at_most=6))

    assert store.read_bytes("0.parquet") == expected


def test_store_that_was_given_up_gets_few_attempts_until_it_answers(bench):
    site = bench.site()
    options = bench.config(site, retries={"total_max_attempts": 4}).source.storage_options
    store = open_store(site.source_url, options)
    requests = []
    for faults in [Faults(("500",), 1), Faults(("500",), 1), Faults(), Faults(("500",), 1)]:
        bench.proxy.use(faults)
        with suppress(ThrottledError):
            store.read_bytes("0.parquet")
        requests.append(len(bench.proxy.log))

    assert requests == [4, 2, 1, 4]


def test_run_over_many_windows_gives_up_a_dead_store(bench, tmp_path):
    site = bench.site()
    bench.proxy.use(Faults(("500",), rate=1, matching=r"^PUT .*/_meta/manifests/"))

    code, said = run_cli(bench, site, tmp_path, end=START + timedelta(days=9))

    windows = [line for line in said.splitlines() if line.startswith("request-logs: 2024")]
    assert code == 1
    assert ["not tried" in line for line in windows] == [False] * 3 + [True]
    assert " and 5 windows more: not tried" in windows[-1]
