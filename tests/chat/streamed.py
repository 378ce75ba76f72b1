"""Streams as text, built from the events of each API."""

import base64
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.chat.example import DroppedError
from pipelines.chat.streams import merge_stream

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


TOOL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


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


def model_event(event):
    return ("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "a"})
