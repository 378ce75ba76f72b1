"""Streams of OpenAI's two chat APIs."""

import pytest

from pipelines.chat.streams import merge_stream
from tests.chat import recorded
from tests.chat.recorded import USER, convert
from tests.chat.streamed import (
    chat,
    chunk,
    fragment,
    merged,
    message_of,
    opening,
    outcome,
    sse,
)


def test_a_chat_stream_becomes_a_chat_completion():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    text = sse(
        chunk({"role": "assistant", "content": "", "refusal": None}, usage=None),
        chunk({"content": "Hel"}, obfuscation="x"),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        chunk(choices=[], usage=usage),
        done=True,
    )

    assert merge_stream(text) == {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage,
    }


def test_choices_are_told_apart_by_their_index():
    text = sse(
        chunk({"content": "b"}, index=1),
        chunk({"content": "a"}, index=0),
        chunk({"content": "B"}, "stop", index=1),
        chunk({"content": "A"}, "length", index=0),
        done=True,
    )
    choices = merge_stream(text)["choices"]

    assert [choice["message"]["content"] for choice in choices] == ["aA", "bB"]
    assert [choice["finish_reason"] for choice in choices] == ["length", "stop"]


def test_calls_are_told_apart_by_their_index():
    text = chat(
        {"role": "assistant", "content": None},
        opening("first"),
        fragment('{"a":'),
        opening("second", 1, "call_2"),
        fragment("1}"),
        fragment("{}", 1),
        finish="tool_calls",
    )

    assert message_of(text) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "type": "function",
                "id": "call_1",
                "function": {"name": "first", "arguments": '{"a":1}'},
            },
            {"type": "function", "id": "call_2", "function": {"name": "second", "arguments": "{}"}},
        ],
    }


def test_roles_ids_and_names_that_a_proxy_repeats_are_not_strung_together():
    repeated = {"id": "call_1", "type": "function"}
    text = chat(
        {"role": "assistant"} | opening("look_up"),
        {"role": "assistant"}
        | fragment("{}", **repeated, function={"name": "look_up", "arguments": "{}"}),
        finish="tool_calls",
    )
    message = message_of(text)

    assert message["role"] == "assistant"
    assert message["tool_calls"] == [
        repeated | {"function": {"name": "look_up", "arguments": "{}"}}
    ]


@pytest.mark.parametrize("index", [0, None])
def test_a_new_id_is_a_new_call_even_with_the_same_index_or_none(index):
    deltas = [opening(name, index, name) for name in ("a", "b")]

    names = [call["id"] for call in message_of(chat(*deltas))["tool_calls"]]

    assert names == ["a", "b"]


def test_function_call_refusal_and_reasoning_are_strung_together():
    text = chat(
        {"function_call": {"name": "f", "arguments": ""}, "tool_calls": None},
        {"function_call": {"arguments": "{"}, "refusal": "I "},
        {"function_call": {"arguments": "}"}, "refusal": "won't", "reasoning_content": "hm"},
        {"reasoning_content": "m", "function_call": None},
        finish="function_call",
    )

    assert message_of(text) == {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{}"},
        "refusal": "I won't",
        "reasoning_content": "hmm",
    }


def test_null_calls_are_no_calls():
    text = chat({"role": None, "content": "a", "tool_calls": [], "function_call": None})

    assert message_of(text) == {"role": "assistant", "content": "a"}


