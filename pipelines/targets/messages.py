"""What targets do to messages and tools: known keys only, one role for instructions, plain text.

Whatever is changed is named in `repairs`, a set that the caller hands in; whatever has no place in
a row raises a DroppedError. The messages of an example are never changed in place.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.targets.base import Row

_ROLES = ("system", "developer", "user", "assistant", "tool")
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")


def known_messages(
    example: Example, repairs: set[str], *, named_roles: Collection[str] = ("tool",)
) -> list[Message]:
    """Return copies with the keys of OpenAI's chat format only; `developer` becomes `system`.

    No fine-tuning format has the role `developer`; it means what `system` means to other models.
    A `name` stays where the role is one of `named_roles`.
    """
    messages = [_known(message, repairs, named_roles) for message in example.messages]
    if not messages:
        raise DroppedError("no_messages")
    if messages[-1]["role"] != "assistant":
        raise DroppedError("last_message_not_assistant")
    return messages


def _known(message: Message, repairs: set[str], named_roles: Collection[str]) -> Message:
    role = message.get("role")
    if role not in _ROLES:
        raise DroppedError("unsupported_role")
    if role == "developer":
        role = "system"
        repairs.add("developer_to_system")
    kept = {"role": role, "content": _content(message.get("content"))}
    calls = message.get("tool_calls") if role == "assistant" else None
    if calls:
        kept["tool_calls"] = [_call(call) for call in calls]
    elif kept["content"] is None:
        raise DroppedError("empty_answer" if role == "assistant" else "unsupported_content")
    if role == "tool":
        kept["tool_call_id"] = message.get("tool_call_id")
    if message.get("name") and role in named_roles:
        kept["name"] = message["name"]
    elif message.get("name"):
        repairs.add("name_removed")
    return kept


def _content(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DroppedError("unsupported_content", type(content).__name__)
    return [_part(part) for part in content]


def _part(part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "image_url":
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        if isinstance(image.get("url"), str):
            kept = {key: image[key] for key in ("url", "detail") if image.get(key) is not None}
            return {"type": "image_url", "image_url": kept}
    raise DroppedError("unsupported_content", kind if isinstance(kind, str) else "")


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if call.get("type", "function") != "function" or not isinstance(function, dict):
        raise DroppedError("unsupported_tool", "a call that is no function call")
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function["name"], "arguments": function["arguments"]},
    }


def function_tools(example: Example) -> list[dict[str, Any]] | None:
    """Return the tools with known keys only, or None; a tool that is no function is refused."""
    tools = []
    for tool in example.tools or ():
        function = tool.get("function")
        if tool.get("type", "function") != "function" or not isinstance(function, dict):
            raise DroppedError("unsupported_tool", "no function")
        kept = {key: function[key] for key in _FUNCTION_KEYS if function.get(key) is not None}
        if not isinstance(kept.get("name"), str):
            raise DroppedError("unsupported_tool", "no name")
        if not isinstance(kept.get("parameters", {}), dict):
            raise DroppedError("unsupported_tool", "parameters that are no object")
        tools.append({"type": "function", "function": kept})
    return tools or None


def join_text(messages: Iterable[Message], repairs: set[str], separator: str = "") -> None:
    """Turn contents that are lists of nothing but text into one string.

    One part loses nothing. Several are put together as chat templates of open models do, which
    write the text parts of a message one after the other (`separator` is empty).
    """
    for message in messages:
        content = message["content"]
        if isinstance(content, list) and all(part["type"] == "text" for part in content):
            message["content"] = separator.join(part["text"] for part in content)
            repairs.add("text_parts_joined")


def text_only(messages: Iterable[Message], repairs: set[str], separator: str = "") -> None:
    """Join text and refuse images, for formats whose content is a string."""
    messages = list(messages)
    join_text(messages, repairs, separator)
    if any(isinstance(message["content"], list) for message in messages):
        raise DroppedError("unsupported_content", "image_url")


def fill_content(messages: Iterable[Message], repairs: set[str]) -> None:
    """Give messages that only call tools an empty content, where the format wants a string."""
    for message in messages:
        if message["content"] is None:
            message["content"] = ""
            repairs.add("empty_content_added")


def system_first(messages: list[Message]) -> None:
    """Refuse system messages anywhere but in the first place."""
    if any(message["role"] == "system" for message in messages[1:]):
        raise DroppedError("wrong_turns", "a system message that is not the first")


def text_or_calls(messages: Iterable[Message]) -> None:
    """Refuse answers that hold text and call tools, for formats that lose one of the two."""
    for message in messages:
        if message.get("tool_calls") and message["content"]:
            raise DroppedError("unsupported_content", "text beside tool calls")


def parsed_arguments(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call as an object that JSON can hold again."""
    try:
        parsed = json.loads(arguments, parse_constant=_refuse)
        json.dumps(parsed, allow_nan=False)  # 1e400 is read as infinity
    except (ValueError, RecursionError) as exc:
        raise DroppedError("arguments_not_json") from exc
    if not isinstance(parsed, dict):
        raise DroppedError("arguments_not_json", "no object")
    return parsed


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def without_none(row: Row) -> Row:
    """Return a row without the keys that have no value."""
    return {key: value for key, value in row.items() if value is not None}
