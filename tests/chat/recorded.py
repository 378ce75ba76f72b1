"""Recorded calls as records: hand-written ones, and the 300 real ones of the package."""

import json
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

import pipelines
from pipelines.chat.convert import to_example
from pipelines.chat.example import DroppedError
from pipelines.chat.gates import check_example

USER = {"role": "user", "content": "Weather in Paris?"}
NONE: frozenset[str] = frozenset()


def record(request, response, tags=None):
    return {"input": request, "output": response, "tags": tags or {}}


def convert(request, response, tags=None, allow_finish=NONE):
    return check_example(to_example(record(request, response, tags)), allow_finish=allow_finish)


def outcome(request, response):
    """The reason for a drop, or "converted"."""
    try:
        convert(request, response)
    except DroppedError as error:
        return error.reason
    return "converted"


def detail(request, response):
    try:
        convert(request, response)
    except DroppedError as error:
        return error.detail
    return None


def messages(request, response):
    return list(convert(request, response).messages)


@cache
def real_calls():
    """Each bundled call as a record, in the order of its id."""
    root = Path(pipelines.__file__).parent / "sample" / "openpipe"
    rows = []
    for batch in sorted(root.rglob("*.parquet")):
        rows += pq.ParquetFile(batch).read(["id", "reqPayload", "respPayload", "tags"]).to_pylist()
    rows.sort(key=lambda row: row["id"])
    return [
        record(_payload(row["reqPayload"]), _payload(row["respPayload"]), dict(row["tags"]))
        for row in rows
    ]


def _payload(text):
    """What the export makes of a payload: JSON as it is, other text as a string."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


# What an assistant says, and a call that it makes.


def chat(message=None, finish="stop", **changes):
    """A chat completion."""
    said = {"role": "assistant", "content": "Sunny.", **(message or {})}
    choice = {"index": 0, "message": said, "finish_reason": finish, "logprobs": None}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], **changes}


def call(name="weather", arguments='{"city": "Paris"}', call_id="call_1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
WEATHER = {"type": "function", "function": FUNCTION}
