"""What targets do to messages: known keys only, one role for instructions, plain text.

Whatever is changed is named in `repairs`, a set that the caller hands in; whatever has no place in
a row raises a DroppedError. The messages of an example are never changed in place.
"""

from collections.abc import Collection, Iterable
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.targets.base import Row

_ROLES = ("system", "developer", "user", "assistant", "tool")
_DETAILS = ("auto", "low", "high")  # openai-openapi ChatCompletionRequestMessageContentPartImage


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
    kept = {"role": role, "content": _content(message.get("content"), repairs)}
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


def _content(content: Any, repairs: set[str]) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DroppedError("unsupported_content", type(content).__name__)
    return [_part(part, repairs) for part in content]


def _part(part: Any, repairs: set[str]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "image_url":
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        if isinstance(image.get("url"), str):
            kept = {"url": image["url"]}
            if image.get("detail") in _DETAILS:
                kept["detail"] = image["detail"]
            elif image.get("detail") is not None:
                repairs.add("detail_removed")
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


def text_only(messages: Iterable[Message], repairs: set[str]) -> None:
    """Join text and refuse images, for formats whose content is a string."""
    messages = list(messages)
    join_text(messages, repairs)
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


def without_none(row: Row) -> Row:
    """Return a row without the keys that have no value."""
    return {key: value for key, value in row.items() if value is not None}
