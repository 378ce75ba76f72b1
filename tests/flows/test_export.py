"""The flow plans, retries and reports; what it writes is what the library writes."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipelines.errors import ConfigError, QualityError, ThrottledError
from tests.builders import events, make_config, read_manifests, write_batch
from tests.builders import export as run_library

pytestmark = pytest.mark.xdist_group("flows")  # one server

ROOT = Path(__file__).parents[2]
DAYS = (datetime(2024, 6, 1, 9, tzinfo=UTC), datetime(2024, 6, 2, 9, tzinfo=UTC))
WINDOWS = ["20240601T000000Z_20240602T000000Z", "20240602T000000Z_20240603T000000Z"]
# Two windows, then nothing that is due before the year 2100.
TWO_DAYS = {"start": "2024-06-01T00:00:00Z", "end": "2024-06-03T00:00:00Z"}


@pytest.fixture
def flows_export(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows import export  # noqa: PLC0415 - imports Prefect

    return export


@pytest.fixture
def flows_windows(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows import windows  # noqa: PLC0415 - imports Prefect

    return windows


@pytest.fixture
def flows_runs(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows import runs  # noqa: PLC0415 - imports Prefect

    return runs


@pytest.fixture
def fast_retries(flows_windows, monkeypatch):
    monkeypatch.setattr(flows_windows.export_windows, "retry_delay_seconds", 0)
    monkeypatch.setattr(flows_windows.export_windows, "retry_jitter_factor", None)


@pytest.fixture
def daily(file_site):
    """The config of a source with one event on each of two days."""
    rows = events({"requested_at": day, "received_at": day} for day in DAYS)
    file_site.put("batch.parquet", write_batch(rows))
    return make_config(file_site, window={"every": "1d"})


def fail_with(flows_windows, monkeypatch, error, *, window=WINDOWS[0], times=99):
    """Let the library's first calls for one window fail; return the names of all calls."""
    calls = []

    def failing(plan, planned, **options):
        calls.append(planned.window.name)
        if planned.window.name == window and calls.count(window) <= times:
            raise error
        return library(plan, planned, **options)

    library = flows_windows.export_window
    monkeypatch.setattr(flows_windows, "export_window", failing)
    return calls


def run(flows_export, config, **options):
    return flows_export.export_request_logs(config, **(TWO_DAYS | options), return_state=True)


def task_run_names(flow_run_id):
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.client.schemas.filters import (  # noqa: PLC0415
        TaskRunFilter,
        TaskRunFilterFlowRunId,
    )

    only = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        names = [found.name for found in client.read_task_runs(task_run_filter=only)]
    return sorted(name for name in names if name.startswith("window "))


def parts_of(site):
    return {
        part.path: site.destination.read_bytes(part.path)
        for manifest in read_manifests(site)
        for part in manifest.parts
    }


def test_flow_and_library_write_the_same_parts(flows_export, daily, file_site):
    found = flows_export.export_request_logs(daily, **TWO_DAYS)
    by_flow = parts_of(file_site)
    for path in list(file_site.paths()):
        file_site.destination.delete(path)
    start, end = (datetime.fromisoformat(instant) for instant in TWO_DAYS.values())
    run_library(daily, start=start, end=end)

    assert found["committed"] == len(by_flow) == 2
    assert by_flow == parts_of(file_site)


def test_task_runs_are_named_after_their_windows(flows_export, daily):
    state = run(flows_export, daily)

    assert task_run_names(state.state_details.flow_run_id) == [f"window {w}" for w in WINDOWS]


def test_many_windows_share_few_task_runs(flows_export, daily, monkeypatch):
    monkeypatch.setattr("flows.windows.MAX_TASK_RUNS", 1)

    state = run(flows_export, daily)

    assert state.result()["committed"] == 2
    names = task_run_names(state.state_details.flow_run_id)
    assert names == [f"window {WINDOWS[0]}..{WINDOWS[1]}"]


def test_parameters_reach_the_plan(flows_export, flows_runs, daily, monkeypatch):
    seen = {}

    def planning(config, **options):
        seen.update(options)
        return library(config, **options)

    library = flows_runs.plan_run
    monkeypatch.setattr(flows_runs, "plan_run", planning)

    run(flows_export, daily, force=True, start="2024-06-01")

    assert (datetime.now(UTC) - seen.pop("now")).total_seconds() < 60
    days = {"start": datetime(2024, 6, 1, tzinfo=UTC), "end": datetime(2024, 6, 3, tzinfo=UTC)}
    assert seen == {**days, "force": True, "rebuild_from_remaining": False}


@pytest.mark.usefixtures("fast_retries")
def test_a_throttled_window_is_tried_again(flows_export, flows_windows, daily, monkeypatch):
    calls = fail_with(flows_windows, monkeypatch, ThrottledError("busy"), times=2)

    state = run(flows_export, daily)

    assert state.is_completed()
    assert calls == [WINDOWS[0]] * 3 + [WINDOWS[1]]


