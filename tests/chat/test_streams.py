"""Recorded streams: the bundled real ones, hand-written ones, and arbitrary text."""

import base64
import json
import re
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.chat.example import DroppedError
from pipelines.chat.stream_bedrock import merge_converse
from pipelines.chat.streams import is_stream, merge_stream

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample" / "openpipe"


def read_calls():
    table = pa.concat_tables(
        pq.ParquetFile(path).read(columns=["id", "respPayload", "tags"])
        for path in sorted(SAMPLE.rglob("*.parquet"))
    )
    return [call | {"tags": dict(call["tags"])} for call in table.to_pylist()]


CALLS = read_calls()
STREAMS = [call for call in CALLS if call["tags"].get("streamed") == "true"]


def outcome(text):
    try:
        return merge_stream(text)
    except DroppedError as error:
        return error.reason


def merged(text):
    result = outcome(text)
    return "merged" if isinstance(result, dict) else result


def sse(*events, done=False):
    """Return events as their text: a dict, or a pair of a name and a dict."""
    lines = []
    for event in events:
        if isinstance(event, tuple):
            lines.append(f"event: {event[0]}\n")
            event = event[1]  # noqa: PLW2901 - the name is written
        lines.append(f"data: {json.dumps(event)}\n\n")
    return "".join(lines) + ("data: [DONE]\n\n" if done else "")


def chunk(delta=None, finish=None, index=0, **more):
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return (
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        | {"choices": [choice]}
        | more
    )


def chat(*deltas, finish="stop", done=True):
    return sse(*map(chunk, deltas), chunk(finish=finish), done=done)


def message_of(text):
    return merge_stream(text)["choices"][0]["message"]


def fragment(arguments, index=0, **more):
    call = {"index": index, "function": {"arguments": arguments}}
    return {"tool_calls": [call | more]}


def opening(name, index=0, call_id="call_1"):
    function = {"name": name, "arguments": ""}
    return {
        "tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]
    }


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
    for end in range(20, len(text), 37):
        result = outcome(text[:end])

        assert result == "stream_cut_off" or without_usage(result) == without_usage(whole)


@pytest.mark.parametrize("kind", ["converse", "invoke_model"])
def test_bedrock_messages_that_are_cut_inside_are_cut_off(kind):
    text = longest_of("aws_bedrock", kind)[0]
    whole = outcome(text)
    for end in range(16, len(text), 41):
        result = outcome(text[:end])

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


# --- OpenAI chat completions


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
        pytest.param(chat({"content": "a"}, finish=None), "merged", id="done-alone"),
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


# --- Anthropic messages


def start(**more):
    message = {"id": "m1", "type": "message", "role": "assistant", "content": [], "model": "c"}
    usage = {"input_tokens": 5, "output_tokens": 1}
    return {
        "type": "message_start",
        "message": message | {"stop_reason": None, "usage": usage} | more,
    }


def block(index, content, *deltas):
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def end(reason="end_turn"):
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"input_tokens": None, "output_tokens": 9},
        },
        {"type": "message_stop"},
    ]


def json_delta(text):
    return {"type": "input_json_delta", "partial_json": text}


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


TOOL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


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


# --- Gemini


def candidate(*parts, finish=None, index=0):
    content = {"role": "model", "parts": list(parts)}
    return {"index": index, "content": content} | ({"finishReason": finish} if finish else {})


def gemini(*candidates, **more):
    return {"candidates": list(candidates), "modelVersion": "g"} | more


CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
CHUNKS = [
    gemini(candidate({"text": "h", "thought": True}), usageMetadata={"totalTokenCount": 1}),
    gemini(candidate({"text": "m", "thought": True})),
    gemini(candidate({"text": "Hel"})),
    gemini(candidate({"text": "lo"}, CALL)),
    gemini(candidate(CALL)),
    gemini(candidate({"text": "", "thoughtSignature": "s"})),
    gemini(candidate({"text": "!"}, finish="STOP"), usageMetadata={"totalTokenCount": 7}),
]


@pytest.mark.parametrize("text", [sse(*CHUNKS), json.dumps(CHUNKS), json.dumps(CHUNKS, indent=2)])
def test_a_gemini_stream_becomes_a_response(text):
    assert is_stream(text)
    assert merge_stream(text) == {
        "candidates": [
            {
                "index": 0,
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"text": "Hello"},
                        CALL,
                        CALL,
                        {"text": "", "thoughtSignature": "s"},
                        {"text": "!"},
                    ],
                },
                "finishReason": "STOP",
            }
        ],
        "modelVersion": "g",
        "usageMetadata": {"totalTokenCount": 7},
    }


@pytest.mark.parametrize("count", range(1, len(CHUNKS)))
def test_a_gemini_stream_that_is_cut_at_any_chunk_is_cut_off(count):
    assert outcome(sse(*CHUNKS[:count])) == "stream_cut_off"
    assert outcome(json.dumps(CHUNKS[:count])[:-1]) == "stream_cut_off"
    assert outcome(json.dumps(CHUNKS[:count])) == "stream_cut_off"


