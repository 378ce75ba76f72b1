"""Gemini's generateContent."""

import pytest

from tests.chat.recorded import SCHEMA, USER, WEATHER, convert, detail, messages, outcome

CONTENTS = [{"role": "user", "parts": [{"text": "Weather in Paris?"}]}]
ASKED = {"contents": CONTENTS}
PARAMETERS = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}
DECLARED = {"name": "weather", "description": "Tells the weather.", "parameters": PARAMETERS}
CALL = {"functionCall": {"name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "x"}
RESULT = {"functionResponse": {"name": "weather", "response": {"celsius": 18}}}


def answer(*parts, finish="STOP", **changes):
    content = {"role": "model", "parts": list(parts or [{"text": "Sunny."}])}
    return {"candidates": [{"content": content, "finishReason": finish, **changes}]}


def asking(*contents, **changes):
    return {"contents": [*CONTENTS, *contents], **changes}


def user(*parts):
    return {"role": "user", "parts": list(parts)}


def model(*parts):
    return {"role": "model", "parts": list(parts)}


def test_contents_become_messages():
    asked = {**ASKED, "systemInstruction": {"parts": [{"text": "Be terse."}]}}

    assert messages(asked, answer()) == [
        {"role": "system", "content": "Be terse."},
        USER,
        {"role": "assistant", "content": "Sunny."},
    ]


def test_the_names_of_googles_python_client_are_known():
    asked = {
        "contents": "Weather in Paris?",
        "config": {
            "system_instruction": "Be terse.",
            "tools": [{"function_declarations": [DECLARED]}],
        },
    }
    content = model({"function_call": {"name": "weather", "args": {}}})

    example = convert(asked, {"candidates": [{"content": content, "finish_reason": "STOP"}]})

    assert [message["role"] for message in example.messages] == ["system", "user", "assistant"]
    assert example.tools == (WEATHER,)
    assert example.finish_reason == "tool_calls"


def test_calls_and_results_find_each_other_by_name():
    other = {"functionCall": {"name": "clock"}}
    told = {"functionResponse": {"name": "clock", "response": {"hour": 9}}}
    asked = asking(model({"text": "Let me look."}, CALL, other), user(told, RESULT))

    example = convert(asked, answer())

    calls = example.messages[1]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ['{"city": "Paris"}', "{}"]
    assert list(example.messages[2:4]) == [
        {"role": "tool", "tool_call_id": calls[1]["id"], "content": '{"hour": 9}'},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": '{"celsius": 18}'},
    ]
    assert example.repairs == ("reasoning_removed", "call_ids_minted")


def test_ids_that_were_recorded_stay():
    call = {"functionCall": {"name": "weather", "args": {}, "id": "c9"}}
    told = {"functionResponse": {"name": "weather", "response": {}, "id": "c9"}}

    example = convert(asking(model(call), user(told)), answer())

    assert example.messages[2]["tool_call_id"] == "c9"
    assert example.repairs == ()


def test_schemas_get_the_spelling_of_json_schema():
    parameters = {
        "type": "OBJECT",
        "required": ["type"],
        "properties": {
            "type": {"type": "ARRAY", "minItems": "1", "items": {"type": "NUMBER"}},
            "any": {"anyOf": [{"type": "STRING", "enum": ["STRING"]}, {"type": "NULL"}]},
        },
    }
    tools = [{"functionDeclarations": [{**DECLARED, "parameters": parameters}]}]

    (tool,) = convert({**ASKED, "tools": tools}, answer()).tools

    assert tool["function"]["parameters"] == {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "array", "minItems": 1, "items": {"type": "number"}},
            "any": {"anyOf": [{"type": "string", "enum": ["STRING"]}, {"type": "null"}]},
        },
    }


def test_pieces_of_the_answer_are_one_text_without_the_thoughts():
    thought = {"text": "hm", "thought": True}

    example = convert(ASKED, answer(thought, {"text": "Sun"}, {"text": "ny."}))

    assert example.messages[-1]["content"] == "Sunny."
    assert example.repairs == ("reasoning_removed",)


def test_images_become_data_urls():
    blob = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}

    assert messages(asking(user({"text": "What?"}, blob)), answer())[1]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]


