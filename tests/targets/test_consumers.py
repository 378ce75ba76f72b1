"""What the packages that read bundles say about rows, good ones and bad ones."""

import json
from dataclasses import replace

import pytest

from pipelines.targets.preference import to_pair
from pipelines.targets.registry import TARGETS
from tests.targets.examples import (
    ANSWER,
    IMAGES,
    PLAIN,
    SYSTEM,
    USER,
    call,
    calls,
    example,
    message,
    result,
    tool,
)

WITH_IMAGES = ("openai", "openpipe", "together", "fireworks", "mistral")
# Who checks the rules of a target, not only that the file can be read.
OWN = {
    "openai": "openai",
    "fireworks": "openai",  # "OpenAI-compatible chat completion format"
    "together": "together",
    "mistral": "mistral",
    "trl": "trl",
    "trl-completion": "trl",
}
READERS = ("datasets", "duckdb", "pandas")
SINGLE = [name for name, target in TARGETS.items() if name != "records" and not target.needs_pairs]


def write_rows(path, rows):
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def rows_of(name):
    examples = PLAIN | (IMAGES if name in WITH_IMAGES else {})
    return [TARGETS[name].to_row(given)[0] for given in examples.values()]


def pairs(style):
    rows = []
    for given in PLAIN.values():
        if len(given.messages) > 1:
            other = replace(given, messages=(*given.messages[:-1], message("assistant", "No.")))
            rows.append(to_pair(given, other, style)[0])
    return rows


@pytest.mark.parametrize(("target", "consumer"), OWN.items())
def test_rows_are_taken_by_whom_they_are_for(target, consumer, consume, tmp_path):
    rows = rows_of(target)

    verdict = consume(consumer, write_rows(tmp_path / "train-00000.jsonl", rows))

    assert verdict.ok, verdict.detail
    assert verdict.rows == len(rows)


@pytest.mark.parametrize("consumer", READERS)
@pytest.mark.parametrize("target", SINGLE)
def test_rows_come_out_as_they_went_in(target, consumer, consume, tmp_path):
    rows = rows_of(target)

    verdict = consume(consumer, write_rows(tmp_path / "train-00000.jsonl", rows))

    assert verdict.ok, verdict.detail
    assert verdict.rows == len(rows)


@pytest.mark.parametrize(
    ("style", "consumer"),
    [("openai", "openai"), ("together", "together"), ("fireworks", "openai"), ("trl", "trl")],
)
def test_pairs_are_taken_by_whom_they_are_for(style, consumer, consume, tmp_path):
    rows = pairs(style)

    verdict = consume(consumer, write_rows(tmp_path / "train-00000.jsonl", rows))

    assert verdict.ok, verdict.detail
    assert verdict.rows == len(rows)


@pytest.mark.s3
@pytest.mark.parametrize("target", ["openai", "trl"])
def test_datasets_reads_rows_from_s3(target, consume, s3, tmp_path):
    rows = rows_of(target)
    path = write_rows(tmp_path / "train-00000.jsonl", rows)
    key = f"consumers/{target}/train-00000.jsonl"
    s3.client().put_object(Bucket="exports", Key=key, Body=path.read_bytes())

    verdict = consume(
        "datasets",
        f"s3://exports/{key}",
        storage_options={"client_kwargs": {"endpoint_url": s3.endpoint}},
        environment=s3.environment(),
    )

    assert verdict.ok, verdict.detail
    assert verdict.rows == len(rows)


CHAT = {"messages": [SYSTEM, USER, ANSWER]}
CALLED = {
    "messages": [USER, calls(call("abcdefghi")), result("abcdefghi"), ANSWER],
    "tools": [tool()],
}


def changed(row, place, **more):
    messages = [dict(given) for given in row["messages"]]
    messages[place] |= more
    return row | {"messages": messages}


@pytest.mark.parametrize(
    ("consumer", "row", "why"),
    [
        ("together", CHAT | {"parallel_tool_calls": True}, "extra column"),
        ("together", changed(CHAT, 0, role="developer"), "Invalid role"),
        ("together", changed(CHAT, 1, content=[{"type": "text", "text": "?"}]), "multimodal"),
        ("together", {"messages": IMAGES["image"].messages}, "multimodal"),
        ("mistral", changed(CALLED, 2, tool_call_id="call_1"), "length of 9"),
        ("mistral", changed(CALLED, 1, content="Let me see."), "but not both"),
        ("mistral", {"messages": [SYSTEM, SYSTEM, USER, ANSWER]}, "system"),
        ("mistral", {"messages": [SYSTEM, USER]}, "Expected last role"),
        ("mistral", changed(CHAT, 1, name="anna"), "Extra inputs"),
        ("mistral", CALLED | {"tools": [tool(description=None)]}, "description"),
        ("mistral", CALLED | {"tools": [tool(parameters={"type": "OBJECT"})]}, "schema"),
        ("openai", changed(CHAT, 0, role="developer"), "developer"),
        ("openai", changed(CHAT, 1, cache_control={}), "cache_control"),
        ("openai", changed(CHAT, 1, content=[{"type": "input_text", "text": "?"}]), "type"),
        ("openai", CHAT | {"split": "TRAIN"}, "unknown keys"),
        ("openai", changed(CALLED, 1, tool_calls=[call("a", arguments={})]), "valid string"),
        ("trl", {"messages": "Hello"}, "not conversational"),
        ("trl", CALLED | {"tools": "no JSON"}, "JSONDecodeError"),
        ("trl", {"tools": "[]"} | {"messages": CALLED["messages"]}, "arg"),
        ("duckdb", {"messages": ["a"], "Messages": ["b"]}, "different"),
        ("pandas", {"messages": [{"content": "a", "n": 10**400}]}, ""),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused(consumer, row, why, consume, tmp_path):
    verdict = consume(consumer, write_rows(tmp_path / "train-00000.jsonl", [CHAT, row]))

    assert not verdict.ok
    assert why in verdict.detail


@pytest.mark.parametrize("consumer", ["datasets", "duckdb", "pandas", "together"])
def test_a_file_that_is_cut_off_is_refused(consumer, consume, tmp_path):
    path = write_rows(tmp_path / "train-00000.jsonl", [CHAT, CALLED])
    path.write_bytes(path.read_bytes()[:-20])

    assert not consume(consumer, path).ok


def test_together_refuses_a_compressed_file(consume, tmp_path):
    path = write_rows(tmp_path / "train-00000.jsonl", [CHAT])

    assert "extension" in consume("together", path.rename(f"{path}.gz")).detail


def test_a_row_without_any_repair_is_what_was_given(consume, tmp_path):
    row, repairs = TARGETS["openai"].to_row(example())

    assert (row, repairs) == (CHAT, ())
    assert consume("openai", write_rows(tmp_path / "train-00000.jsonl", [row])).ok
