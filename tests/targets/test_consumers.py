"""What the packages that read bundles say about rows, good ones and bad ones."""

import json
from dataclasses import replace

import pytest
import yaml

from pipelines.targets.columns import FEATURES, leading, shape
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
    image_part,
    message,
    part,
    result,
    tool,
)

WITH_IMAGES = ("openai", "openpipe", "together", "fireworks", "mistral")
# Who checks the rules of a target, not only that the file can be read.
OWN = {
    "openai": "openai",
    "openpipe": "openpipe",
    "fireworks": "openai",  # "OpenAI-compatible chat completion format"
    "together": "together",
    "mistral": "mistral",
    "trl": "trl",
    "trl-completion": "trl",
}
READERS = ("datasets", "duckdb", "pandas")
pytestmark = pytest.mark.consumers
SINGLE = [name for name, target in TARGETS.items() if name != "records" and not target.needs_pairs]


def write_rows(path, rows):
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def rows_of(name):
    examples = PLAIN | (IMAGES if name in WITH_IMAGES else {})
    rows = [TARGETS[name].to_row(given)[0] for given in examples.values()]
    # What the pull writes there.
    return [row | {"split": "TRAIN"} for row in rows] if name == "openpipe" else rows


def pairs(style):
    rows = []
    for given in PLAIN.values():
        if len(given.messages) > 1:
            other = replace(given, messages=(*given.messages[:-1], message("assistant", "No.")))
            rows.append(to_pair(given, other, style)[0])
    return rows


def assert_taken(verdict, rows):
    assert verdict.ok, verdict.detail
    assert verdict.rows == len(rows)


@pytest.mark.parametrize(("target", "consumer"), OWN.items())
def test_rows_are_taken_by_whom_they_are_for(target, consumer, consume, tmp_path):
    rows = rows_of(target)

    (verdict,) = consume(consumer, write_rows(tmp_path / "train-00000.jsonl", rows))

    assert_taken(verdict, rows)


@pytest.mark.parametrize("consumer", READERS)
def test_rows_of_every_target_come_out_as_they_went_in(consumer, consume, tmp_path):
    rows = {name: rows_of(name) for name in SINGLE}
    paths = [write_rows(tmp_path / f"{name}-00000.jsonl", rows[name]) for name in SINGLE]

    verdicts = consume(consumer, *paths)

    assert {
        name: found.detail for name, found in zip(SINGLE, verdicts, strict=True)
    } == dict.fromkeys(SINGLE, "")
    assert [found.rows for found in verdicts] == [len(rows[name]) for name in SINGLE]


@pytest.mark.parametrize(
    ("style", "consumer"),
    [("openai", "openai"), ("together", "together"), ("fireworks", "openai"), ("trl", "trl")],
)
def test_pairs_are_taken_by_whom_they_are_for(style, consumer, consume, tmp_path):
    rows = pairs(style)

    (verdict,) = consume(consumer, write_rows(tmp_path / "train-00000.jsonl", rows))

    assert_taken(verdict, rows)


@pytest.mark.s3
def test_datasets_reads_rows_from_s3(consume, s3, tmp_path):
    rows = rows_of("trl")
    path = write_rows(tmp_path / "train-00000.jsonl", rows)
    key = "consumers/train-00000.jsonl"
    s3.client().put_object(Bucket="exports", Key=key, Body=path.read_bytes())

    (verdict,) = consume(
        "datasets",
        f"s3://exports/{key}",
        storage_options={"client_kwargs": {"endpoint_url": s3.endpoint}},
        environment=s3.environment(),
    )

    assert_taken(verdict, rows)


def big_rows(name):
    """Return more plain rows than `datasets` looks at before it decides, then all kinds."""
    long = example(message("user", "2024-01-01"), message("assistant", "y" * 1_000_000))
    return [TARGETS[name].to_row(long)[0]] * 11 + rows_of(name)


def test_rows_that_lead_show_datasets_every_key(consume, tmp_path):
    names = [name for name in SINGLE if name != "llamafactory"]  # whose rows are all alike
    paths = []
    for name in names:
        rows = big_rows(name)
        places = leading(map(shape, rows))
        first = [rows[place] for place in places]
        rest = [row for place, row in enumerate(rows) if place not in places]
        paths.append(write_rows(tmp_path / f"{name}-as-they-come.jsonl", rows))
        paths.append(write_rows(tmp_path / f"{name}-led.jsonl", first + rest))

    verdicts = consume("datasets", *paths)

    assert not any(verdict.ok for verdict in verdicts[::2])
    assert {verdict.detail for verdict in verdicts[1::2]} == {""}


