"""Bundles of the 300 real calls, and of hostile records, given to the packages that read them."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.config import parse_config
from pipelines.export import run_export
from pipelines.pull import pull
from pipelines.pull_options import parse_options
from pipelines.sample import sample_config
from pipelines.targets.registry import TARGETS
from tests.builders import event, export, write_batch
from tests.chat.recorded import chat
from tests.targets.examples import USER, call, calls, message, part, result, tool
from tests.targets.test_consumers import OWN, READERS

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SINGLE = [name for name, target in TARGETS.items() if not target.needs_pairs and name != "records"]
# Rows of the real calls, and records left out by reason, which every format shares.
ROWS = {
    "openai": 90,
    "openpipe": 79,
    "together": 90,
    "fireworks": 90,
    "mistral": 78,
    "trl": 88,
    "trl-completion": 93,
    "axolotl": 89,
    "llamafactory": 77,
}
HOSTILE = (
    "",
    "\u2028\u2029\x85\x00\x1f",
    '"\\"\n\r\t',
    "😀 é \u202e",
    "</s><|im_end|>{{ bos_token }}",
    "a" * 200_000,
    "[[[[" * 100,
    "NaN",
    "1e400",
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A folder with a bundle of each format, of the real calls."""
    base = tmp_path_factory.mktemp("bundles")
    config = sample_config(str(base / "exported"))
    run_export(config, now=NOW)
    return base, {
        name: pull(config, str(base / name), parse_options({"format": name}))
        for name in TARGETS
        if name in SINGLE
    }


def test_rows_of_the_real_calls(bundles):
    _, summaries = bundles

    assert {name: found.total_rows for name, found in summaries.items()} == ROWS
    for found in summaries.values():
        assert found.read == found.total_rows + sum(found.dropped.values()) == 283
        assert found.dropped["error_output"] == 16
        assert found.dropped["finish_length"] == 15


@pytest.mark.consumers
@pytest.mark.parametrize(("target", "consumer"), OWN.items())
def test_bundles_of_real_calls_are_taken_by_whom_they_are_for(bundles, consume, target, consumer):
    base, summaries = bundles

    (verdict,) = consume(consumer, base / target / "train.jsonl")

    assert verdict.ok, verdict.detail
    assert verdict.rows == summaries[target].total_rows


@pytest.mark.consumers
@pytest.mark.parametrize("consumer", READERS)
def test_bundles_of_real_calls_are_read_whole(bundles, consume, consumer):
    base, summaries = bundles

    verdicts = consume(consumer, *(base / name / "train.jsonl" for name in SINGLE))

    for name, verdict in zip(SINGLE, verdicts, strict=True):
        assert verdict.ok, (name, verdict.detail)
        assert verdict.rows == summaries[name].total_rows


@pytest.mark.s3
@pytest.mark.consumers
@pytest.mark.parametrize("consumer", ["datasets"])
def test_bundles_that_a_pull_wrote_to_s3_are_read_there(bundles, consume, consumer, s3_env):
    base, summaries = bundles
    options = {"endpoint_url": s3_env.endpoint}
    config = sample_config(str(base / "exported"))
    place = f"s3://exports/bundles-{uuid.uuid4().hex[:12]}"
    at_s3 = pull(
        config.destination.url,
        f"{place}/openai",
        parse_options({"format": "openai"}),
        storage_options=options,
    )

    (verdict,) = consume(
        consumer,
        f"{place}/openai/train.jsonl",
        storage_options={"client_kwargs": options},
        environment=s3_env.environment(),
    )

    assert verdict.ok, verdict.detail
    assert verdict.rows == at_s3.total_rows == summaries["openai"].total_rows


