"""Deployments on a real Prefect server, run by a real worker, from S3 to S3."""

import itertools
import json
import re
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from flows.reporting import asset_key
from pipelines.manifest import list_generations
from pipelines.verification import verify_export
from tests.aftermath import read_generations
from tests.builders import events, export, make_config, read_records, write_batch
from tests.conftest import Site, use_identity
from tests.fault_proxy import Faults, fault_proxy
from tests.flows.servers import ROOT, serve_prefect, wait_for

pytestmark = pytest.mark.s3

POOL = "request-logs"
EXPORT = "export-request-logs"
BACKFILL = "backfill-request-logs/test-backfill"
ADHOC = f"{EXPORT}/test-adhoc"
OFTEN = "configs/often.yaml"
# Four windows are due, and no fifth for the next twelve hours.
NOW = datetime.now(UTC)
ORIGIN = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(days=4, hours=12)
EDGES = [ORIGIN + timedelta(days=day) for day in range(5)]
WINDOWS = [
    f"{start:%Y%m%dT%H%M%SZ}_{end:%Y%m%dT%H%M%SZ}" for start, end in itertools.pairwise(EDGES)
]
MODELS = ("m-1", "m-2", "m-3")
PAYLOAD = "a word that only payloads hold"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server with the work pool that configs/prefect.yaml names."""
    with serve_prefect(tmp_path_factory.mktemp("prefect") / "home") as running:
        running.create_pool(POOL)
        yield running


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder as an operator has it: configs, the sample, deployments."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "configs").mkdir()
    for config in (ROOT / "configs").iterdir():
        (folder / "configs" / config.name).write_bytes(config.read_bytes())
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "sample").symlink_to(ROOT / "pipelines" / "sample")
    return folder


@pytest.fixture(scope="module")
def worker(server, project, s3, tmp_path_factory):
    """A worker with credentials for S3, started elsewhere, and deployments for it and others."""
    for pool in ("doomed", "bare"):
        server.create_pool(pool)
    often = {"schedules": [{"interval": 15, "active": False}], "parameters": {"config": OFTEN}}
    deploy(
        server,
        project,
        [
            deployment("test-adhoc"),
            deployment("test-backfill", entrypoint="flows.backfill.backfill_request_logs"),
            deployment("often", **often),
            deployment("doomed", pool="doomed"),
            deployment("bare", pool="bare"),
        ],
    )
    folder = tmp_path_factory.mktemp("worker")
    with server.worker(POOL, cwd=folder, env=s3.environment()) as running:
        yield running


def deployment(name, *, pool=POOL, entrypoint="flows.export.export_request_logs", **more):
    return {
        "name": name,
        "entrypoint": entrypoint,
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": {"name": pool},
        **more,
    }


def deploy(server, project, deployments):
    """Deploy them all from a prefect.yaml of their own."""
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}]
    document = {"name": "test", "pull": pull, "deployments": deployments}
    file = project / f"{uuid.uuid4().hex}.yaml"
    file.write_text(yaml.safe_dump(document))
    server.prefect("deploy", "--all", "--prefect-file", file.name, cwd=project)


def put_days(site, days=range(4), *, broken=0):
    """A batch of nine events for each of some of the four days, so many of them no JSON."""
    for day in days:
        at = EDGES[day] + timedelta(hours=1)
        rows = events(
            {
                "id": f"{day}-{number}",
                "requested_at": at,
                "received_at": at,
                "model": MODELS[number % 3],
                "request": json.dumps({"model": "m", "text": PAYLOAD})[number < broken :],
            }
            for number in range(9)
        )
        site.put(f"{day}.parquet", write_batch(rows))


def daily(site, **changes):
    return make_config(
        site,
        window={"every": "1d", "start": ORIGIN.isoformat()},
        partition_by=["model"],
        **changes,
    )


def write_config(project, config):
    """The config as a file of the project; return its path from there."""
    path = f"configs/{uuid.uuid4().hex}.yaml"
    document = config.model_dump(mode="json", exclude_unset=True)
    (project / path).write_text(yaml.safe_dump(document))
    return path


def committed(site):
    """The newest generation of every window that is committed."""
    return list_generations(site.destination)


def instants(first, last):
    return {"start": EDGES[first].isoformat(), "end": EDGES[last].isoformat()}


@pytest.fixture(scope="module")
def deployed(server, project):
    """The deployments of the repository's own configs/prefect.yaml, by name."""
    server.prefect("deploy", "--all", "--prefect-file", "configs/prefect.yaml", cwd=project)
    with (project / "configs" / "prefect.yaml").open() as file:
        wanted = {each["name"] for each in yaml.safe_load(file)["deployments"]}
    found = {each["name"]: each for each in server.post("/deployments/filter", {})}
    assert wanted <= set(found)
    return {name: found[name] for name in wanted}


