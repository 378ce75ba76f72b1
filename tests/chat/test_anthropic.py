"""Anthropic's Messages API."""

import pytest

from tests.chat.recorded import SCHEMA, USER, WEATHER, convert, detail, messages, outcome

ASKED = {"model": "claude", "max_tokens": 99, "messages": [USER]}
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
CALL = {
    "id": "toolu_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}


def text(said):
    return {"type": "text", "text": said}


def answer(*blocks, stop="end_turn", **changes):
    content = list(blocks or [text("Sunny.")])
    return {
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop,
        **changes,
    }


def asking(*messages, **changes):
    return {**ASKED, "messages": list(messages), **changes}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def result(content, **more):
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **more}


def test_the_system_text_is_the_first_message():
    asked = {**ASKED, "system": "Be terse."}

    assert messages(asked, answer()) == [
        {"role": "system", "content": "Be terse."},
        USER,
        {"role": "assistant", "content": "Sunny."},
    ]


def test_several_blocks_of_text_stay_apart():
    cached = {**text("two"), "cache_control": {"type": "ephemeral"}}
    asked = asking(user(text("one"), cached), system=[text("a"), text("b")])

    system, asks, _ = messages(asked, answer())

    assert system["content"] == [text("a"), text("b")]
    assert asks["content"] == [text("one"), text("two")]


def test_tools_calls_and_results_become_openais():
    asked = asking(
        USER,
        assistant(text("Let me look."), USE),
        user(result([text("18 C")]), text("And?")),
        tools=[TOOL],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )

    example = convert(asked, answer({**USE, "id": "toolu_2"}, stop="tool_use"))

    assert list(example.messages) == [
        USER,
        {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "18 C"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "toolu_2"}]},
    ]
    assert example.tools == (WEATHER,)
    assert example.tool_choice == "required"
    assert example.parallel_tool_calls is False
    assert example.finish_reason == "tool_calls"
    assert example.repairs == ()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        (
            {"type": "tool", "name": "weather"},
            {"type": "function", "function": {"name": "weather"}},
        ),
        (None, None),
    ],
)
def test_tool_choices_are_in_openais_words(choice, expected):
    assert convert({**ASKED, "tool_choice": choice}, answer()).tool_choice == expected


def test_images_become_addresses():
    data = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    web = {"type": "url", "url": "https://a/b.png"}
    asked = asking(user({"type": "image", "source": data}, {"type": "image", "source": web}))

    assert messages(asked, answer())[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
    ]


def test_thinking_is_removed_and_named():
    thought = {"type": "thinking", "thinking": "hm", "signature": "x"}

    example = convert(
        ASKED, answer(thought, {"type": "redacted_thinking", "data": "x"}, text("Hi"))
    )

    assert example.messages[-1]["content"] == "Hi"
    assert example.repairs == ("reasoning_removed",)


def test_an_answer_that_goes_on_with_the_request_is_one_message():
    example = convert(asking(USER, assistant(text('{"city":'))), answer(text(' "Paris"}')))

    assert list(example.messages) == [USER, {"role": "assistant", "content": '{"city": "Paris"}'}]
    assert example.repairs == ("prefill_joined",)


def test_a_schema_for_the_answer_is_the_response_format():
    asked = {**ASKED, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}

    assert convert(asked, answer()).response_format == {
        "type": "json_schema",
        "json_schema": {"name": "response", "schema": SCHEMA},
    }


def test_a_result_that_is_an_error_keeps_its_text():
    asked = asking(USER, assistant(USE), user(result("no such city", is_error=True)))

    example = convert(asked, answer())

    assert example.messages[2]["content"] == "no such city"
    assert example.repairs == ("is_error_removed",)


