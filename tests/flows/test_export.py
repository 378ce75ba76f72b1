"""The flow plans, retries and reports; what it writes is what the library writes."""

import io
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prefect.exceptions import CancelledRun

from pipelines.errors import (
    BatchChangedError,
    ConfigError,
    ContractError,
    QualityError,
    StorageError,
    ThrottledError,
)
from pipelines.failures import read_failures
from tests.builders import events, make_config, read_manifests, write_batch
from tests.builders import export as run_library

ROOT = Path(__file__).parents[2]
DAYS = (datetime(2024, 6, 1, 9, tzinfo=UTC), datetime(2024, 6, 2, 9, tzinfo=UTC))
WINDOWS = ["20240601T000000Z_20240602T000000Z", "20240602T000000Z_20240603T000000Z"]
FIVE = [f"202406{day:02}T000000Z_202406{day + 1:02}T000000Z" for day in range(1, 6)]
FIVE_DAYS = {"start": "2024-06-01", "end": "2024-06-06"}
PAYLOAD = "a word that only payloads hold"
# Two windows, then nothing that is due before the year 2100.
TWO_DAYS = {"start": "2024-06-01T00:00:00Z", "end": "2024-06-03T00:00:00Z"}


@pytest.fixture
def flows_export(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows import export  # noqa: PLC0415 - imports Prefect

    return export


@pytest.fixture
def backfill(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows.backfill import backfill_request_logs  # noqa: PLC0415 - imports Prefect

    return backfill_request_logs


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


def fail_with(flows_windows, monkeypatch, error, *, windows=WINDOWS[:1], times=99, events=0):
    """Let the library's first calls for some windows fail, after so many events of each; return the
    names of all calls.
    """
    calls = []

    def failing(plan, planned, **options):
        name = planned.window.name
        calls.append(name)
        if name in windows and calls.count(name) <= times:
            options["progress"](events, 100 * events)
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


def read_progress(flow_run_id):
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.client.schemas.filters import (  # noqa: PLC0415
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        ArtifactFilterType,
    )

    only = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]),
        type=ArtifactFilterType(any_=["progress"]),
    )
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(artifact_filter=only)
    return found


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


@pytest.mark.parametrize("groups", [1, 100], ids=["one-group", "groups-of-one"])
def test_an_unexpected_error_stops_no_other_window(
    flows_export, flows_windows, daily, monkeypatch, groups
):
    monkeypatch.setattr(flows_windows, "MAX_TASK_RUNS", groups)
    calls = fail_with(flows_windows, monkeypatch, ZeroDivisionError(PAYLOAD))

    state = run(flows_export, daily)

    place = (
        r"ZeroDivisionError at flows/windows\.py:\d+, an error of this package: please report it"
    )
    assert re.search(f"{WINDOWS[0]}: {place}$", state.message)
    assert calls == WINDOWS
    assert state.result(raise_on_failure=False).summary["committed"] == 1