@pytest.mark.usefixtures("fast_retries")
def test_a_retry_passes_over_windows_that_are_written(
    flows_export, flows_windows, daily, monkeypatch
):
    monkeypatch.setattr("flows.windows.MAX_TASK_RUNS", 1)
    calls = fail_with(flows_windows, monkeypatch, ThrottledError("busy"), times=1)

    state = run(flows_export, daily)

    assert state.result()["committed"] == 2
    assert calls == [*WINDOWS, WINDOWS[0]]


def test_a_window_of_poor_quality_fails_once_and_stops_no_other(
    flows_export, flows_windows, daily, monkeypatch
):
    calls = fail_with(flows_windows, monkeypatch, QualityError("too many rejects"))

    state = run(flows_export, daily)

    assert state.is_failed()
    assert f"{WINDOWS[0]}: too many rejects" in state.message
    assert calls == WINDOWS
    error = state.result(raise_on_failure=False)
    assert error.summary["committed"] == 1
    assert error.summary["failed"] == WINDOWS[:1]


def test_an_unexpected_error_stops_no_other_window(flows_export, flows_windows, daily, monkeypatch):
    fail_with(flows_windows, monkeypatch, ZeroDivisionError("oh"))

    state = run(flows_export, daily)

    assert state.is_failed()
    assert f"{WINDOWS[0]}: ZeroDivisionError: oh" in state.message
    assert state.result(raise_on_failure=False).summary["committed"] == 1


def test_a_config_error_ends_the_run_at_once(flows_export, flows_windows, daily, monkeypatch):
    calls = fail_with(flows_windows, monkeypatch, ConfigError("no such column"))

    with pytest.raises(ConfigError, match="no such column"):
        flows_export.export_request_logs(daily, **TWO_DAYS)
    assert calls == WINDOWS[:1]


def test_a_run_that_finds_nothing_new_says_so(flows_export, daily):
    run(flows_export, daily)

    state = run(flows_export, daily)

    assert state.is_completed()
    assert state.message == "nothing to do: 2 windows are up to date"
    assert len(state.result()["data_files"]) == 2
    assert task_run_names(state.state_details.flow_run_id) == []


def test_the_flow_cleans_up_behind_the_windows_it_committed(flows_export, daily, monkeypatch):
    cleaned = []
    monkeypatch.setattr("flows.runs.clean_up", lambda _, windows: cleaned.append(windows))

    run(flows_export, daily)
    run(flows_export, daily)

    assert cleaned == [WINDOWS, []]


def test_a_source_without_batches_completes_with_a_sentence(flows_export, file_site):
    Path(file_site.source_url.removeprefix("file://")).mkdir()

    state = run(flows_export, make_config(file_site, window={"every": "1d"}))

    assert state.is_completed()
    assert state.message == "nothing to do: the source holds no batch"


def test_the_form_of_parameters_takes_a_path_or_a_config(flows_export):
    schema = flows_export.export_request_logs.parameters

    run = ["config", "start", "end", "force", "rebuild_from_remaining"]
    overrides = ["where", "filters", "destination", "credentials", "notify"]
    assert list(schema.properties) == run + overrides
    assert schema.required == ["config"]
    assert "ExportConfig" in schema.definitions
    assert {"format": "path", "type": "string"} in schema.properties["config"]["anyOf"]


def python(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(  # noqa: S603 - this interpreter on our own arguments
        [sys.executable, *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_importing_the_flow_starts_and_sets_nothing(tmp_path):
    program = (
        "import os, threading; before = dict(os.environ); import flows.command, flows.export; "
        "from prefect.server.api.server import SubprocessASGIServer as Server; "
        "print(Server._instances, threading.active_count(), dict(os.environ) == before)"
    )

    done = python("-c", program, PREFECT_HOME=str(tmp_path))

    assert done.stdout.split() == ["{}", "1", "True"], done.stderr


def test_the_command_prints_what_it_did_and_leaves_no_server(daily, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(daily.model_dump(mode="json", exclude_unset=True)))

    window = ("--start", "2024-06-01", "--end", "2024-06-03")
    done = python("-m", "flows.export", str(config), *window, PREFECT_HOME=str(tmp_path / "home"))

    # A server left behind would hold the pipes open, and `done` would never come.
    assert done.returncode == 0, done.stderr
    assert "2 read, 2 exported" in done.stdout
    assert '"input": {' in done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("flows.export: starting Prefect's own server")


def test_the_command_explains_a_bad_config_in_a_paragraph(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("name: x\nsource: {url: a, presset: generic}\ndestination: {url: b}\n")

    done = python("-m", "flows.export", str(config), PREFECT_HOME=str(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'preset'" in done.stderr
    assert "Traceback" not in done.stderr
