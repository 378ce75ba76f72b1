"""One chat message: its role, its content and its keys, brought to what training knows."""

from typing import Any

from pipelines.chat.example import DroppedError, Message
from pipelines.chat.kinds import kind_of
from pipelines.chat.shapes import as_object, as_text, image_part, text_part, tool_call

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_REASONING = ("reasoning", "reasoning_content", "reasoning_details", "thinking", "thinking_blocks")
# What a service put beside the text: the text alone would teach something else.
_BESIDE = ("annotations", "audio", "citations", "context", "documents", "executed_tools", "images")


def clean_message(message: object, repairs: list[str]) -> Message:
    """Return the message with the keys of a chat message only; safe repairs are named.

    Raises:
        DroppedError: its role or a part of it has no place in training.
    """
    if not isinstance(message, dict):
        raise DroppedError("unsupported_role", "message that is no object")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise DroppedError("unsupported_role", "role that chat does not know")
    _check_beside(message, role)
    cleaned: Message = {"role": role, "content": _content(message.get("content"), role, repairs)}
    name = message.get("name")
    if isinstance(name, str) and name:
        cleaned["name"] = name
    if role == "tool":
        call_id = message.get("tool_call_id")
        cleaned["tool_call_id"] = call_id if isinstance(call_id, str) else ""
    if role == "assistant":
        if any(message.get(key) for key in _REASONING):
            repairs.append("reasoning_removed")
        _add_calls(cleaned, message.get("tool_calls"), repairs)
    elif message.get("tool_calls"):
        raise DroppedError("unsupported_role", "tool calls of another role than the assistant's")
    return cleaned


def _check_beside(message: Message, role: str) -> None:
    """Drop what stands beside the content and has no place in a chat message."""
    if message.get("refusal"):
        raise DroppedError("refusal")
    for key in _BESIDE:
        if message.get(key):
            raise DroppedError("unsupported_content", key)
    if role == "assistant" and (message.get("prefix") or message.get("partial")):
        raise DroppedError("wrong_turns", "answer that goes on with the request's last message")


def _add_calls(cleaned: Message, calls: object, repairs: list[str]) -> None:
    """Add the tool calls, unless there are none."""
    if calls is None:
        return
    if not isinstance(calls, list):
        raise DroppedError("unsupported_tool", "tool calls that are no list")
    if not calls:
        repairs.append("empty_tool_calls_removed")
        return
    cleaned["tool_calls"] = [_call(call, repairs) for call in calls]


def _call(call: object, repairs: list[str]) -> dict[str, Any]:
    """Return one tool call."""
    recorded = as_object(call)
    if recorded.get("type") not in ("function", None, ""):
        raise DroppedError("unsupported_tool", kind_of(recorded.get("type")))
    function = as_object(recorded.get("function"))
    if isinstance(function.get("arguments"), dict):
        repairs.append("arguments_to_text")
    return tool_call(recorded.get("id"), function.get("name"), function.get("arguments"))


def _content(content: object, role: str, repairs: list[str]) -> str | list[dict[str, Any]] | None:
    """Return the content: text, parts, or None where an assistant said nothing."""
    if isinstance(content, list):
        parts = [part for item in content if (part := _part(item, role, repairs)) is not None]
        if parts:
            return parts
        content = None
    if content is None and role != "assistant":
        raise DroppedError("unsupported_content", "message without content")
    return None if content is None else as_text(content, "content that is no text")


def _part(part: object, role: str, repairs: list[str]) -> dict[str, Any] | None:
    """Return one part, or None for reasoning."""
    if not isinstance(part, dict):
        raise DroppedError("unsupported_content", "part that is no object")
    kind = part.get("type")
    if kind == "text":
        return text_part(as_text(part.get("text"), "text"))
    if kind == "image_url" and role == "user":
        image = part.get("image_url")
        if isinstance(image, dict):
            return image_part(image.get("url"), image.get("detail"))
        return image_part(image)
    if kind in ("thinking", "redacted_thinking") and role == "assistant":
        repairs.append("reasoning_removed")
        return None
    if kind == "refusal":
        raise DroppedError("refusal")
    raise DroppedError("unsupported_content", kind_of(kind))