@pytest.mark.parametrize(
    ("chunks", "result"),
    [
        pytest.param([gemini(candidate(finish="STOP"))], "merged", id="no-parts"),
        pytest.param([gemini({"finishReason": "SAFETY"})], "merged", id="no-content"),
        pytest.param([{"promptFeedback": {"blockReason": "SAFETY"}}], "merged", id="blocked"),
        pytest.param([{"promptFeedback": {}}], "stream_cut_off", id="not-blocked"),
        pytest.param([*CHUNKS, {"usageMetadata": {}}], "merged", id="usage-last"),
        pytest.param([*CHUNKS, CHUNKS[2]], "stream_cut_off", id="more-after-the-end"),
        pytest.param(
            [gemini(candidate(finish="CONTINUATION"))], "stream_cut_off", id="to-be-continued"
        ),
        pytest.param(
            [gemini(candidate(finish="STOP"), candidate(index=1))], "stream_cut_off", id="one-open"
        ),
        pytest.param([gemini(candidate({"text": 1}))], "stream_unreadable", id="number"),
        pytest.param([gemini({"content": 1})], "stream_unreadable", id="no-object"),
    ],
)
def test_the_end_of_a_gemini_stream(chunks, result):
    assert merged(sse(*chunks)) == result


# --- Bedrock


def header(name, value):
    return bytes([len(name)]) + name + b"\7" + len(value).to_bytes(2, "big") + value


def aws_message(event, payload, *, kind=b"event", extra=b""):
    headers = header(b":event-type", event.encode()) + header(b":message-type", kind) + extra
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    size = 12 + len(headers) + len(body) + 4
    prelude = size.to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    message = prelude + zlib.crc32(prelude).to_bytes(4, "big") + headers + body
    return message + zlib.crc32(message).to_bytes(4, "big")


def aws(*messages):
    data = b"".join(m if isinstance(m, bytes) else aws_message(*m) for m in messages)
    return base64.b64encode(data).decode()


def delta(index, **item):
    return ("contentBlockDelta", {"contentBlockIndex": index, "delta": item, "p": "ab"})


BEGIN = ("messageStart", {"role": "assistant", "p": "a"})
TOOL_START = (
    "contentBlockStart",
    {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}},
)
STOP = ("messageStop", {"stopReason": "tool_use", "p": "a"})


