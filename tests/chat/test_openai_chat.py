"""OpenAI chat completions, and who speaks it."""

from typing import Any

import pytest

from tests.chat.recorded import (
    USER,
    WEATHER,
    call,
    chat,
    convert,
    detail,
    messages,
    outcome,
)

ASKED = {"model": "m", "messages": [USER]}
ANSWER = {"role": "assistant", "content": "Sunny."}


def test_a_plain_call_keeps_its_messages():
    system = {"role": "developer", "content": "Be terse."}

    assert messages({**ASKED, "messages": [system, USER]}, chat()) == [system, USER, ANSWER]


def test_the_settings_of_the_request_stay():
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    asked = {
        **ASKED,
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": schema,
    }

    example = convert(asked, chat(), {"prompt": "a", "none": None})

    assert example.tools == (WEATHER,)
    assert example.tool_choice == "required"
    assert example.parallel_tool_calls is False
    assert example.response_format == schema
    assert example.finish_reason == "stop"
    assert example.tags == {"prompt": "a", "none": None}
    assert example.repairs == ()


def test_keys_that_say_nothing_leave():
    said: dict[str, Any] = {"refusal": None, "annotations": [], "audio": None, "tool_calls": None}

    assert messages(ASKED, chat({**said, "function_call": None}))[-1] == ANSWER


def test_images_of_the_user_stay():
    image = {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}
    user = {"role": "user", "content": [{"type": "text", "text": "What?"}, image]}

    assert messages({"messages": [user]}, chat())[0] == user


def test_mistral_writes_the_address_of_an_image_plain():
    user = {"role": "user", "content": [{"type": "image_url", "image_url": "https://a/b.png"}]}

    content = messages({"messages": [user]}, chat())[0]["content"]

    assert content == [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]


def test_function_calls_of_2023_become_tool_calls():
    asked = {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "weather", "arguments": "{}"},
            },
            {"role": "function", "name": "weather", "content": "18 C"},
        ],
        "functions": [WEATHER["function"]],
        "function_call": {"name": "weather"},
    }

    example = convert(asked, chat())

    assert example.tools == (WEATHER,)
    assert example.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert example.messages[1]["tool_calls"] == [call(arguments="{}", call_id="call_0001")]
    assert example.messages[2]["role"] == "tool"
    assert example.messages[2]["tool_call_id"] == "call_0001"
    assert example.repairs == ("functions_to_tools", "call_ids_minted")


def test_an_answer_that_calls_a_function_of_2023_ends_with_tool_calls():
    said = {"content": None, "function_call": {"name": "weather", "arguments": "{}"}}

    example = convert(ASKED, chat(said, "function_call"))

    assert example.finish_reason == "tool_calls"
    assert "function_call" not in example.messages[-1]


def test_a_function_result_without_its_call_has_no_role():
    asked = {"messages": [USER, {"role": "function", "name": "weather", "content": "18 C"}]}

    assert outcome(asked, chat()) == "unsupported_role"


def test_ollama_answers_with_one_message():
    answer = {"message": {**ANSWER}, "done": True, "done_reason": "stop"}

    assert messages(ASKED, answer) == [USER, ANSWER]


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        (None, None),
        ("tool_use", "tool_calls"),
    ],
)
def test_finish_reasons_are_in_openais_words(recorded, expected):
    assert convert(ASKED, chat(finish=recorded)).finish_reason == expected


def test_a_stop_reason_stands_in_for_the_finish_reason():
    answer = {"choices": [{"message": ANSWER, "stop_reason": "length"}]}

    assert outcome(ASKED, answer) == "finish_length"