@pytest.fixture
def logged():
    """What Prefect logs, tracebacks too, as its handlers would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    names = ("prefect", "prefect.flow_runs", "prefect.task_runs")
    for name in names:
        logging.getLogger(name).addHandler(handler)
    yield stream.getvalue
    for name in names:
        logging.getLogger(name).removeHandler(handler)


def with_cause(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError(PAYLOAD), id="foreign"),
        pytest.param(with_cause(ValueError("x"), KeyError(PAYLOAD)), id="cause-of-a-foreign-one"),
        pytest.param(with_cause(ContractError("x"), KeyError(PAYLOAD)), id="cause-of-ours"),
        pytest.param(with_cause(ConfigError("x"), KeyError(PAYLOAD)), id="cause-of-a-config-error"),
        pytest.param(with_cause(ThrottledError("x"), KeyError(PAYLOAD)), id="cause-after-retries"),
    ],
)
@pytest.mark.parametrize("step", ["export_window", "plan_run"])
@pytest.mark.usefixtures("fast_retries")
def test_no_error_shows_an_event(
    *, flows_export, flows_windows, flows_runs, daily, monkeypatch, logged, step, error
):
    def fail(*_, **__):
        raise error

    module = flows_windows if step == "export_window" else flows_runs
    monkeypatch.setattr(module, step, fail)

    state = run(flows_export, daily)

    assert state.is_failed()
    assert "Finished in state Failed" in logged()
    assert PAYLOAD not in state.message + logged()


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, CancelledRun])
def test_a_run_that_is_stopped_begins_no_other_window(
    *, backfill, flows_windows, daily, monkeypatch, stop, at_once
):
    calls = fail_with(flows_windows, monkeypatch, stop("stop"), windows=FIVE)

    with pytest.raises(stop):
        backfill(daily, **FIVE_DAYS, windows_at_once=at_once)

    assert set(calls) <= set(FIVE[:at_once])


STORE_FAILED = StorageError("no answer")


def failures(state):
    """The errors of the windows, in order."""
    return [each["error"] for each in state.result(raise_on_failure=False).summary["windows"]]


@pytest.mark.parametrize("groups", [1, 2, 100])
def test_a_run_gives_up_a_store_that_fails_three_windows_in_a_row(
    flows_export, flows_windows, daily, monkeypatch, groups
):
    monkeypatch.setattr(flows_windows, "MAX_TASK_RUNS", groups)
    calls = fail_with(flows_windows, monkeypatch, STORE_FAILED, windows=FIVE)

    state = run(flows_export, daily, **FIVE_DAYS)

    given_up = "not tried: the store failed the 3 windows before"
    # In two groups, three windows and two: the second may be the store's better moment.
    tried = 5 if groups == 2 else 3
    assert calls == FIVE[:tried]
    assert failures(state) == ["no answer"] * tried + [given_up] * (5 - tried)
    assert state.message.startswith("5 of 5 windows failed, 0 were committed. ")


def test_windows_side_by_side_give_up_a_store_too(backfill, flows_windows, daily, monkeypatch):
    calls = fail_with(flows_windows, monkeypatch, STORE_FAILED, windows=FIVE)

    state = backfill(daily, **FIVE_DAYS, windows_at_once=2, return_state=True)

    assert 3 <= len(calls) <= 4
    assert "not tried: the store failed the" in failures(state)[-1]


@pytest.mark.parametrize(
    ("error", "windows"),
    [
        pytest.param(QualityError("too many rejects"), FIVE, id="not-by-the-store"),
        pytest.param(BatchChangedError("changed"), FIVE, id="a-batch-alone"),
        pytest.param(STORE_FAILED, [*FIVE[:2], *FIVE[3:]], id="not-in-a-row"),
    ],
)
def test_other_failures_give_up_no_store(
    *, flows_export, flows_windows, daily, monkeypatch, error, windows
):
    calls = fail_with(flows_windows, monkeypatch, error, windows=windows)

    run(flows_export, daily, **FIVE_DAYS)

    assert calls == FIVE


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize(
    ("error", "times", "percent", "events"),
    [
        pytest.param(ThrottledError("busy"), 2, 100.0, 2, id="a-retry-counts-once"),
        pytest.param(
            QualityError("too many rejects"), 99, 50.0, 1, id="a-failed-window-is-not-done"
        ),
    ],
)
def test_the_progress_counts_what_was_written(
    *, flows_export, flows_windows, daily, monkeypatch, error, times, percent, events
):
    fail_with(flows_windows, monkeypatch, error, times=times, events=1)

    state = run(flows_export, daily)

    shown = read_progress(state.state_details.flow_run_id)
    assert shown.data == percent
    assert shown.description.startswith(f"{events} of up to 2 events, ")


@pytest.mark.parametrize(
    ("rivals", "sentence"),
    [
        pytest.param(
            1,
            "1 window committed: 1 event read, 1 exported, 0 rejected; "
            "1 window was committed by another run",
            id="some",
        ),
        pytest.param(
            2,
            "nothing left to do: 2 windows were committed by another run, 0 windows are up to date",
            id="all",
        ),
    ],
)
def test_windows_of_another_run_are_named(
    *, flows_export, flows_windows, daily, monkeypatch, rivals, sentence
):
    def after_another(plan, planned, **options):
        if planned.window.name in WINDOWS[:rivals]:
            library(plan, planned)
        return library(plan, planned, **options)

    library = flows_windows.export_window
    monkeypatch.setattr(flows_windows, "export_window", after_another)

    state = run(flows_export, daily)

    assert state.is_completed()
    assert state.message == sentence


def test_a_blocked_window_fails_the_run_and_stops_no_other(flows_export, file_site):
    url = f"{file_site.source_url}/date=%s"
    for day in DAYS:
        rows = events([{"requested_at": day, "received_at": day}])
        file_site.put("batch.parquet", write_batch(rows), url=url % f"{day:%Y-%m-%d}")
    file_site.put("broken.parquet", b"no Parquet", url=url % "2024-06-01")
    config = make_config(file_site, window={"every": "1d"}, source={"date_path": "date=%Y-%m-%d"})

    state = run(flows_export, config)

    assert state.is_failed()
    assert f"{WINDOWS[0]}: unreadable batch date=2024-06-01/broken.parquet" in state.message
    assert state.result(raise_on_failure=False).summary["committed"] == 1


def test_a_window_that_failed_is_noted_at_the_destination(
    *, flows_export, flows_windows, daily, file_site, monkeypatch
):
    fail_with(flows_windows, monkeypatch, QualityError("too many rejects"))

    run(flows_export, daily)

    (noted,) = read_failures(file_site.destination).values()
    assert (noted.window, noted.error) == (WINDOWS[0], "too many rejects")


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
    assert state.message.startswith("nothing to do: the source holds no batch, as ")


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