@pytest.mark.parametrize(
    ("calling", "expected"),
    [
        ({"mode": "AUTO"}, "auto"),
        ({"mode": "NONE"}, "none"),
        ({"mode": "ANY"}, "required"),
        (
            {"mode": "ANY", "allowedFunctionNames": ["a"]},
            {"type": "function", "function": {"name": "a"}},
        ),
        (
            {"mode": "ANY", "allowedFunctionNames": ["a", "b"]},
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "a"}},
                        {"type": "function", "function": {"name": "b"}},
                    ],
                },
            },
        ),
    ],
)
def test_calling_modes_are_tool_choices(calling, expected):
    asked = {**ASKED, "toolConfig": {"functionCallingConfig": calling}}

    assert convert(asked, answer()).tool_choice == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"responseMimeType": "application/json"}, {"type": "json_object"}),
        ({"responseMimeType": "text/plain"}, None),
        (
            {"responseMimeType": "application/json", "responseSchema": PARAMETERS},
            {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA}},
        ),
    ],
)
def test_a_schema_for_the_answer_is_the_response_format(config, expected):
    assert convert({**ASKED, "generationConfig": config}, answer()).response_format == expected


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        pytest.param(answer(finish="MAX_TOKENS"), "finish_length", id="length"),
        pytest.param(
            {"candidates": [{"finishReason": "SAFETY"}]}, "finish_content_filter", id="safety"
        ),
        pytest.param(
            {"promptFeedback": {"blockReason": "SAFETY"}}, "finish_content_filter", id="blocked"
        ),
        pytest.param(answer(finish="MALFORMED_FUNCTION_CALL"), "error_output", id="malformed"),
        pytest.param({"candidates": []}, "no_choice", id="none"),
        pytest.param({"candidates": answer()["candidates"] * 2}, "several_choices", id="two"),
        pytest.param({"candidates": [{"finishReason": "STOP"}]}, "empty_answer", id="no-content"),
        pytest.param(answer({"text": ""}), "empty_answer", id="no-text"),
        pytest.param(answer({"executableCode": {"code": "1"}}), "unsupported_content", id="code"),
        pytest.param(answer(CALL, {"text": "after"}), "unsupported_content", id="text-after"),
        pytest.param([{"error": {"code": 400}}], "error_output", id="error-in-a-list"),
    ],
)
def test_an_answer_drops_for_its_reason(response, reason):
    assert outcome(ASKED, response) == reason


@pytest.mark.parametrize(
    ("asked", "reason", "word"),
    [
        pytest.param(
            {**ASKED, "tools": [{"googleSearch": {}}]},
            "unsupported_tool",
            "googleSearch",
            id="search",
        ),
        pytest.param(
            {**ASKED, "tools": [{"functionDeclarations": [{**DECLARED, "response": PARAMETERS}]}]},
            "unsupported_tool",
            "schema of the result",
            id="schema-of-the-result",
        ),
        pytest.param(
            {**ASKED, "cachedContent": "cachedContents/1"},
            "unsupported_content",
            "cachedContent",
            id="history-elsewhere",
        ),
        pytest.param(
            asking(user({"fileData": {"fileUri": "gs://a"}})),
            "unsupported_content",
            "fileData",
            id="file",
        ),
        pytest.param(
            asking(user({"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}})),
            "unsupported_content",
            "data that is no image",
            id="audio",
        ),
        pytest.param(asking(user(RESULT)), "orphan_tool_result", "", id="orphan"),
        pytest.param(
            asking(model(CALL), user({"text": "x"})), "unanswered_tool_call", "", id="unanswered"
        ),
        pytest.param(
            asking(model(CALL), user({"text": "x"}, RESULT)),
            "unanswered_tool_call",
            "text before a result",
            id="text-first",
        ),
        pytest.param(
            asking(model({"text": "Sun"})),
            "wrong_turns",
            "answer that goes on with the request's last message",
            id="answer-goes-on",
        ),
        pytest.param({"contents": []}, "no_messages", "", id="none"),
        pytest.param(
            asking({"role": "critic", "parts": []}),
            "unsupported_role",
            "role that Gemini does not know",
            id="role",
        ),
    ],
)
def test_a_request_drops_for_its_reason(asked, reason, word):
    assert outcome(asked, answer()) == reason
    assert detail(asked, answer()) == word
