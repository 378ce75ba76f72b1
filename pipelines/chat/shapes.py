"""What the converters read from parsed JSON and build for chat messages."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message, Reason

_DATA_MEDIA = re.compile(r"image/[a-z0-9.+-]{1,40}")


def objects(value: object, reason: Reason, detail: str) -> list[dict[str, Any]]:
    """Return a list of objects (None is an empty one), or drop the record."""
    if value is None:
        return []
    items: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in items):
        raise DroppedError(reason, detail)
    return items


def as_object(value: object) -> dict[str, Any]:
    """Return the object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def as_text(value: object, detail: str) -> str:
    """Return the text, or drop the record."""
    if not isinstance(value, str):
        raise DroppedError("unsupported_content", detail)
    return value


def to_json(value: object, reason: Reason, detail: str) -> str:
    """Return JSON text; a number that JSON cannot say drops the record."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise DroppedError(reason, detail) from None


def text_part(text: str) -> dict[str, Any]:
    """Return a text part."""
    return {"type": "text", "text": text}


def image_part(url: object, detail: object = None) -> dict[str, Any]:
    """Return an image part for a web address or a data URL; other addresses drop the record."""
    if not isinstance(url, str) or not url.startswith(("https://", "http://", "data:image/")):
        raise DroppedError("unsupported_content", "image without a web address or data")
    image = {"url": url}
    if isinstance(detail, str):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def data_image(media_type: object, data: object) -> dict[str, Any]:
    """Return an image part for base64 data."""
    if not isinstance(media_type, str) or not _DATA_MEDIA.fullmatch(media_type.lower()):
        raise DroppedError("unsupported_content", "data that is no image")
    return image_part(f"data:{media_type.lower()};base64,{as_text(data, 'image')}")


def content_of(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]] | None:
    """Return parts as a message's content: one text is a string, none is None."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts


def tool_call(call_id: object, name: object, arguments: object) -> dict[str, Any]:
    """Return a tool call; objects become JSON text, absent arguments stay absent for the gates."""
    if not isinstance(name, str) or not name:
        raise DroppedError("unsupported_tool", "call without a name")
    function: dict[str, Any] = {"name": name}
    if isinstance(arguments, dict):
        function["arguments"] = to_json(arguments, "arguments_not_json", "number out of range")
    elif arguments is not None:
        function["arguments"] = arguments
    call = {"id": call_id if isinstance(call_id, str) else "", "type": "function"}
    return {**call, "function": function}


def assistant(parts: list[dict[str, Any]], calls: list[dict[str, Any]]) -> Message:
    """Return an assistant's message."""
    message: Message = {"role": "assistant", "content": content_of(parts)}
    if calls:
        message["tool_calls"] = calls
    return message


def function_tool(
    name: object, description: object, parameters: object, strict: object = None
) -> dict[str, Any]:
    """Return a function tool, or drop the record when it is no definition."""
    if not isinstance(name, str) or not name:
        raise DroppedError("unsupported_tool", "tool without a name")
    if not isinstance(parameters, dict | None) or not isinstance(description, str | None):
        raise DroppedError("unsupported_tool", "tool that is no function")
    function: dict[str, Any] = {"name": name}
    if description is not None:
        function["description"] = description
    if parameters is not None:
        function["parameters"] = parameters
    if isinstance(strict, bool):
        function["strict"] = strict
    return {"type": "function", "function": function}


def count_other_keys(tool: Mapping[str, Any], known: Iterable[str], repairs: list[str]) -> None:
    """Name the repair where a tool says more than a function of a chat request can."""
    if any(value is not None for key, value in tool.items() if key not in known):
        repairs.append("tool_keys_removed")


def tool_result(call_id: object, parts: list[dict[str, Any]]) -> Message:
    """Return a tool's result."""
    return {
        "role": "tool",
        "tool_call_id": call_id if isinstance(call_id, str) else "",
        "content": content_of(parts) or "",
    }


def system(parts: list[dict[str, Any]]) -> list[Message]:
    """Return the system's text as a first message, if there is any."""
    content = content_of(parts)
    return [] if content is None or content == "" else [{"role": "system", "content": content}]


def named_choice(name: object) -> dict[str, Any]:
    """Return the tool choice of one function."""
    if not isinstance(name, str):
        raise DroppedError("unsupported_tool", "choice without a name")
    return {"type": "function", "function": {"name": name}}


def json_schema_format(schema: object, name: str = "response") -> dict[str, Any]:
    """Return a response format for a schema that came without a name."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def refuse_fields(source: Mapping[str, Any], fields: Iterable[str], reason: Reason) -> None:
    """Drop the record when one of these fields says something."""
    for field in fields:
        if source.get(field):
            raise DroppedError(reason, field)


def example(
    messages: list[Message],
    tags: Mapping[str, str | None],
    repairs: Iterable[str] = (),
    tools: Iterable[dict[str, Any]] = (),
    **settings: Any,
) -> Example:
    """Return the example; each repair is named once, in order; no tools are None."""
    return Example(
        messages=tuple(messages),
        tools=tuple(tools) or None,
        tags=tags,
        repairs=tuple(dict.fromkeys(repairs)),
        **settings,
    )
