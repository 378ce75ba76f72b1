"""What every example must be, whatever service it goes to; safe repairs are made and named."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Never

from pipelines.chat.calls import pair_calls
from pipelines.chat.example import DroppedError, Example, Message, Reason
from pipelines.chat.kinds import kind_of
from pipelines.chat.legacy import with_tool_calls
from pipelines.chat.messages import clean_message
from pipelines.chat.shapes import function_tool

_UNFINISHED: dict[str, Reason] = {
    "length": "finish_length",
    "content_filter": "finish_content_filter",
}


def check_example(example: Example, *, allow_finish: frozenset[str]) -> Example:
    """Return the example with safe repairs made, or drop it.

    Args:
        example: as a converter made it.
        allow_finish: of `length` and `content_filter`, the finish reasons that may train all the
            same; every other finish reason may.

    Raises:
        DroppedError: the first rule that it breaks.
    """
    finish = example.finish_reason
    if finish in _UNFINISHED and finish not in allow_finish:
        raise DroppedError(_UNFINISHED[finish])
    if not example.messages:
        raise DroppedError("no_messages")
    repairs = list(example.repairs)
    recorded = with_tool_calls(example.messages, repairs)
    messages = [clean_message(message, repairs) for message in recorded]
    _check_answers(messages)
    messages = pair_calls(messages, repairs)
    for message in messages:
        _check_arguments(message)
    return replace(
        example,
        messages=tuple(messages),
        tools=_checked_tools(example.tools),
        finish_reason="tool_calls" if finish == "function_call" else finish,
        repairs=tuple(dict.fromkeys(repairs)),
    )


def _check_answers(messages: list[Message]) -> None:
    """The last message is the answer, and no assistant's message is empty."""
    if messages[-1]["role"] != "assistant":
        raise DroppedError("last_message_not_assistant")
    if len(messages) == 1:
        raise DroppedError("no_messages", "answer without a request")
    if not _says_something(messages[-1]):
        raise DroppedError("empty_answer")
    if not all(_says_something(message) for message in messages):
        raise DroppedError("empty_answer", "assistant's message in the history")


def _says_something(message: Message) -> bool:
    """Return whether a message of the assistant has text or a tool call."""
    if message["role"] != "assistant" or message.get("tool_calls"):
        return True
    content = message["content"] or ""
    if isinstance(content, str):
        return bool(content.strip())
    return any(part["text"].strip() for part in content)


def _check_arguments(message: Message) -> None:
    """Every call's arguments are the JSON text of an object."""
    for call in message.get("tool_calls") or []:
        arguments = call["function"].get("arguments")
        if arguments is None or arguments == "":
            raise DroppedError("tool_call_without_arguments")
        if not _is_object_text(arguments):
            raise DroppedError("arguments_not_json")


def _is_object_text(text: object) -> bool:
    """Return whether this is strict JSON text of an object, without half a surrogate pair."""
    if not isinstance(text, str):
        return False
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return isinstance(value, dict)
    except (ValueError, RecursionError):
        return False


def _no_constant(_name: str) -> Never:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError


def _checked_tools(tools: Iterable[Any] | None) -> tuple[dict[str, Any], ...] | None:
    """Return the tools if all of them are functions."""
    for tool in tools or ():
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
            kind = tool.get("type") if isinstance(tool, dict) else None
            raise DroppedError("unsupported_tool", kind_of(kind))
        function = tool["function"]
        function_tool(function.get("name"), function.get("description"), function.get("parameters"))
    return tuple(tools or ()) or None
