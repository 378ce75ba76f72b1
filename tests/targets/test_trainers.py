"""Rows of TRL, Axolotl and LLaMA-Factory."""

import json

import pytest

from pipelines.targets import axolotl, llamafactory, trl
from tests.targets.examples import (
    ANSWER,
    HOSTILE_TEXT,
    IMAGES,
    LONG_ID,
    PLAIN,
    SYSTEM,
    USER,
    call,
    calls,
    example,
    message,
    reason_of,
    result,
    tool,
)

TRAINERS = (trl.to_row, trl.to_completion_row, axolotl.to_row, llamafactory.to_row)


@pytest.mark.parametrize("to_row", TRAINERS)
def test_images_are_dropped(to_row):
    assert reason_of(to_row, IMAGES["image"]) == "unsupported_content"


@pytest.mark.parametrize("to_row", TRAINERS)
def test_every_content_is_text(to_row):
    for given in PLAIN.values():
        row, _ = to_row(given)
        messages = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
        assert all(isinstance(message["content"], str) for message in messages)


def test_trl_arguments_are_objects_and_tools_are_text():
    row, repairs = trl.to_row(PLAIN["call"])

    (made,) = row["messages"][1]["tool_calls"]
    assert made == {
        "id": LONG_ID,
        "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
    }
    assert json.loads(row["tools"]) == [tool()]
    assert repairs == ("empty_content_added",)


def test_trl_rows_without_tools_have_no_tools():
    assert trl.to_row(example()) == ({"messages": [SYSTEM, USER, ANSWER]}, ())


def test_trl_completion_is_the_answer_and_the_prompt_is_the_rest():
    row, _ = trl.to_completion_row(example())

    assert row == {"prompt": [SYSTEM, USER], "completion": [ANSWER]}


@pytest.mark.parametrize(
    "given", [example(ANSWER), example(SYSTEM, ANSWER), example(USER, ANSWER, ANSWER)]
)
def test_trl_prompts_end_with_user_or_tool(given):
    assert reason_of(trl.to_completion_row, given) == "wrong_turns"


@pytest.mark.parametrize(
    "arguments", ["", "[1]", '"a"', '{"a": NaN}', '{"a": 1e999}', "{", "[" * 100_000]
)
@pytest.mark.parametrize("to_row", [trl.to_row, llamafactory.to_row])
def test_arguments_that_are_no_json_object_are_dropped(to_row, arguments):
    given = example(USER, calls(call("a", arguments=arguments)))

    assert reason_of(to_row, given) == "arguments_not_json"


def test_axolotl_arguments_and_parameters_are_text_and_tools_a_list():
    row, _ = axolotl.to_row(PLAIN["parallel-calls"])

    functions = [tool["function"] for tool in row["tools"]]
    assert all(isinstance(function.get("parameters", ""), str) for function in functions)
    assert json.loads(functions[0]["parameters"]) == tool()["function"]["parameters"]
    assert row["messages"][1]["tool_calls"][1]["function"]["arguments"] == (
        '{"zone": "Europe/Paris", "at": 1.50}'
    )


def test_llamafactory_calls_are_text_of_a_role_of_their_own():
    row, repairs = llamafactory.to_row(PLAIN["parallel-calls"])

    assert [message["role"] for message in row["messages"]] == [
        "user",
        "function_call",
        "tool",
        "tool",
        "assistant",
    ]
    assert row["messages"][1]["content"] == (
        '[{"name": "get_weather", "arguments": {"city":"Paris"}}, '
        '{"name": "get_time", "arguments": {"zone": "Europe/Paris", "at": 1.50}}]'
    )
    assert repairs == ("parameters_added",)


def test_llamafactory_calls_are_json_whatever_their_text():
    row, _ = llamafactory.to_row(PLAIN["hostile-text"])

    (made,) = json.loads(row["messages"][2]["content"])
    assert made["arguments"] == {"city": HOSTILE_TEXT}


def test_llamafactory_messages_are_role_and_content_only():
    for given in PLAIN.values():
        row, _ = llamafactory.to_row(given)
        assert row.keys() == {"messages", "tools"}
        assert all(message.keys() == {"role", "content"} for message in row["messages"])


def test_llamafactory_tools_are_text_even_without_tools():
    row, _ = llamafactory.to_row(example())

    assert row["tools"] == ""


def test_llamafactory_functions_always_have_properties():
    row, repairs = llamafactory.to_row(
        example(tools=(tool(), tool("a", parameters=None), tool("b", parameters={"title": "B"})))
    )

    parameters = [function["parameters"] for function in json.loads(row["tools"])]
    assert parameters == [
        tool()["function"]["parameters"],
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "title": "B"},
    ]
    assert repairs == ("parameters_added",)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(example(USER, USER, ANSWER), "wrong_turns", id="two-users"),
        pytest.param(example(USER, ANSWER, ANSWER), "wrong_turns", id="two-answers"),
        pytest.param(example(ANSWER, USER, ANSWER), "wrong_turns", id="answer-first"),
        pytest.param(example(SYSTEM, SYSTEM, USER, ANSWER), "wrong_turns", id="two-systems"),
        pytest.param(
            example(USER, calls(call("a")), result("a"), USER, ANSWER),
            "wrong_turns",
            id="user-after-result",
        ),
        pytest.param(
            example(USER, calls(call("a"), content="Let me see.")),
            "unsupported_content",
            id="text-beside-calls",
        ),
    ],
)
def test_llamafactory_rows_that_it_would_skip_or_cut_are_dropped(given, reason):
    assert reason_of(llamafactory.to_row, given) == reason


def test_llamafactory_is_told_the_names_of_its_roles():
    tags = llamafactory.DATASET_INFO["tags"]
    roles = {
        message["role"]
        for given in PLAIN.values()
        for message in llamafactory.to_row(given)[0]["messages"]
    }

    assert roles <= set(tags.values())


def test_a_message_that_only_calls_has_an_empty_content():
    for to_row in (trl.to_row, axolotl.to_row):
        row, repairs = to_row(PLAIN["call"])
        assert row["messages"][1]["content"] == ""
        assert repairs == ("empty_content_added",)


def test_names_of_people_are_counted_where_they_go():
    for to_row in TRAINERS:
        assert to_row(PLAIN["names"])[1] == ("name_removed",)


def test_llamafactory_counts_names_of_results():
    assert llamafactory.to_row(PLAIN["named-result"])[1] == ("name_removed",)


def test_trl_counts_fractions_that_it_rounds_and_drops_names_that_stand_twice():
    rounded = example(USER, calls(call("a", arguments='{"n": 12345678901234567890.123}')))
    twice = example(USER, calls(call("a", arguments='{"n": 1, "n": 2}')))

    assert "numbers_rounded" in trl.to_row(rounded)[1]
    assert reason_of(trl.to_row, twice) == "arguments_not_json"


def test_developer_is_system():
    for to_row in TRAINERS:
        row, repairs = to_row(PLAIN["developer"])
        first = (row.get("messages") or row["prompt"])[0]
        assert first == message("system", "Be brief.")
        assert repairs == ("developer_to_system",)
