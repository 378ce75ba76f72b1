"""Anthropic's Messages API, also through Bedrock's invoke_model and Vertex."""

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
    json_schema_format,
    named_choice,
    objects,
    refuse_fields,
    system,
    text_part,
    tool_call,
    tool_result,
)

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_REASONING = ("thinking", "redacted_thinking")
# `cache_control` says nothing to the model.
_TOOL_KEYS = ("type", "name", "description", "input_schema", "strict", "cache_control")
_Parts = list[dict[str, Any]]


def is_request(request: Mapping[str, Any], response: object) -> bool:
    """Return whether this is a Messages request with the message that answered it."""
    body = as_object(response)
    is_message = body.get("type") == "message" or (
        isinstance(body.get("content"), list) and "stop_reason" in body
    )
    return "messages" in request and is_message


def to_example(
    request: Mapping[str, Any], response: Mapping[str, Any], tags: Mapping[str, str | None]
) -> Example:
    """Return the conversation; an answer that goes on with the request's last message is joined.

    Raises:
        DroppedError: a block, tool or setting that chat messages cannot hold.
    """
    refuse_fields(request, ("mcp_servers", "container"), "unsupported_tool")
    repairs: list[str] = []
    tools = [
        _tool(tool, repairs) for tool in objects(request.get("tools"), "unsupported_tool", "tools")
    ]
    edits = as_object(response.get("context_management")).get("applied_edits")
    if edits:
        raise DroppedError("unsupported_content", "context_management")
    recorded = request.get("messages")
    if not isinstance(recorded, list) or not recorded:
        raise DroppedError("no_messages")
    messages = system(_texts(request.get("system")))
    for message in recorded:
        messages += _turn(as_object(message), repairs)
    if not isinstance(response.get("content"), list):
        raise DroppedError("no_choice")
    answer = _assistant(response["content"], repairs)
    if messages and messages[-1]["role"] == "assistant":
        answer = _joined(messages.pop(), answer, repairs)
    choice = as_object(request.get("tool_choice"))
    return example(
        pair_calls([*messages, answer], repairs),
        tags,
        repairs,
        tools,
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=False if choice.get("disable_parallel_tool_use") is True else None,
        response_format=_response_format(request),
        finish_reason=_finish(response.get("stop_reason")),
    )


def _blocks(content: object) -> _Parts:
    """Return content as blocks; a string is one of text."""
    if isinstance(content, str):
        return [text_part(content)]
    return objects(content, "unsupported_content", "content that is no block")


def _text(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block of text; one that quotes documents drops the record."""
    if block.get("type") != "text":
        raise DroppedError("unsupported_content", kind_of(block.get("type")))
    refuse_fields(block, ("citations",), "unsupported_content")
    return text_part(as_text(block.get("text"), "text"))


def _texts(content: object) -> _Parts:
    """Return content that must be text alone."""
    return [_text(block) for block in _blocks(content)]


def _turn(message: Mapping[str, Any], repairs: list[str]) -> list[Message]:
    """Return the chat messages of one recorded message."""
    role = message.get("role")
    if role == "assistant":
        return [_assistant(message.get("content"), repairs)]
    if role == "system":
        return system(_texts(message.get("content")))
    if role != "user":
        raise DroppedError("unsupported_role", "role that Messages does not know")
    turn: list[Message] = []
    parts: _Parts = []
    for block in _blocks(message.get("content")):
        if block.get("type") == "tool_result":
            if parts:
                raise DroppedError("unanswered_tool_call", "text before a result")
            turn.append(_result(block, repairs))
        elif block.get("type") == "image":
            parts.append(_image(as_object(block.get("source"))))
        else:
            parts.append(_text(block))
    return [*turn, {"role": "user", "content": content_of(parts)}] if parts else turn


def _assistant(content: object, repairs: list[str]) -> Message:
    """Return the assistant's message: text, then tool calls, without reasoning."""
    parts: _Parts = []
    calls: list[dict[str, Any]] = []
    for block in _blocks(content):
        kind = block.get("type")
        if kind in _REASONING:
            repairs.append("reasoning_removed")
        elif kind == "tool_use":
            calls.append(tool_call(block.get("id"), block.get("name"), block.get("input")))
        elif kind == "text" and calls:
            raise DroppedError("unsupported_content", "text after a tool call")
        else:
            parts.append(_text(block))
    return assistant(parts, calls)


def _joined(prefill: Message, answer: Message, repairs: list[str]) -> Message:
    """Return the answer with the text in front that the request had put into its mouth."""
    # https://docs.anthropic.com/en/docs/build-with-claude/prompt-engineering/prefill-claudes-response
    first, rest = prefill["content"], answer["content"]
    if not isinstance(first, str) or not isinstance(rest, str | None) or "tool_calls" in prefill:
        raise DroppedError("wrong_turns", "answer that goes on with parts")
    repairs.append("prefill_joined")
    return {**answer, "content": first + (rest or "")}


def _result(block: Mapping[str, Any], repairs: list[str]) -> Message:
    """Return a tool's result."""
    if block.get("is_error") is True:
        repairs.append("is_error_removed")
    return tool_result(block.get("tool_use_id"), _texts(block.get("content")))


def _image(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image part."""
    if source.get("type") == "base64":
        return data_image(source.get("media_type"), source.get("data"))
    return image_part(source.get("url") if source.get("type") == "url" else None)


def _tool(tool: Mapping[str, Any], repairs: list[str]) -> dict[str, Any]:
    """Return a tool of the caller's as a function; Anthropic's own drop the record."""
    if tool.get("type") not in ("custom", None) or not isinstance(tool.get("input_schema"), dict):
        raise DroppedError("unsupported_tool", kind_of(tool.get("type")))
    refuse_fields(tool, ("defer_loading", "input_examples"), "unsupported_tool")
    count_other_keys(tool, _TOOL_KEYS, repairs)
    return function_tool(
        tool.get("name"), tool.get("description"), tool["input_schema"], tool.get("strict")
    )


def _tool_choice(choice: Mapping[str, Any]) -> Any:
    """Return the tool choice in OpenAI's words."""
    if choice.get("type") == "tool":
        return named_choice(choice.get("name"))
    return _CHOICES.get(str(choice.get("type")))


def _response_format(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema that the answer had to have."""
    asked = as_object(request.get("output_config")).get("format") or request.get("output_format")
    schema = as_object(asked).get("schema")
    return None if schema is None else json_schema_format(schema)


def _finish(reason: object) -> str | None:
    """Return why the answer ended; a turn that only paused is no answer."""
    if reason is None:
        return None
    if not isinstance(reason, str) or reason not in _FINISH:
        raise DroppedError("unsupported_content", "answer that did not end")
    return _FINISH[reason]
