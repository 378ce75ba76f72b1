"""OpenAI's Responses API."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.chat.calls import pair_calls
from pipelines.chat.example import DroppedError, Example, Message
from pipelines.chat.kinds import kind_of
from pipelines.chat.shapes import (
    as_object,
    as_text,
    assistant,
    content_of,
    count_other_keys,
    example,
    function_tool,
    image_part,
    named_choice,
    objects,
    refuse_fields,
    text_part,
    tool_call,
    tool_result,
)

_HIDDEN = ("previous_response_id", "conversation", "prompt")
_TEXTS = ("input_text", "output_text", "text")
_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}
_Parts = list[dict[str, Any]]


def is_request(request: Mapping[str, Any], response: object) -> bool:
    """Return whether this is a request for a response, with the items that answered it."""
    body = as_object(response)
    asked = any(key in request for key in ("input", "instructions", *_HIDDEN))
    return asked and (body.get("object") == "response" or isinstance(body.get("output"), list))


def to_example(
    request: Mapping[str, Any], response: Mapping[str, Any], tags: Mapping[str, str | None]
) -> Example:
    """Return the items as messages, consecutive ones of the assistant's turn in one.

    Raises:
        DroppedError: history that is not in the record, or what chat messages cannot hold.
    """
    refuse_fields(request, _HIDDEN, "unsupported_content")
    refuse_fields(response, _HIDDEN, "unsupported_content")
    repairs: list[str] = []
    tools = [
        _tool(tool, repairs) for tool in objects(request.get("tools"), "unsupported_tool", "tools")
    ]
    finish = _finish(response)
    messages = _instructions(request.get("instructions") or response.get("instructions"))
    messages += _messages(_input(request.get("input")), repairs)
    output = objects(response.get("output"), "no_choice", "output that is no item")
    answer = _messages(output, repairs)
    if not answer and finish == "stop":
        raise DroppedError("empty_answer" if output else "no_choice")
    answer = answer or [assistant([], [])]
    parallel = request.get("parallel_tool_calls")
    return example(
        pair_calls([*messages, *answer], repairs),
        tags,
        repairs,
        tools,
        tool_choice=_tool_choice(request.get("tool_choice")),
        parallel_tool_calls=parallel if isinstance(parallel, bool) else None,
        response_format=_response_format(as_object(request.get("text")).get("format")),
        answer_size=len(answer),
        finish_reason="tool_calls" if finish == "stop" and "tool_calls" in answer[-1] else finish,
    )


def _finish(response: Mapping[str, Any]) -> str:
    """Return why the response ended; one that failed or runs still is no answer."""
    status = response.get("status", "completed")
    if status == "incomplete":
        reason = as_object(response.get("incomplete_details")).get("reason")
        return _FINISH.get(str(reason), "length")
    if status != "completed":
        raise DroppedError("error_output", "response that did not complete")
    return "stop"


def _instructions(instructions: object) -> list[Message]:
    """Return the instructions as a first message, if there are any."""
    if not instructions:
        return []
    return [{"role": "system", "content": as_text(instructions, "instructions")}]


def _input(value: object) -> _Parts:
    """Return the input as items; a string is the user's message."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    items = objects(value, "no_messages", "input that is no item")
    if not items:
        raise DroppedError("no_messages")
    return items


def _messages(items: Iterable[Mapping[str, Any]], repairs: list[str]) -> list[Message]:
    """Return items as messages; calls join the assistant's text or calls right before them."""
    messages: list[Message] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append(_message(item))
        elif kind == "function_call":
            refuse_fields(item, ("namespace",), "unsupported_tool")
            call = tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))
            if not messages or messages[-1]["role"] != "assistant":
                messages.append(assistant([], []))
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            messages.append(_result(item))
        elif kind == "reasoning":
            repairs.append("reasoning_removed")
        else:
            raise DroppedError("unsupported_content", kind_of(kind))
    return messages


def _message(item: Mapping[str, Any]) -> Message:
    """Return one message item."""
    role = item.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise DroppedError("unsupported_role", "role that Responses does not know")
    parts = [_part(part, str(role)) for part in _parts(item.get("content"))]
    content = content_of(parts)
    if content is None and role != "assistant":
        raise DroppedError("unsupported_content", "message without content")
    return {"role": role, "content": content}


def _parts(content: object) -> _Parts:
    """Return content as parts; a string is one of text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return objects(content, "unsupported_content", "content that is no part")


def _part(part: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return one part of a message."""
    kind = part.get("type")
    if kind in _TEXTS:
        refuse_fields(part, ("annotations",), "unsupported_content")
        return text_part(as_text(part.get("text"), "text"))
    if kind == "input_image" and role == "user":
        return image_part(part.get("image_url"), part.get("detail"))
    if kind == "refusal":
        raise DroppedError("refusal")
    raise DroppedError("unsupported_content", kind_of(kind))


def _result(item: Mapping[str, Any]) -> Message:
    """Return a tool's result."""
    parts = [_part(part, "tool") for part in _parts(item.get("output"))]
    return tool_result(item.get("call_id"), parts)


def _tool(tool: Mapping[str, Any], repairs: list[str]) -> dict[str, Any]:
    """Return a function tool; OpenAI's own tools drop the record, called or not."""
    if tool.get("type") != "function":
        raise DroppedError("unsupported_tool", kind_of(tool.get("type")))
    refuse_fields(tool, ("defer_loading",), "unsupported_tool")
    count_other_keys(tool, ("type", "name", "description", "parameters", "strict"), repairs)
    return function_tool(
        tool.get("name"), tool.get("description"), tool.get("parameters"), tool.get("strict")
    )


def _tool_choice(choice: object) -> Any:
    """Return the tool choice as chat requests have it."""
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "function":
        return named_choice(choice.get("name"))
    if choice.get("type") == "allowed_tools":
        allowed = objects(choice.get("tools"), "unsupported_tool", "allowed tools")
        tools = [named_choice(tool.get("name")) for tool in allowed]
        return {
            "type": "allowed_tools",
            "allowed_tools": {"mode": choice.get("mode"), "tools": tools},
        }
    raise DroppedError("unsupported_tool", kind_of(choice.get("type")))


def _response_format(asked: object) -> dict[str, Any] | None:
    """Return `text.format` as a chat request's response format."""
    if not isinstance(asked, dict):
        return None
    if asked.get("type") != "json_schema":
        return asked
    schema = {key: value for key, value in asked.items() if key != "type" and value is not None}
    return {"type": "json_schema", "json_schema": schema}
