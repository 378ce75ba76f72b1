"""Streams of Gemini's generateContent."""

import json

import pytest

from pipelines.chat.streams import is_stream, merge_stream
from tests.chat.streamed import (
    CALL,
    CHUNKS,
    candidate,
    gemini,
    merged,
    outcome,
    sse,
)


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