def test_a_result_without_content_is_empty_text():
    asked = asking(USER, assistant(USE), user({"type": "tool_result", "tool_use_id": "toolu_1"}))

    assert messages(asked, answer())[2]["content"] == ""


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("stop_sequence", "converted"),
        ("max_tokens", "finish_length"),
        ("model_context_window_exceeded", "finish_length"),
        ("refusal", "finish_content_filter"),
        ("pause_turn", "unsupported_content"),
    ],
)
def test_stop_reasons_are_finish_reasons(stop, reason):
    assert outcome(ASKED, answer(stop=stop)) == reason


DOCUMENT = {"type": "document", "source": {"type": "text", "data": "x"}}


@pytest.mark.parametrize(
    ("asked", "response", "reason", "said"),
    [
        pytest.param(
            asking(user(DOCUMENT)), answer(), "unsupported_content", "document", id="document"
        ),
        pytest.param(
            ASKED,
            answer({**text("a"), "citations": [{"cited_text": "a"}]}),
            "unsupported_content",
            "citations",
            id="citations",
        ),
        pytest.param(
            ASKED,
            answer({"type": "server_tool_use", "name": "web_search"}),
            "unsupported_content",
            "server_tool_use",
            id="server-tool-called",
        ),
        pytest.param(
            {**ASKED, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            answer(),
            "unsupported_tool",
            "unknown kind",
            id="server-tool-declared",
        ),
        pytest.param(
            {**ASKED, "tools": [{**TOOL, "defer_loading": True}]},
            answer(),
            "unsupported_tool",
            "defer_loading",
            id="tool-behind-a-search",
        ),
        pytest.param(
            {**ASKED, "mcp_servers": [{"url": "https://a"}]},
            answer(),
            "unsupported_tool",
            "mcp_servers",
            id="mcp",
        ),
        pytest.param(
            ASKED,
            answer(context_management={"applied_edits": [{"type": "clear_tool_uses_20250919"}]}),
            "unsupported_content",
            "context_management",
            id="history-cleared",
        ),
        pytest.param(
            asking(
                USER,
                assistant(USE),
                user(result([{"type": "image", "source": {"type": "url", "url": "https://a"}}])),
            ),
            answer(),
            "unsupported_content",
            "image",
            id="image-in-a-result",
        ),
        pytest.param(
            ASKED,
            answer(USE, text("after")),
            "unsupported_content",
            "text after a tool call",
            id="text-after-a-call",
        ),
        pytest.param(
            asking(user({"type": "image", "source": {"type": "file", "file_id": "f"}})),
            answer(),
            "unsupported_content",
            "image without a web address or data",
            id="image-of-a-file",
        ),
        pytest.param(asking(user(result("18 C"))), answer(), "orphan_tool_result", "", id="orphan"),
        pytest.param(
            asking(USER, assistant(USE), USER),
            answer(),
            "unanswered_tool_call",
            "",
            id="unanswered",
        ),
        pytest.param(asking(), answer(), "no_messages", "", id="no-messages"),
        pytest.param(
            asking({"role": "critic", "content": "x"}),
            answer(),
            "unsupported_role",
            "role that Messages does not know",
            id="role",
        ),
        pytest.param(
            ASKED,
            answer({"type": "tool_use", "id": "t", "name": "weather"}, stop="tool_use"),
            "tool_call_without_arguments",
            "",
            id="no-input",
        ),
        pytest.param(
            asking(USER, assistant(USE)),
            answer(text("x")),
            "wrong_turns",
            "answer that goes on with parts",
            id="answer-goes-on-with-a-call",
        ),
        pytest.param(ASKED, {**answer(), "content": []}, "empty_answer", "", id="no-blocks"),
        pytest.param(ASKED, {**answer(), "content": None}, "no_choice", "", id="no-content"),
    ],
)
def test_a_call_drops_for_its_reason(asked, response, reason, said):
    assert outcome(asked, response) == reason
    assert detail(asked, response) == said


def test_a_system_message_in_mid_talk_stays_there():
    system = {"role": "system", "content": "Now in French."}

    assert messages(asking(USER, system), answer())[1] == system


def test_bedrock_and_vertex_leave_the_model_out():
    asked = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [USER]}

    assert outcome(asked, answer()) == "converted"
