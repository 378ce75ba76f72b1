"""Recorded streams: the bundled real ones, what is one, and its events."""

import base64
import json
import re
from collections import Counter

import pytest
from botocore.eventstream import EventStreamBuffer

from pipelines.chat.stream_bedrock import merge_converse
from pipelines.chat.streams import is_stream
from tests.chat.streamed import (
    CALLS,
    STREAMS,
    chat,
    chunk,
    merged,
    message_of,
    outcome,
    sse,
)

# --- the bundled real streams


def test_what_is_tagged_as_streamed_is_what_is_a_stream():
    assert [call["id"] for call in CALLS if is_stream(call["respPayload"])] == [
        call["id"] for call in STREAMS
    ]


def test_every_bundled_stream_is_merged_or_dropped_by_reason():
    kinds = Counter(
        (call["tags"]["provider"], call["tags"]["kind"], merged(call["respPayload"]))
        for call in STREAMS
    )

    assert kinds == {
        ("anthropic", "completions", "not_chat"): 1,
        ("anthropic", "messages", "merged"): 18,
        ("aws_bedrock", "converse", "merged"): 6,
        ("aws_bedrock", "invoke_model", "merged"): 3,
        ("aws_bedrock", "invoke_model", "not_chat"): 1,
        ("azure", "chat_completions", "merged"): 6,
        ("deepseek", "chat_completions", "merged"): 2,
        ("google_gemini", "interactions", "stream_unreadable"): 1,
        ("local", "chat_completions", "merged"): 1,
        ("local", "completions", "not_chat"): 1,
        ("openai", "chat_completions", "merged"): 43,
        ("openai", "completions", "not_chat"): 1,
        ("openai", "responses", "merged"): 17,
    }


def test_merged_bundled_streams_have_the_fields_of_responses_that_were_not_streamed():
    needed = {
        "chat_completions": {"id", "object", "created", "model", "choices"},
        "messages": {"id", "type", "role", "content", "model", "stop_reason", "usage"},
        "responses": {"id", "object", "status", "output"},
        "converse": {"output", "stopReason", "usage", "metrics"},
    }
    for call in STREAMS:
        result = outcome(call["respPayload"])
        if isinstance(result, dict):
            assert result.keys() >= needed.get(call["tags"]["kind"], set()), call["id"]
            json.dumps(result, allow_nan=False)


def longest_of(provider, kind):
    """Return the two longest bundled streams that are merged, short enough to cut everywhere."""
    texts = [
        call["respPayload"]
        for call in STREAMS
        if (call["tags"]["provider"], call["tags"]["kind"]) == (provider, kind)
        and merged(call["respPayload"]) == "merged"
    ]
    return sorted((text for text in texts if len(text) < 30_000), key=len)[-2:]


def parts_of(text):
    """Return the events of a recorded stream, each as its own text."""
    if text.startswith("AA"):
        data, parts = base64.b64decode(text), []
        while data:
            size = int.from_bytes(data[:4], "big")
            parts.append(data[:size])
            data = data[size:]
        return parts
    return re.findall(r".*?\r?\n\r?\n", text, re.DOTALL)


def joined(parts):
    return (
        "".join(parts) if isinstance(parts[0], str) else base64.b64encode(b"".join(parts)).decode()
    )


def without_usage(result):
    return {key: value for key, value in result.items() if key not in {"usage", "metrics"}}


@pytest.mark.parametrize(
    ("provider", "kind", "tail"),
    [
        # After the choice's finish_reason come the usage and [DONE].
        pytest.param("openai", "chat_completions", 2),
        pytest.param("azure", "chat_completions", 1),
        pytest.param("deepseek", "chat_completions", 1),
        pytest.param("openai", "responses", 0),
        pytest.param("anthropic", "messages", 0),
        pytest.param("aws_bedrock", "converse", 1),  # metadata follows messageStop
        pytest.param("aws_bedrock", "invoke_model", 1),
    ],
)
def test_a_real_stream_that_is_cut_at_any_event_is_cut_off_and_never_a_wrong_message(
    provider, kind, tail
):
    for text in longest_of(provider, kind):
        whole, parts = outcome(text), parts_of(text)
        cuts = [outcome(joined(parts[:count])) for count in range(1, len(parts))]
        complete = [cut for cut in cuts if cut != "stream_cut_off"]

        assert len(parts) > 4
        assert len(complete) <= tail
        assert all(without_usage(cut) == without_usage(whole) for cut in complete)


@pytest.mark.parametrize(
    ("provider", "kind"),
    [("openai", "chat_completions"), ("openai", "responses"), ("anthropic", "messages")],
)
def test_a_real_stream_that_is_cut_inside_an_event_is_cut_off_and_never_a_wrong_message(
    provider, kind
):
    text = longest_of(provider, kind)[0]
    whole = outcome(text)
    for stop in range(20, len(text), 37):
        result = outcome(text[:stop])

        assert result == "stream_cut_off" or without_usage(result) == without_usage(whole)