BIG = (2**63, 2**64, -(2**63) - 1, 10**30)
HALF = 'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d"}, "finish_reason": "stop"}]}'
CALLED = {"role": "assistant", "content": None, "tool_calls": [call("c1")]}
HISTORIES = (
    [{"role": "system", "content": ""}, USER],
    [{"role": "system", "content": [part("a"), part("b")]}, USER],
    [message("user", "")],
    [message("user", [part("")])],
    [message("user", [part(""), part("")])],
    [USER, CALLED, result("c1", "")],
    [USER, CALLED, result("c1", [part("a"), part("b")], name="get_weather")],
    [USER, CALLED | {"content": "Let me see."}, result("c1")],
    [USER, CALLED | {"content": [part("Let"), part("me")]}, result("c1")],
    [USER, message("assistant", [part("a"), part("b")]), USER],
    [USER, {"role": "assistant", "content": None, "tool_calls": [call("c1", "a.b")]}, result("c1")],
    [message("user", "Hi", name="anna <b>")],
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"tools": [tool(f"f{number}") for number in range(129)]},
    {"tools": [tool("f" * 65)]},
    {"tools": [tool(novel={"a": 1})]},
    {"tools": [tool()], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
    {"response_format": {"type": "grammar", "grammar": "x"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
    *({"tools": [tool(parameters={"type": "object", "maxProperties": n})]} for n in BIG if n > 0),
    {"tools": [tool(parameters={"type": "object", "default": {"n": BIG[2]}})]},
)
ARGUMENTS = (
    '{"a": "\\ud83d"}',
    '{"a": 1, "a": 2}',
    '{"a": 0.5, "b": 1e999}',
    '{"a": 0.10000000000000000001}',
    *(f'{{"a": [{n}]}}' for n in BIG),
)


# Of the hostile records, those left out by reason, beside an empty answer of each format.
SERVICE = {
    "arguments_not_json": 1,
    "over_limit": 1,
    "unsupported_content": 5,
    "unsupported_tool": 2,
}
LEFT_OUT = {
    "openai": SERVICE,
    "openpipe": SERVICE | {"unsupported_content": 11},  # empty messages, text beside calls
    "together": SERVICE,
    "fireworks": SERVICE,
    "mistral": {"arguments_not_json": 1, "unsupported_content": 8, "unsupported_tool": 2},
    # Arguments are objects there: a name that stands twice, a number that is infinite.
    "trl": {"arguments_not_json": 3, "unsupported_content": 5},
    "trl-completion": {"arguments_not_json": 3, "unsupported_content": 5},
    "axolotl": {"arguments_not_json": 1, "unsupported_content": 1},
    "llamafactory": {"arguments_not_json": 2, "unsupported_content": 4},
}


def hostile_calls():
    """Yield requests and answers of shapes that some service refuses."""
    asked = {"model": "m", "messages": [USER]}
    yield asked, HALF + "\n\n"
    for messages in HISTORIES:
        yield asked | {"messages": messages}, chat()
    for settings in SETTINGS:
        yield asked | settings, chat()
    for arguments in ARGUMENTS:
        yield asked, chat(calls(call("c1", arguments=arguments)))
    yield asked, chat({"content": [part("a"), part("b")]})
    yield asked, chat(calls(call("c1"), content="Let me see."))


def hostile_events():
    """Calls in which hostile text stands at every place that may hold text, and hostile shapes."""
    for number, (request, response) in enumerate(hostile_calls()):
        answered = response if isinstance(response, str) else json.dumps(response)
        yield event(id=f"shape-{number}", request=json.dumps(request), response=answered)
    for number, text in enumerate(HOSTILE):
        function = {"name": "f", "description": text, "parameters": {"type": "object"}}
        request = {
            "model": "m",
            "messages": [
                {"role": "system", "content": text},
                {"role": "user", "content": f"{number} {text}"},
            ],
            "tools": [{"type": "function", "function": function}],
        }
        called = {"name": "f", "arguments": json.dumps({"x": text})}
        for said in (
            {"content": f"{text}."},
            {"content": None, "tool_calls": [{"id": "i", "type": "function", "function": called}]},
            {"content": text, "tool_calls": []},
        ):
            choice = {"index": 0, "message": {"role": "assistant", **said}}
            choice["finish_reason"] = "stop"
            response = {"object": "chat.completion", "choices": [choice]}
            yield event(
                id=f"{number}-{len(json.dumps(said))}",
                request=json.dumps(request),
                response=json.dumps(response),
            )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with a bundle of each format, of the hostile calls."""
    base = tmp_path_factory.mktemp("hostile")
    (base / "raw").mkdir()
    (base / "raw" / "a.parquet").write_bytes(write_batch(hostile_events()))
    document = {
        "name": "hostile",
        "source": {"url": str(base / "raw"), "preset": "generic"},
        "destination": {"url": str(base / "exported")},
    }
    config = parse_config(document, origin="test", base=base)
    export(config)
    options = {"duplicates": "keep", "conversations": "all"}
    return base, {
        name: pull(config, str(base / name), parse_options({"format": name, **options}))
        for name in SINGLE
    }


def test_every_hostile_record_is_a_row_or_left_out_by_reason(hostile):
    _, summaries = hostile

    for name, found in summaries.items():
        assert found.read == found.total_rows + sum(found.dropped.values())
        assert (name, found.dropped) == (name, LEFT_OUT[name] | {"empty_answer": 1})


@pytest.mark.consumers
@pytest.mark.parametrize("consumer", [*READERS, *sorted(set(OWN.values()))])
def test_hostile_records_make_rows_that_are_taken(hostile, consume, consumer):
    base, summaries = hostile
    targets = [name for name in SINGLE if consumer in READERS or OWN.get(name) == consumer]

    verdicts = consume(consumer, *(base / name / "train.jsonl" for name in targets))

    for name, verdict in zip(targets, verdicts, strict=True):
        assert verdict.ok, (name, verdict.detail)
        assert verdict.rows == summaries[name].total_rows > len(HOSTILE)
