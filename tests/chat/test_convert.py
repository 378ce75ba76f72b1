"""Which API a call was, and what is none."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.chat.convert import to_example
from pipelines.chat.example import REASONS, DroppedError
from pipelines.chat.gates import check_example
from tests.chat.recorded import NONE, USER, chat, convert, messages, outcome, real_calls

ASKED = {"model": "m", "messages": [USER]}
SSE = (
    'data: {"object":"chat.completion.chunk",'
    '"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}\n\n'
)


@pytest.mark.parametrize(
    "output",
    [
        None,
        "",
        "Service Unavailable",
        "<html><body>502 Bad Gateway</body></html>",
        {"error": {"message": "x", "type": "invalid_request_error"}},
        {"error": "not found"},
        {"type": "error", "error": {"type": "overloaded_error"}},
        {"message": "x", "type": "invalid_request_error", "param": None, "code": None},
        {"code": 500, "message": "x"},
        {"detail": "Could not parse your token"},
        {"errors": [{"message": "x"}]},
        {"object": "error", "message": "x", "type": "BadRequestError", "code": 400},
        {**chat(), "error": {"message": "x"}},
        [{"error": {"code": 429}}],
        [],
        7,
        True,
    ],
    ids=repr,
)
def test_an_error_is_no_answer(output):
    assert outcome(ASKED, output) == "error_output"
    assert outcome({"input": "x", "model": "embedding"}, output) == "error_output"


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        pytest.param({"input": "x"}, {"object": "list", "data": [{}]}, id="embeddings"),
        pytest.param(
            {"prompt": "x"}, {"object": "text_completion", "choices": []}, id="completions"
        ),
        pytest.param({"prompt": "x"}, {"data": [{"url": "https://a"}]}, id="images"),
        pytest.param({"input": "x"}, {"object": "interaction", "steps": []}, id="interactions"),
        pytest.param({"input": "x"}, "event: interaction.created\ndata: {}\n\n", id="streamed"),
        pytest.param({"query": "x"}, {"results": []}, id="rerank"),
        pytest.param({"input": "x"}, {"id": "modr", "results": [{}]}, id="moderation"),
        pytest.param(None, chat(), id="no-request"),
        pytest.param("Hi", chat(), id="text"),
        pytest.param([USER], chat(), id="list"),
    ],
)
def test_what_asks_for_no_chat_is_none(request_, response):
    assert outcome(request_, response) == "not_chat"


@pytest.mark.parametrize("record", [None, [], "x", {}, {"input": ASKED}, {"output": chat()}])
def test_a_line_without_input_and_output_is_no_record(record):
    with pytest.raises(DroppedError) as caught:
        to_example(record)

    assert caught.value.reason == "unreadable_record"


def test_tags_that_are_no_text_leave():
    assert convert(ASKED, chat(), {"a": "1", "b": None, "c": 3}).tags == {"a": "1", "b": None}
    assert convert(ASKED, chat(), ["a"]).tags == {}


def test_tags_decide_nothing():
    wrong = {"provider": "anthropic", "kind": "messages"}

    assert convert(ASKED, chat(), wrong).messages == convert(ASKED, chat()).messages


def test_payloads_that_are_text_of_json_are_read():
    assert messages(json.dumps(ASKED), json.dumps(chat())) == messages(ASKED, chat())


def test_an_envelope_of_http_is_opened():
    asked = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": ASKED}
    answered = {"status_code": 200, "body": json.dumps(chat())}

    assert messages(asked, answered) == messages(ASKED, chat())


def test_a_body_beside_messages_is_no_envelope():
    assert messages({**ASKED, "body": {"messages": []}}, chat()) == messages(ASKED, chat())


def test_text_that_only_starts_like_json_is_an_error():
    assert outcome(ASKED, "{oops") == "error_output"


def test_a_recorded_stream_is_merged_first():
    text = SSE % ('{"role":"assistant","content":"Sun"}', "null") + SSE % (
        '{"content":"ny."}',
        '"stop"',
    )

    assert messages(ASKED, text + "data: [DONE]\n\n") == messages(ASKED, chat())
    assert outcome(ASKED, text.replace('"stop"', "null")) == "stream_cut_off"


def chunks(finish):
    said = ("Sun", None), ("ny.", finish)
    return [
        {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}],
        }
        for text, reason in said
    ]


def test_chunks_in_a_list_are_merged_first():
    assert messages(ASKED, chunks("stop")) == messages(ASKED, chat())
    assert outcome(ASKED, chunks(None)) == "stream_cut_off"
    assert outcome(ASKED, [*chunks("stop"), {"error": {"code": 429}}]) == "error_output"
    assert outcome(ASKED, [chunks("stop")[0] | {"error": {"code": 429}}]) == "error_output"


def test_a_stream_in_a_list_is_merged_first():
    ends = {"Sun": {}, "ny.": {"finishReason": "STOP"}}
    said = [
        {"candidates": [{"content": {"parts": [{"text": word}]}, **end}]}
        for word, end in ends.items()
    ]

    assert messages({"contents": "Hi"}, said)[-1]["content"] == "Sunny."


SPEC = {"name": "f", "description": "F.", "novel": [1]}
SAID = [{"type": "text", "text": "Sunny."}]


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        pytest.param(
            {**ASKED, "tools": [{"type": "function", "function": SPEC}]}, chat(), id="chat"
        ),
        pytest.param(
            {**ASKED, "tools": [{"type": "function", "function": {"name": "f"}, "novel": 1}]},
            chat(),
            id="beside-the-function",
        ),
        pytest.param({**ASKED, "functions": [SPEC]}, chat(), id="legacy"),
        pytest.param(
            {"input": "Hi", "tools": [{"type": "function", **SPEC}]},
            {
                "object": "response",
                "output": [{"type": "message", "role": "assistant", "content": "Sunny."}],
            },
            id="responses",
        ),
        pytest.param(
            {**ASKED, "tools": [{**SPEC, "input_schema": {}}]},
            {"type": "message", "content": SAID, "stop_reason": "end_turn"},
            id="anthropic",
        ),
        pytest.param(
            {
                "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
                "toolConfig": {"tools": [{"toolSpec": {**SPEC, "inputSchema": {"json": {}}}}]},
            },
            {"output": {"message": {"role": "assistant", "content": [{"text": "Sunny."}]}}},
            id="bedrock",
        ),
        pytest.param(
            {"contents": "Hi", "tools": [{"functionDeclarations": [SPEC]}]},
            {"candidates": [{"content": {"parts": [{"text": "Sunny."}]}, "finishReason": "STOP"}]},
            id="gemini",
        ),
    ],
)
def test_what_a_tool_says_beside_its_function_leaves_and_is_counted(request_, response):
    example = convert(request_, response)

    assert "novel" not in json.dumps(example.tools)
    assert "tool_keys_removed" in example.repairs


def test_a_mark_of_the_cache_is_nothing_that_a_tool_says():
    tool = {"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}}
    answered = {"type": "message", "content": SAID, "stop_reason": "end_turn"}

    assert convert({**ASKED, "tools": [tool]}, answered).repairs == ()


def test_arguments_of_the_wrong_api_do_not_convert():
    blocks = [{"type": "tool_use", "id": "t", "name": "a", "input": {}}]

    assert outcome({"messages": [USER, {"role": "assistant", "content": blocks}]}, chat()) == (
        "unsupported_content"
    )


def test_deep_nesting_is_a_drop():
    deep: dict[str, object] = {}
    for _ in range(50_000):
        deep = {"properties": {"a": deep}}
    asked = {
        "contents": "Hi",
        "tools": [{"functionDeclarations": [{"name": "a", "parameters": deep}]}],
    }

    assert outcome(asked, {"candidates": [{}]}) == "unreadable_record"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
MANY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def places(value, found):
    """Every list and object inside, with its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        found.append((value, key))
        if isinstance(inner, dict | list):
            places(inner, found)
    return found