@pytest.mark.parametrize("kind", ["converse", "invoke_model"])
def test_bedrock_messages_that_are_cut_inside_are_cut_off(kind):
    text = longest_of("aws_bedrock", kind)[0]
    whole = outcome(text)
    for stop in range(16, len(text), 41):
        result = outcome(text[:stop])

        assert result == "stream_cut_off" or without_usage(result) == without_usage(whole)


def test_a_real_stream_without_its_closing_blank_line_is_whole():
    for call in STREAMS:
        text = call["respPayload"]
        assert outcome(text.rstrip()) == outcome(text)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_real_streams_with_other_line_ends_say_the_same(end):
    for call in STREAMS:
        text = call["respPayload"].replace("\r\n", "\n")
        assert outcome(text.replace("\n", end)) == outcome(text)


def test_bedrock_messages_are_those_that_botocore_reads():
    for call in STREAMS:
        if call["tags"]["kind"] != "converse":
            continue
        buffer = EventStreamBuffer()
        buffer.add_data(base64.b64decode(call["respPayload"]))
        events = [
            {message.headers[":event-type"]: json.loads(message.payload)} for message in buffer
        ]

        assert merge_converse(events) == outcome(call["respPayload"])


# --- what is a stream


@pytest.mark.parametrize(
    "text",
    [
        'data: {"id": 1}\n\n',
        'data:{"id": 1}',
        "data: [DONE]\n\n",
        '\ufeffdata: {"id": 1}\n\n',
        ': OPENROUTER PROCESSING\n\n: again\r\n\r\ndata: {"id": 1}\n\n',
        '\n\nevent: ping\ndata: {"type": "ping"}\n\n',
        'id: 7\nretry: 3000\nevent: message_start\ndata: {"type": "message_start"}\n\n',
        "event: message_start",
        'data:\ndata: {"id": 1}\n\n',
        '[{"candidates": []}',
        '[\n  {\n    "error": {"code": 400}}]',
    ],
)
def test_texts_of_events_are_streams(text):
    assert is_stream(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "The data: {}\n",
        "data: the answer is 42",
        "data",
        "event: Birthday\nplace: home",
        "event: the party",
        " data: {}",
        "Here it is:\n\ndata: {}\n\n",
        "error: upstream\n",
        ": only a comment",
        '{"choices": []}',
        "[1, 2]",
        '[{"text": "a"}]',
        "AAAA",
        "AAAAuQAAAFL9kIXV",
        "\N{LATIN SMALL LETTER E WITH ACUTE}" * 20,
    ],
)
def test_other_texts_are_no_streams(text):
    assert not is_stream(text)
    assert outcome(text) == "stream_unreadable"


# --- events


def test_lines_of_data_are_one_json_text_and_other_fields_say_nothing():
    text = chat({"content": "a"}).replace(', "object"', ',\ndata: "object"', 1)

    assert message_of(f"id: 1\nretry: 5\nother: x\n{text}")["content"] == "a"


def test_a_line_separator_inside_a_json_string_ends_no_line():
    text = sse(chunk({"content": "a\\u2028b"}), chunk(finish="stop"), done=True)

    assert message_of(text.replace("\\\\u2028", "\u2028\x85"))["content"] == "a\u2028\x85b"


@pytest.mark.parametrize(
    "text",
    [
        'data: {"id": \n\ndata: [DONE]\n\n',
        "data: {}\n\n",
        "data: [DONE]\n\n",
        "data: {}\n\ndata: 5\n\n",
        'data: {"n": NaN}\n\n',
        'data: {"a": ' + "[" * 100_000 + "\n\n",
        'data: {"n": ' + "9" * 5000 + "}\n\n",
        'data: {"choices": [5]}\n\n',
        'data: {"choices": [{"index": -1}]}\n\n',
        'data: {"choices": [{"index": 0, "delta": 5}]}\n\n',
        '[{"candidates": []}, {]',
    ],
)
def test_what_no_api_says_is_unreadable(text):
    assert outcome(text) == "stream_unreadable"


@pytest.mark.parametrize(
    "text",
    ['data: {"id": ', "event: message_start\n", "data:", '[{"candidates": [{"con'],
)
def test_a_recording_that_ends_inside_its_first_event_is_cut_off(text):
    assert outcome(text) == "stream_cut_off"


@pytest.mark.parametrize(
    "text",
    [
        sse(chunk({"content": "a"}), {"error": {"message": "no", "code": 502}}),
        sse(chunk({"content": "a"}, "error", error={"message": "no"}), done=True),
        sse(chunk({"content": "a"})) + "event: error\ndata: Internal Server Error\n\n",
        sse(("error", {"type": "error", "error": {"type": "overloaded_error"}})),
        sse({"type": "error", "code": "server_error", "message": "no"}),
        sse({"error": {"code": 503, "status": "UNAVAILABLE"}}),
        '[{"error": {"code": 400}}]',
    ],
)
def test_an_error_event_is_an_error(text):
    assert outcome(text) == "error_output"