def test_logprobs_are_listed_one_after_the_other():
    tokens = [{"token": "a"}, {"token": "b"}]
    chunks = [chunk({"content": token["token"]}) for token in tokens]
    for each, token in zip(chunks, tokens, strict=True):
        each["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    text = sse(*chunks, chunk(finish="stop"), done=True)

    assert merge_stream(text)["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}


def test_the_first_chunk_of_azure_names_no_completion():
    first = chunk(choices=[], id="", model="", object="", created=0, prompt_filter_results=[1])
    result = merge_stream(sse(first) + chat({"content": "a"}))

    assert (result["id"], result["model"], result["created"]) == ("c1", "m", 1)
    assert result["object"] == "chat.completion"
    assert result["prompt_filter_results"] == [1]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        pytest.param(chat({"content": "a"}, done=False), "merged", id="no-done"),
        pytest.param(
            chat({"content": "a"}, finish=None, done=False), "stream_cut_off", id="no-end"
        ),
        pytest.param(chat({"content": "a"}, finish=None), "stream_cut_off", id="done-alone"),
        pytest.param(sse(chunk(choices=[]), done=True), "merged", id="done-without-a-choice"),
        pytest.param(
            sse(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, index=1)),
            "stream_cut_off",
            id="one-choice-open",
        ),
        pytest.param(sse(chunk(choices=[])), "stream_cut_off", id="no-choice-yet"),
        pytest.param(chat({"content": "a"}, {"content": 5}), "stream_unreadable", id="number"),
        pytest.param(chat({"content": "a"}, {"content": ["b"]}), "stream_unreadable", id="list"),
        pytest.param(chat({"annotations": [1]}, {"annotations": [2]}), "merged", id="lists"),
        pytest.param(
            chat({"audio": {"expires_at": 1}}, {"audio": {"expires_at": 2}}), "merged", id="numbers"
        ),
        pytest.param(sse({"object": "text_completion", "choices": []}), "not_chat", id="text"),
    ],
)
def test_the_end_of_a_chat_stream(text, result):
    assert merged(text) == result


def mistral(*parts):
    return {"content": list(parts)}


def text(said, **more):
    return {"type": "text", "text": said} | more


def thinking(thought):
    return {"type": "thinking", "thinking": [text(thought)]}


@pytest.mark.parametrize(
    ("deltas", "content"),
    [
        pytest.param([mistral(text("Hel")), mistral(text("lo"))], "Hello", id="lists"),
        pytest.param([mistral(text("Hel"), text("lo"))], "Hello", id="one-list"),
        pytest.param([{"content": ""}, mistral(text("Hello"))], "Hello", id="empty-first"),
        pytest.param([{"content": "Hel"}, mistral(text("lo"))], "Hello", id="text-then-list"),
        pytest.param([mistral(text("Hel")), {"content": "lo"}], "Hello", id="list-then-text"),
        pytest.param(
            [
                {"content": ""},
                mistral(thinking("h")),
                mistral(thinking("m")),
                {"content": "Hel"},
                {"content": "lo"},
            ],
            [thinking("h"), thinking("m"), text("Hello")],
            id="thinking-then-text",
        ),
        pytest.param(
            [mistral(text("a")), mistral({"type": "reference", "reference_ids": [0]}, text("b"))],
            [text("a"), {"type": "reference", "reference_ids": [0]}, text("b")],
            id="reference",
        ),
        pytest.param(
            [mistral(text("a", index=0)), mistral(text("b", index=1))],
            [text("a", index=0), text("b", index=1)],
            id="texts-that-differ",
        ),
    ],
)
def test_lists_of_text_are_pieces_of_one_text(deltas, content):
    assert message_of(chat(*deltas))["content"] == content


def test_a_thought_in_a_stream_leaves_as_one_that_was_not_streamed():
    asked = {"messages": [USER]}
    streamed = convert(asked, chat(mistral(thinking("hm")), {"content": "Sun"}, {"content": "ny."}))
    whole = convert(asked, recorded.chat({"content": [thinking("hm"), text("Sunny.")]}))

    assert streamed == whole


def test_what_follows_done_is_not_read():
    assert merged(chat({"content": "a"}) + "data: {\n\n" + sse({"error": "late"})) == "merged"


# --- OpenAI responses


def test_the_last_event_of_a_responses_stream_carries_the_response():
    for status in ("completed", "incomplete", "failed"):
        response: dict = {"id": "r1", "object": "response", "status": status, "output": []}
        text = sse(
            {"type": "response.created", "response": {"status": "in_progress"}},
            {"type": "response.output_text.delta", "delta": "a"},
            {"type": f"response.{status}", "response": response},
        )

        assert merge_stream(text) == response
        assert outcome(text[: text.rindex("data:")]) == "stream_cut_off"