@MANY
@given(data=st.data())
def test_a_changed_real_call_converts_or_drops_and_nothing_else(data):
    record = copy.deepcopy(data.draw(st.sampled_from(real_calls())))
    for _ in range(data.draw(st.integers(1, 3))):
        parent, key = data.draw(st.sampled_from(places(record, [])))
        if data.draw(st.booleans()):
            parent[key] = data.draw(ANY_JSON)
        elif isinstance(parent, dict):
            del parent[key]
        else:
            parent.append(copy.deepcopy(parent[key]))

    assert_only_drops(record)


@MANY
@given(request=ANY_JSON, response=ANY_JSON, tags=ANY_JSON)
def test_arbitrary_json_drops(request, response, tags):
    assert_only_drops({"input": request, "output": response, "tags": tags})


def assert_only_drops(record):
    example, reason = None, REASONS[0]
    try:
        example = check_example(to_example(record), allow_finish=NONE)
    except DroppedError as error:
        reason = error.reason

    assert reason in REASONS
    assert example is None or check_example(example, allow_finish=NONE) == example


MARK = "words-of-a-user"


def marked(value):
    """The value with every text changed to hold a word to look for."""
    if isinstance(value, dict):
        return {key: marked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [marked(inner) for inner in value]
    return f"{MARK}{value}" if isinstance(value, str) else value


def test_no_detail_holds_a_text_of_the_payload():
    for record in real_calls():
        for changed in (
            {**record, "input": marked(record["input"])},
            {**record, "output": marked(record["output"])},
        ):
            with pytest.raises(DroppedError) as caught:
                raise_or_drop(changed)
            assert MARK not in caught.value.detail


def raise_or_drop(record):
    """Convert, and drop what converts, so that every record ends alike."""
    check_example(to_example(record), allow_finish=NONE)
    raise DroppedError("duplicate")
