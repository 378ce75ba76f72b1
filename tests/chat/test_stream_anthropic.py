"""Streams of Anthropic's Messages API."""

import pytest

from pipelines.chat.streams import merge_stream
from tests.chat.streamed import (
    TOOL,
    block,
    end,
    json_delta,
    merged,
    sse,
    start,
)


def test_a_messages_stream_becomes_a_message():
    citation = {"type": "char_location", "cited_text": "x"}
    text = sse(
        start(),
        {"type": "ping"},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "thinking_delta", "thinking": "m"},
            {"type": "signature_delta", "signature": "sig"},
        ),
        *block(
            1,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Hel"},
            {"type": "citations_delta", "citation": citation},
            {"type": "text_delta", "text": "lo"},
            {"type": "delta_of_tomorrow"},
        ),
        {"type": "event_of_tomorrow"},
        *block(
            2,
            {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
            json_delta(""),
            json_delta('{"a": '),
            json_delta("[1]}"),
        ),
        *block(3, {"type": "tool_use", "id": "t2", "name": "g", "input": {}}, json_delta("")),
        *end("tool_use"),
    )

    assert merge_stream(text) == {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "content": [
            {"type": "thinking", "thinking": "hmm", "signature": "sig"},
            {"type": "text", "text": "Hello", "citations": [citation]},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1]}},
            {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 9},
    }


@pytest.mark.parametrize(
    ("events", "result"),
    [
        pytest.param([start(), *end()], "merged", id="empty"),
        pytest.param([start(), *end()[:1]], "stream_cut_off", id="no-stop"),
        pytest.param(end(), "stream_unreadable", id="no-start"),
        pytest.param([start(), start()], "stream_unreadable", id="two-starts"),
        pytest.param([start(), *block(0, {}), *block(0, {})], "stream_unreadable", id="two-blocks"),
        pytest.param([start(), block(0, {}, {})[1]], "stream_unreadable", id="no-block"),
        pytest.param(
            [start(), *block(0, TOOL, json_delta('{"a"')), *end("max_tokens")],
            "finish_length",
            id="arguments-cut",
        ),
        pytest.param(
            [start(), *block(0, TOOL, json_delta('{"a"')), *end("tool_use")],
            "arguments_not_json",
            id="arguments-broken",
        ),
        pytest.param(
            [start(), *block(0, TOOL, json_delta("[1]")), *end("tool_use")],
            "arguments_not_json",
            id="arguments-list",
        ),
        pytest.param([{"type": "completion", "completion": " Hi"}], "not_chat", id="completion"),
    ],
)
def test_the_end_of_a_messages_stream(events, result):
    assert merged(sse(*events)) == result
