"""Merge the stream of Anthropic's Messages API."""

from collections.abc import Iterable
from typing import Any

from pipelines.chat.stream_events import (
    as_index,
    as_list,
    as_object,
    as_text,
    check_error,
    cut_off,
    load_arguments,
    refuse,
)

# The field that each delta adds text to.
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_CUT = ("max_tokens", "model_context_window_exceeded")


def merge_messages(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the message that `message_start` to `message_stop` spell, as `anthropic` does."""
    message: dict[str, Any] | None = None
    blocks, texts = dict[int, dict[str, Any]](), dict[tuple[int, str], list[str]]()
    for event in events:
        check_error(event)
        kind = event.get("type")
        if kind == "message_start" and message is None:
            message = dict(as_object(event.get("message")))
        elif kind == "message_stop" and message is not None:
            return _settle(message, blocks, texts)
        elif kind == "content_block_start":
            _start_block(blocks, event)
        elif kind == "content_block_delta":
            _add_delta(blocks, texts, event)
        elif kind == "message_delta" and message is not None:
            _add_message_delta(message, event)
        elif kind in ("message_start", "message_stop", "message_delta"):
            refuse("events of a message in the wrong order")
    raise cut_off("no message_stop")


def _start_block(blocks: dict[int, dict[str, Any]], event: dict[str, Any]) -> None:
    index = as_index(event.get("index"))
    if index in blocks:
        refuse("a content block that starts twice")
    blocks[index] = dict(as_object(event.get("content_block")))


def _add_delta(
    blocks: dict[int, dict[str, Any]],
    texts: dict[tuple[int, str], list[str]],
    event: dict[str, Any],
) -> None:
    index, delta = as_index(event.get("index")), as_object(event.get("delta"))
    if index not in blocks:
        refuse("a delta before its content block")
    kind, block = delta.get("type"), blocks[index]
    if isinstance(kind, str) and kind in _TEXTS:
        field = _TEXTS[kind]
        texts.setdefault((index, field), []).append(as_text(delta.get(field)))
    elif kind == "signature_delta":
        block["signature"] = as_text(delta.get("signature"))
    elif kind == "citations_delta":
        block["citations"] = [*as_list(block.get("citations") or []), delta.get("citation")]


def _add_message_delta(message: dict[str, Any], event: dict[str, Any]) -> None:
    for key, value in event.items():
        if key == "delta":
            message.update(as_object(value))
        elif key == "usage":
            # Totals, not increments; what is left out keeps the value of message_start.
            known = {
                name: count for name, count in as_object(value or {}).items() if count is not None
            }
            message["usage"] = as_object(message.get("usage") or {}) | known
        elif key != "type" and value is not None:
            message[key] = value


def _settle(
    message: dict[str, Any],
    blocks: dict[int, dict[str, Any]],
    texts: dict[tuple[int, str], list[str]],
) -> dict[str, Any]:
    for (index, field), pieces in texts.items():
        block, text = blocks[index], "".join(pieces)
        if field == "partial_json":
            if text:
                block["input"] = load_arguments(text, cut=message.get("stop_reason") in _CUT)
        else:
            block[field] = as_text(block.get(field) or "") + text
    return {**message, "content": [blocks[index] for index in sorted(blocks)]}