def test_a_deployment_of_the_repository_lets_later_runs_wait(deployed):
    rules = {
        name: (each["global_concurrency_limit"]["limit"], each["concurrency_options"])
        for name, each in deployed.items()
    }

    assert {limit for limit, _ in rules.values()} == {1}
    assert {options["collision_strategy"] for _, options in rules.values()} == {"ENQUEUE"}


def test_a_deployment_of_the_repository_says_what_it_is(deployed):
    assert [name for name, each in deployed.items() if not each["description"]] == []
    assert [name for name, each in deployed.items() if POOL not in each["tags"]] == []


def test_schedules_of_the_repository_are_in_utc(deployed):
    schedules = {
        name: [(s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in found]
        for name, each in deployed.items()
        if (found := each["schedules"])
    }

    assert schedules == {
        "scheduled": [("10 * * * *", "UTC", True)],
        "verify": [("30 4 * * *", "UTC", True)],
    }


@pytest.mark.usefixtures("worker")
def test_the_deployments_of_the_repository_run_as_they_are(server, deployed):
    names = {each["name"]: each for each in deployed.values()}
    assert set(names) == {"scheduled", "adhoc", "backfill", "pull", "verify"}
    days = {"start": "2024-01-12", "end": "2024-02-11"}

    filled = server.run("backfill-request-logs/backfill", **days)
    exported = server.run(f"{EXPORT}/adhoc")
    verified = server.run("verify-exports/verify")
    pulled = server.run("pull-dataset/pull")

    assert re.match(r"\d windows? committed: ", filled["state"]["message"])
    assert re.match(r"\d+ windows? committed: ", exported["state"]["message"])
    assert verified["state"]["message"] == "1 export is as committed"
    assert re.match(r"\d+ rows for openai ", pulled["state"]["message"])


@pytest.mark.usefixtures("worker")
def test_a_scheduled_run_comes_by_itself_and_commits(server, project, s3_site):
    put_days(s3_site)
    (project / write_config(project, daily(s3_site))).rename(project / OFTEN)
    often = server.deployment(f"{EXPORT}/often")

    server.activate(often)
    try:
        wait_for(lambda: len(committed(s3_site)) == len(WINDOWS), seconds=60)
        run = server.wait(server.runs(f"{EXPORT}/often")[0]["id"])
    finally:
        server.delete(f"/deployments/{often['id']}")

    assert run["auto_scheduled"]
    assert run["state"]["message"] == "4 windows committed: 36 events read, 36 exported, 0 rejected"
    assert len(read_records(s3_site)) == 36


@pytest.mark.usefixtures("worker")
def test_an_ad_hoc_run_commits_the_windows_it_was_asked_for(server, project, s3_site):
    put_days(s3_site)
    path = write_config(project, daily(s3_site))

    run = server.run(ADHOC, config=path, **instants(1, 3))

    assert run["state_type"] == "COMPLETED"
    assert committed(s3_site) == dict.fromkeys(WINDOWS[1:3], 1)
    assert "test-export" in run["name"]
    assert f"{EDGES[1]:%Y-%m-%d}" in run["name"]
    assert f"{EDGES[3]:%Y-%m-%d}" in run["name"]


@pytest.mark.usefixtures("worker")
def test_a_forced_run_writes_windows_again(server, project, s3_site):
    put_days(s3_site)
    config = daily(s3_site)
    export(config, now=NOW)

    server.run(ADHOC, config=write_config(project, config), **instants(1, 3), force=True)

    assert committed(s3_site) == dict(zip(WINDOWS, (1, 2, 2, 1), strict=True))


@pytest.mark.usefixtures("worker")
def test_a_slice_goes_to_a_destination_of_its_own(server, project, s3_site):
    put_days(s3_site)
    path = write_config(project, daily(s3_site))
    sliced = replace(s3_site, destination_url=f"{s3_site.destination_url}-slice")

    run = server.run(ADHOC, config=path, where="model = 'm-2'", destination=sliced.destination_url)

    assert run["state_type"] == "COMPLETED"
    assert len(read_records(sliced)) == 12
    assert s3_site.paths() == []


@pytest.mark.usefixtures("worker")
def test_a_run_that_finds_nothing_new_is_completed_and_says_so(server, project, s3_site):
    put_days(s3_site)
    config = daily(s3_site)
    export(config, now=NOW)

    run = server.run(ADHOC, config=write_config(project, config))

    assert run["state_type"] == "COMPLETED"
    assert run["state"]["message"] == "nothing to do: 4 windows are up to date"


@pytest.mark.usefixtures("worker")
def test_a_run_with_windows_that_failed_is_failed_and_names_them(server, project, s3_site):
    put_days(s3_site, (0, 2, 3))
    put_days(s3_site, (1,), broken=5)
    path = write_config(project, daily(s3_site))

    run = server.run(ADHOC, config=path)

    message = run["state"]["message"]
    assert run["state_type"] == "FAILED"
    assert message.startswith(f"1 of 4 windows failed, 3 were committed. {WINDOWS[1]}: ")
    # Rejects over the limit are why, by reason.
    assert "5 of 9" in message
    assert "request" in message
    assert PAYLOAD not in message
    assert set(committed(s3_site)) == {*WINDOWS} - {WINDOWS[1]}


@pytest.mark.usefixtures("worker")
def test_a_wrong_config_fails_the_run_with_the_key(server, project, s3_site):
    path = write_config(project, daily(s3_site))
    file = project / path
    file.write_text(file.read_text().replace("preset:", "presett:"))

    run = server.run(ADHOC, config=path)

    assert run["state_type"] == "FAILED"
    assert "presett" in run["state"]["message"]
    assert "did you mean 'preset'" in run["state"]["message"]
    assert s3_site.paths() == []


@pytest.fixture
def proxied(s3_site):
    """The site through a proxy that `hold` makes slow, and that proxy."""
    with fault_proxy(s3_site.endpoint) as proxy:
        yield replace(s3_site, storage_options={"endpoint_url": proxy.endpoint}), proxy


def hold(kind, *windows):
    """Faults by which no part of some windows is written soon."""
    starts = "|".join(window.partition("_")[0] for window in windows)
    return Faults(kinds=(kind,), rate=1.0, matching=f"^PUT .*/data/.*({starts})")


def library_run(site):
    """What a run that nothing disturbs commits, at another destination."""
    other = daily(replace(site, destination_url=f"{site.destination_url}-library"))
    export(other, now=NOW)
    return read_generations(other)


@pytest.mark.usefixtures("worker")
def test_a_run_that_is_cancelled_leaves_nothing_half(server, project, proxied, s3_site):
    put_days(s3_site)
    behind, proxy = proxied
    proxy.use(hold("late", *WINDOWS[2:]))
    path = write_config(project, daily(behind))
    run = server.start(ADHOC, config=path)
    wait_for(proxy.faults, seconds=150)

    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    server.post(f"/flow_runs/{run}/set_state", cancelling)
    ended = server.wait(run)
    left = set(committed(s3_site))
    problems = verify_export(daily(s3_site), deep=True).problems
    proxy.use(Faults())
    healed = server.run(ADHOC, config=path)

    assert ended["state_type"] == "CANCELLED"
    assert {*WINDOWS[:2]} <= left < {*WINDOWS}
    assert problems == ()
    assert healed["state"]["message"].startswith(f"{len(WINDOWS) - len(left)} windows committed")
    assert read_generations(daily(s3_site)) == library_run(s3_site)


@pytest.mark.usefixtures("worker")
def test_a_backfill_that_is_cancelled_leaves_nothing_half(server, project, proxied, s3_site):
    put_days(s3_site)
    behind, proxy = proxied
    proxy.use(hold("stall", *WINDOWS[1:]))
    path = write_config(project, daily(behind))
    days = {"config": path, **instants(0, 4)}
    run = server.start(BACKFILL, **days, windows_at_once=2)
    wait_for(lambda: all(held(proxy, window) for window in WINDOWS[1:3]), seconds=150)

    asked_at = time.monotonic()
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    server.post(f"/flow_runs/{run}/set_state", cancelling)
    ended = server.wait(run)
    seconds = time.monotonic() - asked_at
    left = set(committed(s3_site))
    problems = verify_export(daily(s3_site), deep=True).problems
    proxy.use(Faults())
    healed = server.run(BACKFILL, **days, windows_at_once=2)

    assert ended["state_type"] == "CANCELLED"
    assert seconds < 25, "after 30 s Prefect kills a run that did not end"
    assert left == {WINDOWS[0]}
    assert problems == ()
    assert healed["state"]["message"].startswith("3 windows committed")
    assert read_generations(daily(s3_site)) == library_run(s3_site)


def held(proxy, window):
    """Whether a request for a part of a window is held up."""
    start = window.partition("_")[0]
    return any(start in request.path and request.fault for request in list(proxy.log))


@pytest.mark.usefixtures("worker")
def test_a_run_killed_with_its_worker_is_finished_by_the_next(
    server, project, proxied, s3_site, tmp_path
):
    put_days(s3_site)
    behind, proxy = proxied
    proxy.use(hold("stall", WINDOWS[2]))
    path = write_config(project, daily(behind))
    with server.worker("doomed", cwd=tmp_path, env=s3_site.server.environment()) as doomed:
        server.start(f"{EXPORT}/doomed", config=path)
        wait_for(proxy.faults, seconds=150)
        doomed.kill()
    left = committed(s3_site)
    proxy.use(Faults())

    healed = server.run(ADHOC, config=path)

    assert left == dict.fromkeys(WINDOWS[:2], 1)
    assert healed["state"]["message"].startswith("2 windows committed")
    assert read_generations(daily(s3_site)) == library_run(s3_site)


@pytest.mark.usefixtures("worker")
def test_the_cursor_is_the_object_store(server, project, s3_site, tmp_path):
    put_days(s3_site)
    path = write_config(project, daily(s3_site))
    server.run(ADHOC, config=path, **instants(0, 2))

    with serve_prefect(tmp_path / "home") as empty:
        empty.create_pool(POOL)
        deploy(empty, project, [deployment("test-adhoc")])
        with empty.worker(POOL, cwd=tmp_path, env=s3_site.server.environment()):
            same = empty.run(ADHOC, config=path, **instants(0, 2))
            missed = empty.run(ADHOC, config=path)

    assert same["state"]["message"] == "nothing to do: 2 windows are up to date"
    assert missed["state"]["message"].startswith("2 windows committed")
    assert committed(s3_site) == dict.fromkeys(WINDOWS, 1)


@pytest.fixture(scope="module")
def reported(server, project, worker, s3):  # noqa: ARG001 - the worker runs it
    """A run with rejects: the site, the config and the flow run."""
    with pytest.MonkeyPatch.context() as patch:
        use_identity(patch, s3, s3.admin)
        name = f"t-{uuid.uuid4().hex[:12]}"
        options = {"endpoint_url": s3.endpoint}
        site = Site("s3", f"s3://raw/{name}", f"s3://exports/{name}", options, s3)
        put_days(site, broken=2)
        config = daily(site, name=name, max_reject_ratio=0.5)
        run = server.run(ADHOC, config=write_config(project, config))
        assert run["state"]["message"].startswith("4 windows committed"), run["state"]
        return site, name, run


def test_the_report_holds_ledger_and_located_rejects(server, reported):
    _, name, run = reported

    report = server.artifacts(run["id"])[f"{name}-export"]

    assert report["type"] == "markdown"
    lines = report["data"].splitlines()
    heads = next(line for line in lines if line.startswith("| read"))
    counts = lines[lines.index(heads) + 2]
    ledger = dict(zip(cells(heads), cells(counts), strict=True))
    assert (ledger["read"], ledger["exported"], ledger["rejected"]) == ("36", "28", "8")
    first = lines.index("| request_not_json | 8 | 0.parquet | 0 |")
    assert lines[first + 1 : first + 3] == ["|  |  | 0.parquet | 1 |", "|  |  | 1.parquet | 0 |"]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_for_each_window(server, reported):
    _, name, run = reported

    table = server.artifacts(run["id"])[f"{name}-windows"]

    rows = json.loads(table["data"])
    assert [row["window"] for row in rows] == WINDOWS
    assert {(row["status"], row["exported"], row["rejected"]) for row in rows} == {
        ("committed", 7, 2)
    }


def test_the_progress_reaches_its_end(server, reported):
    _, name, run = reported

    progress = server.artifacts(run["id"])[f"{name}-progress"]

    assert (progress["type"], progress["data"]) == ("progress", 100.0)


@pytest.mark.usefixtures("worker")
def test_an_automation_starts_a_deployment_on_a_committed_window(server, project, s3_site):
    put_days(s3_site, (0,))
    name = f"t-{uuid.uuid4().hex[:12]}"
    path = write_config(project, daily(s3_site, name=name))
    forced = {"config": path, "force": True}
    pull = {"start": "{{ event.payload.start }}", "end": "{{ event.payload.end }}", **forced}
    automation = {
        "name": name,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": f"request-logs.export.{name}"},
            "expect": ["request-logs.window.committed"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [
            {
                "type": "run-deployment",
                "source": "selected",
                "deployment_id": server.deployment(f"{EXPORT}/bare")["id"],
                "parameters": pull,
            }
        ],
    }
    found = server.post("/automations/", automation)
    try:
        server.run(ADHOC, config=path, **instants(0, 1))
        started = wait_for(
            lambda: [
                run
                for run in server.runs(f"{EXPORT}/bare")
                if run["parameters"].get("config") == path
            ]
        )
    finally:
        server.delete(f"/automations/{found['id']}")

    start, end = (started[0]["parameters"][name] for name in ("start", "end"))
    assert (start, end) == (EDGES[0].isoformat(), EDGES[1].isoformat())


def test_every_window_has_an_event_with_its_counts(server, reported):
    _, name, _ = reported

    found = wait_for(
        lambda: fully(server.events("request-logs.window.committed", f"request-logs.export.{name}"))
    )

    assert sorted(each["payload"]["window"] for each in found) == WINDOWS
    assert {each["payload"]["generation"] for each in found} == {1}
    counts = [each["payload"]["counts"] for each in found]
    assert {(c["read"], c["exported"], c["rejected"]) for c in counts} == {(9, 7, 2)}


def fully(found):
    return found if len(found) >= len(WINDOWS) else None


def test_the_dataset_is_an_asset_that_comes_from_the_source(server, reported):
    site, _, _ = reported
    key = asset_key(site.destination_url)

    (found,) = wait_for(lambda: server.events("prefect.asset.materialization.succeeded", key))

    related = {each["prefect.resource.id"]: each for each in found["related"]}
    assert related[asset_key(site.source_url)]["prefect.resource.role"] == "asset"


def test_nothing_that_prefect_keeps_holds_a_payload(server, reported):
    _, name, run = reported
    assert "windows: 4 to write" in wait_for(lambda: server.logs(run["id"]))
    assert holders(server, name), "what is looked through holds what it should"

    assert holders(server, PAYLOAD) == []


def holders(server, text):
    """Names of what holds a text: files of the server and of its workers, database included."""
    wanted = text.encode()
    return [
        str(path)
        for path in server.home.rglob("*")
        if path.is_file() and wanted in path.read_bytes()
    ]


SAVE_BLOCK = """
import os
from prefect_aws import AwsClientParameters, AwsCredentials
AwsCredentials(
    aws_access_key_id=os.environ["KEY"],
    aws_secret_access_key=os.environ["SECRET"],
    region_name="us-east-1",
    aws_client_parameters=AwsClientParameters(endpoint_url=os.environ["ENDPOINT"]),
).save("test")
"""


@pytest.mark.usefixtures("worker")  # which makes the deployments
def test_credentials_of_a_block_reach_s3_and_nothing_else(server, project, s3_site, tmp_path):
    s3 = s3_site.server
    secrets = {
        "KEY": s3.admin.access_key,
        "SECRET": s3.admin.secret_key,
        "ENDPOINT": s3.endpoint,
        "PREFECT_HOME": str(server.home),
    }
    subprocess.run(  # noqa: S603 - this interpreter on our own program
        [sys.executable, "-c", SAVE_BLOCK], env=server.environment() | secrets, check=True
    )
    put_days(s3_site)
    anonymous = replace(s3_site, storage_options={})
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}

    with server.worker("bare", cwd=tmp_path, env=nothing):
        path = write_config(project, daily(anonymous))
        run = server.run(f"{EXPORT}/bare", config=path, credentials="aws-credentials/test")
        logged = wait_for(lambda: server.logs(run["id"]))

    assert run["state"]["message"].startswith("4 windows committed")
    # The block is in the database, encrypted; the parameters and the logs stand there too.
    assert holders(server, "aws-credentials/test")
    assert holders(server, s3.admin.secret_key) == []
    assert s3.admin.secret_key not in logged + json.dumps(run)
    meta = [path for path in s3_site.paths() if path.startswith("_meta/")]
    assert any("manifests" in path for path in meta)
    for path in meta:
        assert s3.admin.secret_key.encode() not in s3_site.destination.read_bytes(path)
