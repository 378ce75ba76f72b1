"""Manifest and ledger: what a commit says, and what it refuses to say."""

import dataclasses
import json

import pytest

from pipelines.errors import QualityError
from pipelines.manifest import (
    LEDGER_COLUMNS,
    Ledger,
    add_ledgers,
    commit,
    count_ledger,
    iso_instant,
    list_generations,
    parse_manifest,
)
from tests.builders import (
    events,
    export,
    make_config,
    read_manifest,
    read_manifest_json,
    write_batch,
)

EXPORT_KEYS = {
    "format_version", "name", "window", "generation", "run_id", "committed_at", "config_digest",
    "input_digest", "ledger", "first_event_at", "last_event_at", "batches", "parts", "rejects",
    "engines", "config",
}  # fmt: skip


@pytest.fixture
def exported(site):
    """An export of three events in two partitions, one a reject."""
    rows = events([{}, {"model": "o1"}, {"response": "{"}])
    site.put("a.parquet", write_batch(rows))
    export(make_config(site, partition_by=["model"], max_reject_ratio=1, extra_fields=["id"]))
    return site


def test_entries_are_those_of_redshift(exported):
    document = read_manifest_json(exported)

    parts = read_manifest(exported).parts
    assert [entry["url"] for entry in document["entries"]] == [
        f"{exported.destination.url}/{part.path}" for part in parts
    ]
    assert [entry["meta"] for entry in document["entries"]] == [
        {"content_length": part.bytes, "record_count": part.records} for part in parts
    ]
    assert document["meta"] == {
        "content_length": sum(part.bytes for part in parts),
        "record_count": 2,
    }
    names = [element["name"] for element in document["schema"]["elements"]]
    assert names == ["input", "output", "tags", "id"]
    assert document["author"]["name"] == "request-log-export"


def test_export_key_holds_what_proves_the_export(exported):
    export_key = read_manifest_json(exported)["export"]

    assert set(export_key) == EXPORT_KEYS
    assert (export_key["name"], export_key["window"], export_key["generation"]) == (
        "test-export",
        "all",
        1,
    )
    (batch,) = export_key["batches"]
    listed = exported.source.stat("a.parquet")
    assert (batch["path"], batch["etag"], batch["size"]) == ("a.parquet", listed.etag, listed.size)
    assert export_key["ledger"]["rejected_by"] == {"response_not_json": 1}
    assert [part["partition"] for part in export_key["parts"]] == [
        {"model": "gpt-4o"},
        {"model": "o1"},
    ]
    assert export_key["first_event_at"] == "2024-06-01T09:30:00.000000Z"
    assert {"duckdb", "pyarrow", "python"} <= set(export_key["engines"])


def test_config_in_the_manifest_holds_no_secret(exported):
    text = json.dumps(read_manifest_json(exported)["export"]["config"])

    assert "secret" not in text


def test_manifest_reads_back_as_it_was_written(exported):
    manifest = read_manifest(exported)

    again = parse_manifest(manifest.to_json(), destination=manifest.destination, where="test")

    assert again == manifest


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"export": {"format_version": 1}}', b'{"export": 1}']
)
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(QualityError, match="here: not a manifest of request-log-export"):
        parse_manifest(data, destination="file:///x", where="here")


def test_manifest_of_a_newer_format_asks_for_an_upgrade():
    data = b'{"export": {"format_version": 99}, "schema": {"elements": []}}'

    with pytest.raises(QualityError, match=r"newer than .* upgrade request-log-export"):
        parse_manifest(data, destination="file:///x", where="here")


def test_second_commit_of_a_generation_changes_nothing(exported):
    manifest = read_manifest(exported)
    rival = dataclasses.replace(manifest, run_id="another")

    assert commit(exported.destination, rival) == manifest

    assert read_manifest(exported) == manifest


def test_own_commit_sent_again_counts_as_committed(exported):
    manifest = read_manifest(exported)

    assert commit(exported.destination, manifest).run_id == manifest.run_id


def test_part_of_another_size_refuses_the_commit(exported):
    manifest = read_manifest(exported)
    part = dataclasses.replace(manifest.parts[0], bytes=1)
    wrong = dataclasses.replace(manifest, generation=2, parts=(part,))

    with pytest.raises(QualityError, match="bytes, 1 were written; nothing was committed"):
        commit(exported.destination, wrong)

    assert list_generations(exported.destination) == {"all": 1}


@pytest.mark.parametrize("column", LEDGER_COLUMNS)
def test_ledger_with_an_event_too_many_refuses_the_commit(exported, column):
    manifest = read_manifest(exported)
    ledger = dataclasses.replace(manifest.ledger, **{column: getattr(manifest.ledger, column) + 1})
    wrong = dataclasses.replace(manifest, generation=2, ledger=ledger)

    with pytest.raises(QualityError, match="the ledger does not add up"):
        commit(exported.destination, wrong)

    assert list_generations(exported.destination) == {"all": 1}


def test_reasons_that_do_not_add_up_are_refused():
    ledger = Ledger(read=2, rejected=2, rejected_by={"a": 1})

    with pytest.raises(QualityError, match="does not add up"):
        ledger.check("here")


def test_sum_of_ledgers_adds_columns_and_reasons():
    one = count_ledger(4, [("exported", "", 1), ("rejected", "a", 1), ("filtered", "f", 2)])
    other = count_ledger(3, [("superseded", "", 1), ("rejected", "b", 1), ("rejected", "a", 1)])

    total = add_ledgers([one, other])

    total.check("here")
    assert (total.read, total.exported, total.superseded, total.filtered) == (7, 1, 1, 2)
    assert total.rejected_by == {"a": 2, "b": 1}


def test_generations_sort_by_number(site):
    for generation in (1, 2, 10):
        site.destination.create(f"_meta/manifests/all/{generation:08d}.json", b"{}")
    site.destination.create("_meta/manifests/all/notes.json", b"{}")

    assert list_generations(site.destination) == {"all": 10}


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        pytest.param(None, None, id="none"),
        pytest.param(0, "1970-01-01T00:00:00.000000Z", id="epoch"),
        pytest.param(-1, "1969-12-31T23:59:59.999999Z", id="before"),
    ],
)
def test_instant_is_iso_in_utc(microseconds, text):
    assert iso_instant(microseconds) == text
