"""A range of windows, some side by side; and the verification of what is there."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from prefect.exceptions import ParameterTypeError

from pipelines.errors import QualityError
from pipelines.export import export_window as library
from pipelines.verification import verify_export
from tests.builders import events, make_config, read_manifests, write_batch

START = datetime(2024, 6, 1, tzinfo=UTC)
RANGE = {"start": "2024-06-01", "end": "2024-06-05"}
NAMES = [
    f"{START + timedelta(days=day):%Y%m%dT%H%M%SZ}_{START + timedelta(days=day + 1):%Y%m%dT%H%M%SZ}"
    for day in range(4)
]


@pytest.fixture
def backfill(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows.backfill import backfill_request_logs  # noqa: PLC0415 - imports Prefect

    return backfill_request_logs


@pytest.fixture
def verify(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows.verify import verify_exports  # noqa: PLC0415 - imports Prefect

    return verify_exports


@pytest.fixture
def config(file_site):
    """Four days of one event each."""
    times = [START + timedelta(days=day, hours=9) for day in range(4)]
    rows = events({"requested_at": at, "received_at": at} for at in times)
    file_site.put("batch.parquet", write_batch(rows))
    return make_config(file_site, window={"every": "1d"})


def watched(monkeypatch, *, failing=None):
    """Note how many windows are written at once, at most; let one fail."""
    lock, counts = threading.Lock(), {"now": 0, "most": 0}
    together = threading.Barrier(2, timeout=60)

    def export_window(plan, planned, **options):
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        try:
            together.wait()
            if planned.window.name == failing:
                raise QualityError("too many rejects")
            return library(plan, planned, **options)
        finally:
            with lock:
                counts["now"] -= 1

    monkeypatch.setattr("flows.windows.export_window", export_window)
    return counts


def test_windows_are_written_side_by_side_up_to_the_limit(backfill, config, file_site, monkeypatch):
    counts = watched(monkeypatch)

    state = backfill(config, **RANGE, windows_at_once=2, return_state=True)

    assert state.is_completed()
    assert counts["most"] == 2
    assert [manifest.window for manifest in read_manifests(file_site)] == NAMES


def test_a_window_that_fails_is_named_and_stops_no_other(backfill, config, file_site, monkeypatch):
    watched(monkeypatch, failing=NAMES[1])

    state = backfill(config, **RANGE, windows_at_once=2, return_state=True)

    assert state.is_failed()
    assert f"{NAMES[1]}: too many rejects" in state.message
    assert [manifest.window for manifest in read_manifests(file_site)] == [
        name for name in NAMES if name != NAMES[1]
    ]


def test_a_config_error_ends_the_run_once_its_windows_have_ended(
    backfill, config, file_site, monkeypatch
):
    from pipelines.errors import ConfigError  # noqa: PLC0415 - this test alone

    ended, fails = [], threading.Event()

    def export_window(plan, planned, **options):
        if planned.window.name == NAMES[0]:
            fails.set()
            raise ConfigError("no such column")
        fails.wait(60)
        found = library(plan, planned, **options)
        ended.append(planned.window.name)
        return found

    monkeypatch.setattr("flows.windows.export_window", export_window)

    state = backfill(config, **RANGE, windows_at_once=2, return_state=True)

    assert state.is_failed()
    assert "no such column" in state.message
    assert set(ended) >= {manifest.window for manifest in read_manifests(file_site)}


def test_a_backfill_needs_its_range(backfill):
    assert set(backfill.parameters.required) == {"config", "start", "end"}


def test_a_verification_of_what_was_exported_says_so(backfill, verify, config):
    backfill(config, **RANGE)

    state = verify([config], return_state=True)

    assert state.message == "1 export is as committed"
    assert state.result()["test-export"]["windows"] == 4


def test_a_wrong_config_keeps_no_other_from_being_verified(backfill, verify, config, tmp_path):
    backfill(config, **RANGE)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: wrong\nsource: {url: a, presset: generic}\ndestination: {url: b}\n")

    state = verify([wrong, config], return_state=True)

    assert state.is_failed()
    assert state.message.startswith(f"1 problem: wrong: {wrong}: ")
    assert "did you mean 'preset'" in state.message
    assert verified(state) == {"wrong": None, "test-export": 4}


def test_an_export_of_another_keeps_no_other_from_being_verified(backfill, verify, config):
    backfill(config, **RANGE)
    other = config.model_copy(update={"name": "another"})

    state = verify([other, config], return_state=True)

    assert state.is_failed()
    assert state.message.startswith("1 problem: another: ")
    assert verified(state) == {"another": None, "test-export": 4}


def test_an_unexpected_error_keeps_no_other_from_being_verified(
    *, backfill, verify, config, monkeypatch
):
    def fail(config, **options):
        if config.name == "another":
            raise ValueError("a word of an event")
        return verify_export(config, **options)

    backfill(config, **RANGE)
    monkeypatch.setattr("flows.verify.verify_export", fail)

    state = verify([config.model_copy(update={"name": "another"}), config], return_state=True)

    assert "another: ValueError at flows/verify.py:" in state.message
    assert "a word of an event" not in state.message
    assert verified(state) == {"another": None, "test-export": 4}


def verified(state):
    """How many windows of each export were verified."""
    found = state.result(raise_on_failure=False)
    return {name: each.get("windows") for name, each in found.summary.items()}


def test_a_verification_of_nothing_is_refused(verify):
    with pytest.raises(ParameterTypeError, match=r"configs: .* at least 1 item"):
        verify([])


def test_a_verification_names_what_is_gone(backfill, verify, config, file_site):
    backfill(config, **RANGE)
    (part, *_) = read_manifests(file_site)[0].parts
    file_site.destination.delete(part.path)

    state = verify([config], return_state=True)

    assert state.is_failed()
    assert part.path in state.message