def test_reasoning_is_removed_and_named():
    example = convert(ASKED, chat({"reasoning_content": "Let me think"}))

    assert example.messages[-1] == ANSWER
    assert example.repairs == ("reasoning_removed",)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        pytest.param(chat(choices=[]), "no_choice", id="no-choices"),
        pytest.param(chat(choices=[{"finish_reason": "stop"}]), "no_choice", id="no-message"),
        pytest.param(chat(choices=["x"]), "no_choice", id="no-object"),
        pytest.param({"id": "c"}, "no_choice", id="no-answer"),
        pytest.param({}, "no_choice", id="empty-object"),
        pytest.param(chat(choices=chat()["choices"] * 2), "several_choices", id="n-2"),
        pytest.param(chat(finish="length"), "finish_length", id="length"),
        pytest.param(chat(finish="model_length"), "finish_length", id="mistral-length"),
        pytest.param(chat(finish="content_filter"), "finish_content_filter", id="filter"),
        pytest.param(
            chat(choices=[{"finish_reason": "content_filter"}]),
            "finish_content_filter",
            id="filter-azure",
        ),
        pytest.param(chat(finish="error"), "error_output", id="finish-error"),
        pytest.param(chat(finish="insufficient_system_resource"), "error_output", id="deepseek"),
        pytest.param(
            chat(choices=[{"error": {"message": "x"}}]), "error_output", id="error-in-choice"
        ),
        pytest.param(chat({"content": None}), "empty_answer", id="null"),
        pytest.param(chat({"content": " \n"}), "empty_answer", id="white-space"),
        pytest.param(chat({"content": []}), "empty_answer", id="no-parts"),
        pytest.param(chat({"content": None, "refusal": "I can't"}), "refusal", id="refusal"),
        pytest.param(chat({"role": "user"}), "last_message_not_assistant", id="role"),
        pytest.param(chat({"audio": {"id": "a"}}), "unsupported_content", id="audio"),
        pytest.param(chat({"annotations": [{}]}), "unsupported_content", id="citations"),
        pytest.param(chat(citations=["https://a"]), "unsupported_content", id="perplexity"),
        pytest.param(chat({"content": 7}), "unsupported_content", id="number"),
    ],
)
def test_an_answer_drops_for_its_reason(response, reason):
    assert outcome(ASKED, response) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"messages": []}, "no_messages", id="none"),
        pytest.param({"messages": "hi"}, "no_messages", id="text"),
        pytest.param({"messages": ["hi"]}, "unsupported_role", id="no-object"),
        pytest.param(
            {"messages": [{"role": "critic", "content": ""}]}, "unsupported_role", id="role"
        ),
        pytest.param({"messages": [{"content": "hi"}]}, "unsupported_role", id="no-role"),
        pytest.param({"messages": [{"role": "user"}]}, "unsupported_content", id="no-content"),
        pytest.param({"system": "Be terse."}, "unsupported_content", id="system-beside"),
        pytest.param({"web_search_options": {"a": 1}}, "unsupported_tool", id="web-search"),
        pytest.param({"data_sources": [{}]}, "unsupported_tool", id="azure-data"),
        pytest.param({"tools": [{"type": "custom"}]}, "unsupported_tool", id="custom-tool"),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": ""}}]},
            "unsupported_tool",
            id="tool-without-a-name",
        ),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]},
            "unsupported_tool",
            id="tool-with-a-list",
        ),
        pytest.param({"function_call": {}}, "unsupported_tool", id="choice-without-a-name"),
        pytest.param({"tools": ["weather"]}, "unsupported_tool", id="tool-text"),
        pytest.param(
            {"messages": [USER, {**ANSWER, "prefix": True}]}, "wrong_turns", id="deepseek-prefix"
        ),
        pytest.param({"messages": [USER, {**ANSWER, "content": ""}]}, "empty_answer", id="history"),
    ],
)
def test_a_request_drops_for_its_reason(changes, reason):
    assert outcome({**ASKED, **changes}, chat()) == reason


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url"])
def test_parts_without_a_place_are_named(kind):
    asked = {"messages": [{"role": "user", "content": [{"type": kind}]}]}

    assert outcome(asked, chat()) == "unsupported_content"
    assert detail(asked, chat()) == kind


def test_a_kind_that_no_api_knows_is_not_named():
    asked = {"messages": [{"role": "user", "content": [{"type": "my secret"}]}]}

    assert detail(asked, chat()) == "unknown kind"
