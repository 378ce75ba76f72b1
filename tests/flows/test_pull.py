"""The flow that pulls: the same bundle as the library's, and a run that tells of it."""

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from pipelines.errors import ConfigError, QualityError
from pipelines.pull import pull
from pipelines.pull_options import parse_options
from tests.builders import events, export, make_config, write_batch

ANSWER = (
    '{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop",'
    '"message":{"role":"assistant","content":"Hi"}}]}'
)


@pytest.fixture
def pull_dataset(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows.pull import pull_dataset as found  # noqa: PLC0415 - imports Prefect

    return found


@pytest.fixture
def exported(file_site):
    """The config of an export of one day, which is committed."""
    file_site.put("a.parquet", write_batch(events([{"response": ANSWER}, {"response": "{}"}])))
    config = make_config(file_site, window={"every": "1d", "start": "2024-06-01"})
    export(config)
    return config


def read(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_the_flow_makes_the_bundle_that_the_library_makes(pull_dataset, exported, tmp_path):
    options = parse_options({"format": "openai"})
    pull(exported, str(tmp_path / "library"), options)

    found = pull_dataset(exported, str(tmp_path / "flow"), options=options)

    assert found["rows"] == {"train": 1}
    assert found["dropped"] == {"no_choice": 1}
    assert read(tmp_path / "flow") == read(tmp_path / "library")


def test_a_window_that_an_automation_names_is_pulled_to_a_place_of_its_own(
    pull_dataset, exported, tmp_path
):
    span = {"start": "2024-06-01T00:00:00Z", "end": "2024-06-02T00:00:00Z"}

    found = pull_dataset(exported, f"{tmp_path}/{{start}}", **span)

    assert found["destination"].endswith("/20240601T000000Z")
    bundle = json.loads((tmp_path / "20240601T000000Z" / "bundle.json").read_text())
    assert [window["window"] for window in bundle["windows"]] == [
        "20240601T000000Z_20240602T000000Z"
    ]


def test_the_run_leaves_an_artifact_with_the_counts(pull_dataset, exported, tmp_path):
    pull_dataset(exported, str(tmp_path / "told"), options=parse_options({"format": "openai"}))

    with get_client(sync_client=True) as client:
        found = [a for a in client.read_artifacts() if a.key and a.key.startswith("bundle-told")]

    assert "| no_choice | 1 |" in str(found[-1].data)


def test_a_pull_of_nothing_fails_the_run_where_data_is_required(pull_dataset, exported, tmp_path):
    options = parse_options({"format": "openai", "tags": {"no": "such"}})

    assert pull_dataset(exported, str(tmp_path / "none"), options=options)["rows"] == {}
    with pytest.raises(QualityError, match="no row came out, and require_data is on: 0 rows"):
        pull_dataset(exported, str(tmp_path / "none"), options=options, require_data=True)


def test_a_place_that_is_taken_fails_the_run_with_the_librarys_words(
    pull_dataset, exported, tmp_path
):
    pull_dataset(exported, str(tmp_path / "taken"))

    with pytest.raises(ConfigError, match="another bundle"):
        pull_dataset(exported, str(tmp_path / "taken"), options=parse_options({"format": "openai"}))
