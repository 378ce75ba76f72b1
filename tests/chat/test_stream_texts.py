"""Any text at all, and real streams with something else in them."""

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.chat.streams import is_stream, merge_stream
from tests.chat.streamed import (
    BEGIN,
    CHUNKS,
    STOP,
    STREAMS,
    TOOL,
    TOOL_START,
    aws,
    block,
    candidate,
    chat,
    chunk,
    delta,
    end,
    fragment,
    gemini,
    json_delta,
    message_of,
    model_event,
    opening,
    outcome,
    sse,
    start,
)

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
    [
        chunk({"content": [{"type": "thinking", "thinking": []}]}),
        chunk({"content": [{"type": "text", "text": "a"}]}),
        chunk({"content": "b"}, "stop"),
    ],
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