def test_a_converse_stream_becomes_a_response():
    text = aws(
        BEGIN,
        delta(0, reasoningContent={"text": "h"}),
        delta(0, reasoningContent={"text": "m"}),
        delta(0, reasoningContent={"signature": "sig"}),
        delta(1, text="Hel"),
        aws_message("contentBlockDelta", delta(1, text="lo")[1], extra=b"\1a\0\1b\4abcd\1c\6\0\1x"),
        TOOL_START,
        delta(2, toolUse={"input": '{"a":'}),
        delta(2, toolUse={"input": "1}"}),
        ("contentBlockStop", {"contentBlockIndex": 2}),
        delta(3, reasoningContent={"redactedContent": "AAAA"}),
        delta(4, citation={"title": "x"}),
        STOP,
        ("metadata", {"usage": {"totalTokens": 3}, "metrics": {"latencyMs": 1}, "p": "abc"}),
    )

    assert is_stream(text)
    assert merge_stream("\n".join(re.findall(".{1,76}", text))) == {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
                    {"text": "Hello"},
                    {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
                    {"reasoningContent": {"redactedContent": "AAAA"}},
                    {"citation": [{"title": "x"}]},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {"totalTokens": 3},
        "metrics": {"latencyMs": 1},
    }


def model_event(event):
    return ("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "a"})


def test_the_events_of_an_invoked_model_are_merged_as_its_own():
    events = [start(), *block(0, {"type": "text", "text": ""}), *end()]

    assert merge_stream(aws(*map(model_event, events))) == merge_stream(sse(*events))


def broken(text):
    data = bytearray(base64.b64decode(text))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("text", "result"),
    [
        pytest.param(aws(BEGIN, delta(0, text="a")), "stream_cut_off", id="no-stop"),
        pytest.param(aws(BEGIN, STOP), "merged", id="no-metadata"),
        pytest.param(aws(BEGIN, STOP) + "!", "merged", id="tail"),
        pytest.param(aws(BEGIN, STOP) + "!!!!", "stream_unreadable", id="no-base64"),
        pytest.param(broken(aws(BEGIN, STOP)), "stream_unreadable", id="checksum"),
        pytest.param(aws(BEGIN, STOP, b"\0" * 16), "stream_unreadable", id="prelude"),
        pytest.param(
            aws(BEGIN, aws_message("x", {}, kind=b"exception")), "error_output", id="exception"
        ),
        pytest.param(aws(("messageStop", b"{")), "stream_unreadable", id="no-json"),
        pytest.param(aws(("chunk", {"bytes": "?"})), "stream_unreadable", id="chunk-no-base64"),
        pytest.param(aws(model_event({"outputText": "a"})), "not_chat", id="titan"),
        pytest.param(aws(aws_message("x", {}, extra=b"\1a\x63")), "stream_unreadable", id="header"),
        pytest.param(aws(TOOL_START, TOOL_START), "stream_unreadable", id="two-blocks"),
        pytest.param(aws(delta(0, toolUse={"input": ""})), "stream_unreadable", id="no-block"),
        pytest.param(
            aws(TOOL_START, delta(2, toolUse={"input": 1})), "stream_unreadable", id="input-no-text"
        ),
        pytest.param(
            aws(
                ("contentBlockStart", {"start": {"image": {}}}),
                delta(0, image={"source": {}}),
            ),
            "stream_unreadable",
            id="other-type",
        ),
        pytest.param(
            aws(delta(0, reasoningContent={"a": {}})), "stream_unreadable", id="reasoning-no-text"
        ),
        pytest.param(aws(TOOL_START, STOP), "merged", id="no-input"),
        pytest.param(
            aws(TOOL_START, delta(2, toolUse={"input": "{"}), STOP),
            "arguments_not_json",
            id="arguments-broken",
        ),
        pytest.param(
            aws(
                TOOL_START,
                delta(2, toolUse={"input": "{"}),
                ("messageStop", {"stopReason": "max_tokens"}),
            ),
            "finish_length",
            id="arguments-cut",
        ),
    ],
)
def test_the_end_of_a_bedrock_stream(text, result):
    assert merged(text) == result


def test_a_message_smaller_than_its_headers_is_unreadable():
    prelude = (16).to_bytes(4, "big") + (99).to_bytes(4, "big")
    data = prelude + zlib.crc32(prelude).to_bytes(4, "big") + b"\0" * 4

    assert outcome(base64.b64encode(data).decode()) == "stream_unreadable"


# --- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
SEEDS = [
    [chunk({"role": "assistant"} | opening("f")), chunk(fragment("{}")), chunk({"content": "a"})],
    [chunk({"function_call": {"name": "f", "arguments": "{}"}}, "stop", logprobs={"content": []})],
    [start(), *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a"}), *end()],
    [start(), *block(0, TOOL, json_delta("{}")), *end()],
    [{"type": "response.completed", "response": {"output": []}}],
    CHUNKS,
]
CONVERSE = [BEGIN, delta(0, text="a"), TOOL_START, delta(2, toolUse={"input": "{}"}), STOP]


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def is_dropped_or_an_object(text):
    is_stream(text)
    result = outcome(text)
    return isinstance(result, dict | str)


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet='adtevn:[]{}"DONE \n\r\ufeff,1', max_size=60))
def test_any_text_is_merged_or_dropped(text):
    assert is_dropped_or_an_object(text)
    assert is_dropped_or_an_object(f"data: {text}\n\n")
    assert is_dropped_or_an_object(f'[{{"candidates": {text}')


@settings(max_examples=400, deadline=None)
@given(seed=st.sampled_from([*SEEDS, list(map(list, CONVERSE))]), new=JSON, data=st.data())
def test_any_event_with_another_value_in_it_is_merged_or_dropped(seed, new, data):
    path = data.draw(st.sampled_from(sorted(places(seed), key=str)))
    events = replaced(seed, path, new)
    if not isinstance(events, list):
        events = [events]
    if seed in SEEDS:
        assert is_dropped_or_an_object(sse(*events, done=data.draw(st.booleans())))
        assert is_dropped_or_an_object(json.dumps(events))
        assert is_dropped_or_an_object(aws(*map(model_event, events)))
    else:
        pairs = [pair for pair in events if isinstance(pair, list) and len(pair) == 2]
        assert is_dropped_or_an_object(aws(*((str(name)[:9], item) for name, item in pairs)))


@settings(deadline=None)
@given(
    text=st.sampled_from(
        [call["respPayload"] for call in STREAMS if len(call["respPayload"]) < 5000]
    ),
    data=st.data(),
)
def test_a_real_stream_with_a_piece_replaced_is_merged_or_dropped(text, data):
    begin = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(begin, min(len(text), begin + 50)))

    assert is_dropped_or_an_object(text[:begin] + data.draw(st.text(max_size=3)) + text[stop:])


@settings(deadline=None)
@given(text=st.text(min_size=1), cuts=st.lists(st.integers(0, 40)))
def test_a_text_in_any_pieces_is_the_same_text(text, cuts):
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    contents = [{"type": "text_delta", "text": piece} for piece in pieces]
    messages = sse(start(), *block(0, {"type": "text", "text": ""}, *contents), *end())
    parts = [gemini(candidate({"text": piece})) for piece in pieces]
    converse = [delta(0, text=piece) for piece in pieces]
    response = merge_stream(sse(*parts, gemini(candidate(finish="STOP"))))

    assert message_of(chat(*({"content": piece} for piece in pieces)))["content"] == text
    assert merge_stream(messages)["content"] == [{"type": "text", "text": text}]
    assert response["candidates"][0]["content"]["parts"] == [{"text": text}]
    assert merge_stream(aws(*converse, STOP))["output"]["message"]["content"] == [{"text": text}]
