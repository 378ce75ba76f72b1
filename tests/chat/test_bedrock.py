"""Bedrock's Converse, and bodies of invoke_model."""

import pytest

from tests.chat.recorded import SCHEMA, USER, WEATHER, chat, convert, detail, messages, outcome

ASKED = {"messages": [{"role": "user", "content": [{"text": "Weather in Paris?"}]}]}
SPEC = {"name": "weather", "description": "Tells the weather.", "inputSchema": {"json": SCHEMA}}
USE = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Paris"}}}
CALL = {
    "id": "t1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}


def answer(*blocks, stop="end_turn"):
    message = {"role": "assistant", "content": list(blocks or [{"text": "Sunny."}])}
    return {"output": {"message": message}, "stopReason": stop, "usage": {}}


def asking(*messages, **changes):
    return {"messages": [*ASKED["messages"], *messages], **changes}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def result(*blocks, **more):
    return {"toolResult": {"toolUseId": "t1", "content": list(blocks), **more}}


def test_blocks_become_messages_without_the_marks_of_the_cache():
    asked = {**ASKED, "system": [{"text": "Be terse."}, {"cachePoint": {"type": "default"}}]}

    assert messages(asked, answer()) == [
        {"role": "system", "content": "Be terse."},
        USER,
        {"role": "assistant", "content": "Sunny."},
    ]


def test_tools_calls_and_results_become_openais():
    config = {
        "tools": [{"toolSpec": SPEC}, {"cachePoint": {"type": "default"}}],
        "toolChoice": {"any": {}},
    }
    results = result({"json": {"celsius": 18}}, {"text": "sunny"}, status="error")
    asked = asking(assistant({"text": "Let me look."}, USE), user(results), toolConfig=config)

    example = convert(asked, answer(USE, stop="tool_use"))

    assert list(example.messages[1:]) == [
        {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
        {
            "role": "tool",
            "tool_call_id": "t1",
            "content": [
                {"type": "text", "text": '{"celsius": 18}'},
                {"type": "text", "text": "sunny"},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    assert example.tools == (WEATHER,)
    assert example.tool_choice == "required"
    assert example.finish_reason == "tool_calls"
    assert example.repairs == ("is_error_removed",)


def test_a_tool_may_be_chosen_by_name():
    asked = {**ASKED, "toolConfig": {"toolChoice": {"tool": {"name": "weather"}}}}

    assert convert(asked, answer()).tool_choice == {
        "type": "function",
        "function": {"name": "weather"},
    }


def test_images_become_data_urls():
    image = {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}}

    assert messages(asking(user(image)), answer())[1]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}}
    ]


def test_reasoning_is_removed_and_named():
    example = convert(ASKED, answer({"reasoningContent": {"reasoningText": {}}}, {"text": "Hi"}))

    assert example.messages[-1]["content"] == "Hi"
    assert example.repairs == ("reasoning_removed",)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (None, "converted"),
        ("stop_sequence", "converted"),
        ("max_tokens", "finish_length"),
        ("guardrail_intervened", "finish_content_filter"),
        ("malformed_tool_use", "error_output"),
    ],
)
def test_stop_reasons_are_finish_reasons(stop, reason):
    assert outcome(ASKED, answer(stop=stop)) == reason


@pytest.mark.parametrize(
    ("asked", "response", "reason", "word"),
    [
        pytest.param(
            asking(user({"document": {"name": "x"}})),
            answer(),
            "unsupported_content",
            "document",
            id="document",
        ),
        pytest.param(
            asking(user({"image": {"format": "png", "source": {"s3Location": {}}}})),
            answer(),
            "unsupported_content",
            "image without a web address or data",
            id="image-elsewhere",
        ),
        pytest.param(
            {**ASKED, "toolConfig": {"tools": [{"systemTool": {"name": "x"}}]}},
            answer(),
            "unsupported_tool",
            "systemTool",
            id="system-tool",
        ),
        pytest.param(
            {**ASKED, "additionalModelRequestFields": {"tools": [{}]}},
            answer(),
            "unsupported_tool",
            "additionalModelRequestFields",
            id="tools-of-the-model",
        ),
        pytest.param(
            asking(assistant(USE), user({"text": "x"}, result({"text": "18"}))),
            answer(),
            "unanswered_tool_call",
            "text before a result",
            id="text-first",
        ),
        pytest.param(
            asking(user(result({"text": "18"}))), answer(), "orphan_tool_result", "", id="orphan"
        ),
        pytest.param(
            asking(assistant({"text": "Sun"})),
            answer(),
            "wrong_turns",
            "answer that goes on with the request's last message",
            id="answer-goes-on",
        ),
        pytest.param(
            ASKED,
            answer(USE, {"text": "after"}),
            "unsupported_content",
            "text after a tool call",
            id="text-after-a-call",
        ),
        pytest.param(ASKED, {"output": {}}, "no_choice", "", id="no-message"),
        pytest.param({"messages": []}, answer(), "no_messages", "", id="none"),
        pytest.param(
            asking({"role": "critic"}),
            answer(),
            "unsupported_role",
            "role that Converse does not know",
            id="role",
        ),
    ],
)
def test_a_call_drops_for_its_reason(asked, response, reason, word):
    assert outcome(asked, response) == reason
    assert detail(asked, response) == word


def test_a_body_of_nova_reads_like_converse():
    assert outcome({**ASKED, "schemaVersion": "messages-v1"}, answer()) == "converted"


def test_a_body_of_mistral_reads_like_chat():
    asked = {"messages": [USER], "max_tokens": 9}
    said = {
        "choices": [{"index": 0, "message": chat()["choices"][0]["message"], "stop_reason": "stop"}]
    }

    assert outcome(asked, said) == "converted"


@pytest.mark.parametrize(
    ("body", "response"),
    [
        ({"inputText": "Hi"}, {"results": [{"outputText": "Hi"}]}),
        ({"prompt": "Hi"}, {"generation": "Hi", "stop_reason": "stop"}),
        ({"prompt": "Hi"}, {"outputs": [{"text": "Hi"}]}),
    ],
)
def test_prompts_are_no_chat(body, response):
    assert outcome(body, response) == "not_chat"
