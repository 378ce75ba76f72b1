"""Bedrock's Converse, and the invoke_model bodies of Nova, which look alike.

The invoke_model bodies of Anthropic and of the models that speak OpenAI chat are read by those
modules; prompts of Titan, Llama, … are no chat.
"""

from collections.abc import Mapping
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
    data_image,
    example,
    function_tool,
    image_part,
    named_choice,
    objects,
    refuse_fields,
    system,
    text_part,
    to_json,
    tool_call,
    tool_result,
)

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_CHOICES = {"auto": "auto", "any": "required"}
_Parts = list[dict[str, Any]]


def is_request(request: Mapping[str, Any], response: object) -> bool:
    """Return whether this is a Converse request with the output that answered it."""
    return "messages" in request and isinstance(as_object(response).get("output"), dict)


def to_example(
    request: Mapping[str, Any], response: Mapping[str, Any], tags: Mapping[str, str | None]
) -> Example:
    """Return the conversation as chat messages.

    Raises:
        DroppedError: a block, tool or setting that chat messages cannot hold.
    """
    if as_object(request.get("additionalModelRequestFields")).get("tools"):
        raise DroppedError("unsupported_tool", "additionalModelRequestFields")
    refuse_fields(request, ("promptVariables",), "unsupported_content")
    repairs: list[str] = []
    config = as_object(request.get("toolConfig"))
    declared = objects(config.get("tools"), "unsupported_tool", "tools")
    tools = [_tool(tool, repairs) for tool in declared if "cachePoint" not in tool]
    recorded = objects(request.get("messages"), "unsupported_role", "message that is no object")
    if not recorded:
        raise DroppedError("no_messages")
    messages = system([_text(block) for block in _blocks(request.get("system"))])
    for message in recorded:
        messages += _turn(message, repairs)
    if messages and messages[-1]["role"] == "assistant":
        raise DroppedError("wrong_turns", "answer that goes on with the request's last message")
    finish = _finish(response.get("stopReason"))
    answer = as_object(response.get("output")).get("message")
    if not isinstance(answer, dict) and finish != "content_filter":
        raise DroppedError("no_choice")
    messages.append(_assistant(as_object(answer).get("content"), repairs))
    return example(
        pair_calls(messages, repairs),
        tags,
        repairs,
        tools,
        tool_choice=_tool_choice(as_object(config.get("toolChoice"))),
        finish_reason=finish,
    )


def _finish(reason: object) -> str | None:
    """Return why the answer ended."""
    if reason is None:
        return None
    if not isinstance(reason, str) or reason not in _FINISH:
        raise DroppedError("error_output", "stop reason of a failure")
    return _FINISH[reason]


def _blocks(content: object) -> _Parts:
    """Return content as blocks without the marks of the cache; a string is one of text."""
    if isinstance(content, str):
        return [{"text": content}]
    blocks = objects(content, "unsupported_content", "content that is no block")
    return [block for block in blocks if "cachePoint" not in block]


def _kind(block: Mapping[str, Any]) -> str:
    """Return which of the one-key blocks this is."""
    keys = [key for key, value in block.items() if value is not None and key != "type"]
    return keys[0] if len(keys) == 1 else "unknown kind"


def _text(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block of text."""
    if _kind(block) != "text":
        raise DroppedError("unsupported_content", kind_of(_kind(block)))
    return text_part(as_text(block["text"], "text"))


def _turn(message: Mapping[str, Any], repairs: list[str]) -> list[Message]:
    """Return the chat messages of one recorded message."""
    if message.get("role") == "assistant":
        return [_assistant(message.get("content"), repairs)]
    if message.get("role") != "user":
        raise DroppedError("unsupported_role", "role that Converse does not know")
    turn: list[Message] = []
    parts: _Parts = []
    for block in _blocks(message.get("content")):
        if "toolResult" in block:
            if parts:
                raise DroppedError("unanswered_tool_call", "text before a result")
            turn.append(_result(as_object(block["toolResult"]), repairs))
        elif "image" in block:
            parts.append(_image(as_object(block["image"])))
        else:
            parts.append(_text(block))
    return [*turn, {"role": "user", "content": content_of(parts)}] if parts else turn


def _assistant(content: object, repairs: list[str]) -> Message:
    """Return the assistant's message: text, then tool calls, without reasoning."""
    parts: _Parts = []
    calls: list[dict[str, Any]] = []
    for block in _blocks(content):
        kind = _kind(block)
        if kind == "reasoningContent":
            repairs.append("reasoning_removed")
        elif kind == "toolUse":
            use = as_object(block["toolUse"])
            calls.append(tool_call(use.get("toolUseId"), use.get("name"), use.get("input")))
        elif kind == "text" and calls:
            raise DroppedError("unsupported_content", "text after a tool call")
        else:
            parts.append(_text(block))
    return assistant(parts, calls)


def _result(result: Mapping[str, Any], repairs: list[str]) -> Message:
    """Return a tool's result; JSON is written as text."""
    if result.get("status") == "error":
        repairs.append("is_error_removed")
    parts: _Parts = []
    for block in _blocks(result.get("content")):
        if _kind(block) == "json":
            written = to_json(block["json"], "unsupported_content", "number out of range")
            parts.append(text_part(written))
        else:
            parts.append(_text(block))
    return tool_result(result.get("toolUseId"), parts)


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image part; its bytes are recorded as base64."""
    data = as_object(image.get("source")).get("bytes")
    return data_image(f"image/{image.get('format')}", data) if data else image_part(None)


def _tool(tool: Mapping[str, Any], repairs: list[str]) -> dict[str, Any]:
    """Return a tool of the caller's as a function."""
    spec = tool.get("toolSpec")
    if not isinstance(spec, dict):
        raise DroppedError("unsupported_tool", kind_of(_kind(tool)))
    count_other_keys(spec, ("name", "description", "inputSchema", "strict"), repairs)
    schema = as_object(spec.get("inputSchema")).get("json")
    return function_tool(spec.get("name"), spec.get("description"), schema, spec.get("strict"))


def _tool_choice(choice: Mapping[str, Any]) -> Any:
    """Return the tool choice in OpenAI's words."""
    if "tool" in choice:
        return named_choice(as_object(choice["tool"]).get("name"))
    return next((word for key, word in _CHOICES.items() if key in choice), None)
