"""Merge the streams of Amazon Bedrock: binary AWS event streams, recorded as base64 text."""

import base64
import binascii
import zlib
from collections.abc import Iterator
from typing import Any

from pipelines.chat.example import DroppedError
from pipelines.chat.stream_anthropic import merge_messages
from pipelines.chat.stream_events import (
    as_index,
    as_object,
    as_text,
    cut_off,
    load_arguments,
    load_json,
    refuse,
)

# https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html: the lengths of a message
# and of its headers, their checksum; headers; payload; checksum of all of it.
_PRELUDE_BYTES = 12
_CRC_BYTES = 4
_STRING = 7
# Bytes of a header's value by its type; 6 and 7 are preceded by their length.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_PLAIN_TEXT = frozenset({"outputText", "completion", "generation", "outputs"})


def is_aws_stream(text: str) -> bool:
    """Tell whether a text is a base64 of AWS messages: the first one's prelude has its checksum."""
    try:
        prelude = base64.b64decode(text.lstrip()[:16], validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(prelude) == _PRELUDE_BYTES and _has_checksum(prelude)


def merge_aws(text: str) -> dict[str, Any]:
    """Return the response of a ConverseStream or an InvokeModelWithResponseStream."""
    characters = "".join(text.split())
    # A recording that is cut off may end inside a group of four.
    data = _decode(characters[: len(characters) // 4 * 4])
    events = list[dict[str, Any]]()
    for name, payload in _read_messages(data):
        value = as_object(load_json(payload))
        if name == "chunk":  # InvokeModel: the model's own event
            events.append(as_object(load_json(_decode(as_text(value.get("bytes"))))))
        else:
            events.append({name: value})
    if any(_PLAIN_TEXT & event.keys() for event in events):
        raise DroppedError("not_chat", "a completion of plain text")
    if any("type" in event for event in events):
        return merge_messages(events)
    return merge_converse(events)


def merge_converse(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the Converse response of events such as `{"contentBlockDelta": {…}}`."""
    response, role, blocks = dict[str, Any](), "assistant", dict[int, dict[str, Any]]()
    for event in events:
        for name, item in event.items():
            if name == "messageStart":
                role = as_text(as_object(item).get("role"))
            elif name == "contentBlockStart":
                _start_block(blocks, as_object(item))
            elif name == "contentBlockDelta":
                _add_delta(blocks, as_object(item))
            elif name == "messageStop":
                response["stopReason"] = as_text(as_object(item).get("stopReason"))
            elif name == "metadata":
                response |= {key: value for key, value in as_object(item).items() if key != "p"}
    if "stopReason" not in response:
        raise cut_off("no messageStop")
    cut = response["stopReason"] in ("max_tokens", "model_context_window_exceeded")
    content = [_settle(blocks[index], cut=cut) for index in sorted(blocks)]
    return {"output": {"message": {"role": role, "content": content}}, **response}


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DroppedError("stream_unreadable", "not base64") from exc


def _has_checksum(data: bytes) -> bool:
    return zlib.crc32(data[:-_CRC_BYTES]) == int.from_bytes(data[-_CRC_BYTES:], "big")


def _read_messages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Stream the event types and payloads; a message that the recording ends in is left out."""
    start = 0
    while len(data) - start >= _PRELUDE_BYTES:
        if not _has_checksum(data[start : start + _PRELUDE_BYTES]):
            refuse("a wrong checksum")
        size = int.from_bytes(data[start : start + 4], "big")
        headers_end = _PRELUDE_BYTES + int.from_bytes(data[start + 4 : start + 8], "big")
        if headers_end + _CRC_BYTES > size:
            refuse("a message smaller than its headers")
        message = data[start : start + size]
        if len(message) < size:
            return
        if not _has_checksum(message):
            refuse("a wrong checksum")
        headers = _read_headers(message[_PRELUDE_BYTES:headers_end])
        if headers.get(":message-type") != "event":
            raise DroppedError("error_output", "an exception of the stream")
        yield headers.get(":event-type", ""), message[headers_end:-_CRC_BYTES]
        start += size


def _read_headers(data: bytes) -> dict[str, str]:
    headers, at = dict[str, str](), 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name, kind = data[at + 1 : name_end], data[name_end : name_end + 1]
        at = name_end + 1
        if kind in {b"\6", b"\7"}:
            size = int.from_bytes(data[at : at + 2], "big")
            at += 2
        elif kind and kind[0] in _FIXED:
            size = _FIXED[kind[0]]
        else:
            refuse("an unknown type of header")
        if kind[0] == _STRING:
            headers[name.decode("utf-8", "replace")] = data[at : at + size].decode(
                "utf-8", "replace"
            )
        at += size
    return headers


def _start_block(blocks: dict[int, dict[str, Any]], item: dict[str, Any]) -> None:
    index = as_index(item.get("contentBlockIndex", 0))
    if index in blocks:
        refuse("a content block that starts twice")
    start = as_object(item.get("start") or {})
    blocks[index] = {kind: dict(as_object(value)) for kind, value in start.items()}


def _add_delta(blocks: dict[int, dict[str, Any]], item: dict[str, Any]) -> None:
    block = blocks.setdefault(as_index(item.get("contentBlockIndex", 0)), {})
    for kind, value in as_object(item.get("delta")).items():
        if kind == "text":
            _append(block, "text", as_text(value))
        elif kind == "toolUse":
            if kind not in block:
                refuse("a delta before its content block")
            _append(block[kind], "input", as_text(as_object(value).get("input")))
        elif kind == "reasoningContent":
            _add_reasoning(as_object(block.setdefault(kind, {})), as_object(value))
        else:  # chat messages have no place for it: it is kept to be seen there
            _append(block, kind, value)


def _add_reasoning(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if key == "redactedContent":
            _append(into, key, as_text(value))
        else:
            _append(as_object(into.setdefault("reasoningText", {})), key, as_text(value))


def _append(into: dict[str, Any], key: str, value: Any) -> None:
    before = into.setdefault(key, [])
    if not isinstance(before, list):
        refuse("a delta of another type than the one before")
    before.append(value)


def _settle(block: dict[str, Any], *, cut: bool) -> dict[str, Any]:
    settled = dict(block)
    if "text" in block:
        settled["text"] = _join(block["text"])
    if "toolUse" in block:
        text = as_text(_join(block["toolUse"].get("input", [])))
        arguments = load_arguments(text, cut=cut) if text else {}
        settled["toolUse"] = block["toolUse"] | {"input": arguments}
    if "reasoningContent" in block:
        settled["reasoningContent"] = _join(block["reasoningContent"])
    return settled


def _join(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _join(item) for key, item in value.items()}
    return "".join(map(as_text, value)) if isinstance(value, list) else value
