"""Literal texts taken out of inputs, as OpenPipe's pruning rules do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipelines.chat.example import Example, Message

_REPAIR = "pruned"


def prune_example(example: Example, texts: Sequence[str]) -> Example:
    """Return the example with each text removed from its input, in the order of the texts.

    A message that was emptied by that is dropped; the answer is never touched.
    """
    asked = example.messages[: -example.answer_size]
    pruned = [_prune(message, texts) for message in asked]
    before = [message for message in pruned if message is not None]
    messages = (*before, *example.messages[-example.answer_size :])
    if messages == example.messages:
        return example
    return replace(example, messages=messages, repairs=(*example.repairs, _REPAIR))


def _prune(message: Message, texts: Sequence[str]) -> Message | None:
    content = message.get("content")
    if isinstance(content, str):
        rest: Any = _without(content, texts)
    elif isinstance(content, list):
        parts = [_part(part, texts) for part in content]
        rest = [part for part in parts if part is not None]
    else:
        return message
    if rest == content:
        return message
    if not rest and not message.get("tool_calls"):
        return None
    return message | {"content": rest or None}


def _part(part: dict[str, Any], texts: Sequence[str]) -> dict[str, Any] | None:
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        return part
    rest = _without(part["text"], texts)
    return part | {"text": rest} if rest or rest == part["text"] else None


def _without(text: str, texts: Sequence[str]) -> str:
    for one in texts:
        text = text.replace(one, "")
    return text
