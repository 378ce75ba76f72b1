"""Event streams of Bedrock."""

import base64
import re
import zlib

import pytest

from pipelines.chat.streams import is_stream, merge_stream
from tests.chat.streamed import (
    BEGIN,
    STOP,
    TOOL_START,
    aws,
    aws_message,
    block,
    delta,
    end,
    merged,
    model_event,
    outcome,
    sse,
    start,
)


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