def test_a_dataset_card_tells_datasets_every_key(consume, tmp_path):
    for name in SINGLE:
        card = {"dataset_info": {"features": FEATURES[name]}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
        write_rows(tmp_path / name / "train-00000.jsonl", big_rows(name))

    verdicts = consume("datasets", *(tmp_path / name for name in SINGLE))

    assert {verdict.detail for verdict in verdicts} == {""}


CHAT = {"messages": [SYSTEM, USER, ANSWER]}
CALLED = {
    "messages": [USER, calls(call("abcdefghi")), result("abcdefghi"), ANSWER],
    "tools": [tool()],
}


def changed(row, place, **more):
    messages = [dict(given) for given in row["messages"]]
    messages[place] |= more
    return row | {"messages": messages}


BROKEN = {
    "together": [
        (CHAT | {"parallel_tool_calls": True}, "extra column"),
        (changed(CHAT, 0, role="developer"), "Invalid role"),
        (changed(CHAT, 1, content=[{"type": "text", "text": "?"}]), "multimodal"),
        ({"messages": IMAGES["image"].messages}, "multimodal"),
        ({"messages": [USER]}, "assistant role"),
    ],
    "mistral": [
        (changed(CALLED, 2, tool_call_id="call_1"), "length of 9"),
        (changed(CALLED, 1, content="Let me see."), "but not both"),
        (changed(CHAT, 2, content=""), "but not both"),
        ({"messages": [SYSTEM, SYSTEM, USER, ANSWER]}, "system"),
        ({"messages": [USER, ANSWER, SYSTEM, ANSWER]}, "Unexpected role"),
        ({"messages": [SYSTEM, USER]}, "Expected last role"),
        (changed(CHAT, 1, name="anna"), "Extra inputs"),
        (CALLED | {"tools": [tool(description=None)]}, "description"),
        (CALLED | {"tools": [tool(parameters={"type": "OBJECT"})]}, "schema"),
        (CALLED | {"tools": [tool("get.weather")]}, "Function name"),
    ],
    "openai": [
        (changed(CHAT, 0, role="developer"), "the role developer"),
        (changed(CHAT, 1, cache_control={}), "cache_control"),
        (changed(CHAT, 1, content=[{"type": "input_text", "text": "?"}]), "input_text"),
        (CHAT | {"split": "TRAIN"}, "unknown keys"),
        (changed(CALLED, 1, tool_calls=[call("a", arguments={})]), "valid string"),
        ({"messages": [USER]}, "no answer"),
        (changed(CALLED, 2, name="get_weather"), "name"),
        (CALLED | {"tools": [tool(f"f{n}") for n in range(129)]}, "128 tools"),
        (CALLED | {"tools": [tool("get.weather")]}, "a name that"),
        (changed(CALLED, 1, tool_calls=[call("a", "get weather")]), "a name that"),
    ],
    "openpipe": [
        ({"messages": [USER]}, "final message"),
        (changed(CHAT, 0, content=""), "no content"),
        (changed(CHAT, 1, content=""), "no content"),
        (changed(CHAT, 2, content=None), "no content"),
        (changed(CALLED, 2, content=""), "no content"),
        (changed(CALLED, 1, content="Let me see."), "more than one"),
        (changed(CHAT, 2, content=[part("Yes.")]), "content of assistant"),
        (changed(CHAT, 0, content=[part("Hm.")]), "content of system"),
        (changed(CHAT, 0, role="developer"), "content of developer"),
        (changed(CALLED, 1, tool_calls=[call("a", arguments={})]), "arguments"),
        (changed(CHAT, 1, content=[image_part(detail="original")]), "detail"),
        (CHAT | {"split": None}, "split"),
        (CHAT | {"tool_choice": {"function": {}}}, "name"),
        (CHAT | {"response_format": {"type": "grammar"}}, "response_format"),
        (CHAT | {"metadata": {"a": 1}}, "metadata"),
        (CHAT | {"parallel_tool_calls": True}, "unknown keys"),
    ],
    "trl": [
        ({"messages": "Hello"}, "not conversational"),
        (changed(CALLED, 1, content="") | {"tools": "no JSON"}, "JSONDecodeError"),
        (changed(CALLED, 1, content="") | {"tools": "[]"}, "text in text"),
        ({"prompt": [SYSTEM], "completion": [ANSWER]}, "Invalid role"),
    ],
    "duckdb": [({"messages": ["a"], "MESSAGES": ["b"]}, "")],
    "pandas": [({"messages": [{"content": "a", "n": 10**400}]}, "")],
}


@pytest.mark.parametrize("consumer", BROKEN)
def test_a_row_that_breaks_a_rule_is_refused(consumer, consume, tmp_path):
    broken = BROKEN[consumer]
    paths = [
        write_rows(tmp_path / f"train-{place:05}.jsonl", [row])
        for place, (row, _) in enumerate(broken)
    ]

    verdicts = consume(consumer, *paths)

    assert not any(verdict.ok for verdict in verdicts)
    assert [
        why for verdict, (_, why) in zip(verdicts, broken, strict=True) if why not in verdict.detail
    ] == []


@pytest.mark.parametrize("consumer", ["datasets", "duckdb", "pandas", "together"])
def test_a_file_that_is_cut_off_is_refused(consumer, consume, tmp_path):
    path = write_rows(tmp_path / "train-00000.jsonl", [CHAT, CALLED])
    path.write_bytes(path.read_bytes()[:-20])

    (verdict,) = consume(consumer, path)

    assert not verdict.ok


def test_together_refuses_a_compressed_file(consume, tmp_path):
    path = write_rows(tmp_path / "train-00000.jsonl.gz", [CHAT])

    (verdict,) = consume("together", path)

    assert "extension" in verdict.detail
