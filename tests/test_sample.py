"""The bundled sample is what pipelines/sample/ORIGIN.md says it is."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SAMPLE = Path(__file__).parents[1] / "pipelines" / "sample"
BATCHES = sorted((SAMPLE / "openpipe").rglob("*.parquet"))
UNDATED = "__HIVE_DEFAULT_PARTITION__"
INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = {
    "id": pa.string(),
    "requestedAt": INSTANT,
    "receivedAt": INSTANT,
    "cacheHit": pa.bool_(),
    "reqPayload": pa.string(),
    "respPayload": pa.string(),
    "statusCode": pa.int32(),
    "errorMessage": pa.string(),
    "durationMs": pa.int32(),
    "inputTokens": pa.int32(),
    "outputTokens": pa.int32(),
    "finishReason": pa.string(),
    "completionId": pa.string(),
    "model": pa.string(),
    "cost": pa.float64(),
    "projectId": pa.string(),
    "tags": pa.map_(pa.string(), pa.string()),
    "createdAt": INSTANT,
    "updatedAt": INSTANT,
}
# Of the bodies, in the order of their own hashes: whoever derives the sample anew sees here
# whether a single byte of a body moved.
BODIES_SHA256 = "8919c1fd8454ef1018441f7c72727abf4e8257172605c39116cea287f8184ab8"


def read_batch(path):
    return pq.ParquetFile(path).read()


def digest_bodies(events):
    bodies = zip(events["reqPayload"], events["respPayload"], strict=True)
    each = (request + "\0" + response for request, response in bodies)
    hashes = sorted(hashlib.sha256(text.encode()).hexdigest() for text in each)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@pytest.fixture(scope="module")
def events():
    table = pa.concat_tables([read_batch(path) for path in BATCHES])
    return {name: table[name].to_pylist() for name in table.column_names}


@pytest.fixture(scope="module")
def tags(events):
    return [dict(of_event) for of_event in events["tags"]]


def test_there_are_eight_small_batches_one_of_them_in_several_row_groups():
    groups = [pq.read_metadata(path).num_row_groups for path in BATCHES]

    assert len(BATCHES) == 8
    assert max(groups) > 1
    assert sum(path.stat().st_size for path in BATCHES) < 400_000


def test_every_body_is_there_as_recorded(events):
    assert len(events["reqPayload"]) == 300
    assert digest_bodies(events) == BODIES_SHA256


def test_every_event_has_an_id_of_its_own(events):
    assert len(set(events["id"])) == 300
    assert all(str(UUID(event_id)) == event_id for event_id in events["id"])


@pytest.mark.parametrize("path", BATCHES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_batch_has_the_columns_of_a_logged_call_for_pyarrow_and_for_duckdb(path):
    with duckdb.connect() as con:
        rows = con.sql(
            "from read_parquet($path, hive_partitioning = false)", params={"path": str(path)}
        )
        from_duckdb = dict(zip(rows.columns, map(str, rows.types), strict=True))
        ((count,),) = rows.count("*").fetchall()
    schema = pq.read_schema(path)

    assert {field.name: field.type for field in schema} == SCHEMA
    assert list(from_duckdb) == list(SCHEMA)
    assert from_duckdb["tags"] == "MAP(VARCHAR, VARCHAR)"
    assert from_duckdb["requestedAt"] == "TIMESTAMP WITH TIME ZONE"
    assert count == read_batch(path).num_rows


@pytest.mark.parametrize("path", BATCHES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_path_names_the_year_of_every_event_in_a_batch(path):
    requested_at = read_batch(path)["requestedAt"].to_pylist()
    years = {f"year={at.year}" if at else f"year={UNDATED}" for at in requested_at}

    assert years == {path.parent.name}


@pytest.mark.parametrize("path", BATCHES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_row_group_carries_time_statistics(path):
    metadata = pq.read_metadata(path)
    column = list(SCHEMA).index("requestedAt")
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]

    for group in groups:
        statistics = group.column(column).statistics
        assert statistics.null_count == (group.num_rows if UNDATED in str(path) else 0)
        assert statistics.has_min_max == (UNDATED not in str(path))


def test_events_without_a_time_are_the_seventeen_that_were_recorded_without_one(events, tags):
    undated = Counter(
        of_event["source"]
        for of_event, at in zip(tags, events["requestedAt"], strict=True)
        if at is None
    )

    assert undated == {"langchain-anthropic": 16, "langchain-openai": 1}


def test_every_request_is_json(events):
    assert all(json.loads(request) is not None for request in events["reqPayload"])


def test_errors_are_kept_with_their_messages(events):
    errors = [
        (status, message, json.loads(response))
        for status, message, response in zip(
            events["statusCode"], events["errorMessage"], events["respPayload"], strict=True
        )
        if message is not None
    ]

    assert Counter(events["statusCode"]) == {200: 283, 400: 6, 401: 3, 404: 8}
    assert Counter(status for status, _, _ in errors) == {400: 6, 401: 3, 404: 8}
    for _, message, body in errors:
        assert message in (body.get("error", body).get("message"), body.get("detail"))


def test_tool_calls_are_kept(events):
    assert events["finishReason"].count("tool_calls") == 15
    assert events["finishReason"].count("tool_use") == 16


def test_streams_are_kept_as_they_came_and_say_so(events, tags):
    streams = [
        (of_event.get("response_encoding", "text"), response)
        for of_event, response in zip(tags, events["respPayload"], strict=True)
        if of_event.get("streamed") == "true"
    ]
    server_sent = [response for encoding, response in streams if encoding == "text"]
    binary = [response for encoding, response in streams if encoding == "base64"]

    assert (len(server_sent), len(binary)) == (91, 10)
    assert all(response.startswith(("data:", "event:")) for response in server_sent)
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", response) for response in binary)


def test_no_header_or_credential_came_along(events, tags):
    names = {"source", "version", "provider", "kind", "streamed", "response_encoding"}
    secret = re.compile(r"\b(sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|Bearer \w+)")
    texts = [*events["reqPayload"], *events["respPayload"]]

    assert set().union(*tags) == names
    assert not [found for text in texts for found in secret.findall(text)]


def test_origin_counts_the_events_of_every_source_and_ships_its_licence(tags):
    row = re.compile(r"^\| (\S+) \| (\S+) \| (\d+) \| \S+ \| `(licenses/\S+)` \|$", re.MULTILINE)
    rows = row.findall((SAMPLE / "ORIGIN.md").read_text("utf-8"))
    counted = Counter((of_event["source"], of_event["version"]) for of_event in tags)

    assert {(source, version): int(calls) for source, version, calls, _ in rows} == counted
    assert {text for *_, text in rows} == {
        path.relative_to(SAMPLE).as_posix() for path in (SAMPLE / "licenses").iterdir()
    }


def test_the_documented_example_of_openpipe_has_its_two_records():
    lines = (SAMPLE.parents[1] / "tests/data/openpipe_docs_example.jsonl").read_text("utf-8")
    records = [json.loads(line) for line in lines.splitlines()]

    assert [list(record) for record in records] == [["input", "output", "tags"]] * 2
