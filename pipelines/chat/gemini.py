"""Gemini's generateContent, of the Developer API and of Vertex, in camelCase or snake_case."""

import re
from collections.abc import Mapping
from typing import Any

from pipelines.chat.calls import pair_calls
from pipelines.chat.example import DroppedError, Example, Message
from pipelines.chat.gemini_schema import to_json_schema
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
    json_schema_format,
    named_choice,
    objects,
    text_part,
    to_json,
    tool_call,
)

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_FILTERED = frozenset(
    ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")
)
_MODES = {"AUTO": "auto", "NONE": "none", "VALIDATED": "auto"}
# A part's own keys beside its kind: hints that carry no content.
_HINTS = frozenset({"thought", "thoughtSignature", "partMetadata", "mediaResolution"})
_TOOL_KEYS = (
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "parameters_json_schema",
    "response",  # one that says something drops the record
)
_Parts = list[dict[str, Any]]


def is_request(request: Mapping[str, Any], response: object) -> bool:
    """Return whether this is a request for content, with candidates or why there are none."""
    body = as_object(response)
    return "contents" in request and (
        "candidates" in body or field(body, "promptFeedback") is not None
    )


def to_example(
    request: Mapping[str, Any], response: Mapping[str, Any], tags: Mapping[str, str | None]
) -> Example:
    """Return the contents and the one candidate as chat messages.

    Raises:
        DroppedError: a part, tool or setting that chat messages cannot hold.
    """
    settings = {**as_object(request.get("config")), **request}
    if field(settings, "cachedContent"):
        raise DroppedError("unsupported_content", "cachedContent")
    repairs: list[str] = []
    tools = _tools(settings.get("tools"), repairs)
    messages = _system(field(settings, "systemInstruction"))
    contents = _contents(request.get("contents"))
    for content in contents:
        messages += _turn(content, repairs)
    if messages and messages[-1]["role"] == "assistant":
        raise DroppedError("wrong_turns", "answer that goes on with the request's last message")
    answer, finish = _answer(response, repairs)
    paired = pair_calls([*messages, answer], repairs)
    return example(
        [_without_name(message) for message in paired],
        tags,
        repairs,
        tools,
        tool_choice=_tool_choice(as_object(field(settings, "toolConfig"))),
        response_format=_response_format(
            {**settings, **as_object(field(settings, "generationConfig"))}
        ),
        finish_reason="tool_calls" if finish == "stop" and "tool_calls" in answer else finish,
    )


def field(source: Mapping[str, Any], name: str) -> Any:
    """Return a field by its name in camelCase, or by that of Google's Python client."""
    value = source.get(name)
    if value is None:
        value = source.get(re.sub("([A-Z])", lambda found: f"_{found[0].lower()}", name))
    return value


def _contents(contents: object) -> _Parts:
    """Return the contents; Google's client also takes texts."""
    items = contents if isinstance(contents, list) else [contents]
    wrapped = [{"parts": [{"text": item}]} if isinstance(item, str) else item for item in items]
    if not wrapped or wrapped == [None]:
        raise DroppedError("no_messages")
    return objects(wrapped, "unsupported_role", "content that is no object")


def _answer(response: Mapping[str, Any], repairs: list[str]) -> tuple[Message, str | None]:
    """Return the one candidate as a message, and why it ended; a blocked prompt has none."""
    candidates = objects(response.get("candidates"), "no_choice", "candidate that is no object")
    if not candidates:
        if field(as_object(field(response, "promptFeedback")), "blockReason"):
            return assistant([], []), "content_filter"
        raise DroppedError("no_choice")
    if len(candidates) > 1:
        raise DroppedError("several_choices")
    finish = _finish(field(candidates[0], "finishReason"))
    content = as_object(candidates[0].get("content"))
    return _assistant(content, repairs), finish


def _finish(reason: object) -> str | None:
    """Return why the answer ended, in OpenAI's words."""
    if reason is None:
        return None
    word = str(reason).removeprefix("FinishReason.")
    if word in _FILTERED:
        return "content_filter"
    if word not in _FINISH:
        raise DroppedError("error_output", "finish reason of a failure")
    return _FINISH[word]


def _part_list(content: Mapping[str, Any]) -> _Parts:
    """Return the parts of a content."""
    return objects(content.get("parts"), "unsupported_content", "part that is no object")


def _kind(part: Mapping[str, Any]) -> str:
    """Return the kind of a part in camelCase."""
    keys = [
        re.sub("_([a-z])", lambda found: found[1].upper(), key)
        for key, value in part.items()
        if value is not None
    ]
    kinds = [key for key in keys if key not in _HINTS]
    return kinds[0] if len(kinds) == 1 else "unknown kind"


def _texts(content: object) -> _Parts:
    """Return content that must be text alone."""
    if isinstance(content, str):
        return [text_part(content)]
    bare = isinstance(content, dict) and "text" in content
    parts: _Parts = [as_object(content)] if bare else _part_list(as_object(content))
    return [_text(part) for part in parts]


def _text(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of text."""
    if _kind(part) != "text":
        raise DroppedError("unsupported_content", kind_of(_kind(part)))
    return text_part(as_text(part["text"], "text"))


def _system(instruction: object) -> list[Message]:
    """Return the system text as a first message, if there is any."""
    content = content_of(_texts(instruction)) if instruction else None
    return [{"role": "system", "content": content}] if content else []


def _turn(content: Mapping[str, Any], repairs: list[str]) -> list[Message]:
    """Return the chat messages of one recorded content."""
    role = content.get("role") or "user"
    if role == "model":
        return [_assistant(content, repairs)]
    if role not in ("user", "function", "tool"):
        raise DroppedError("unsupported_role", "role that Gemini does not know")
    turn: list[Message] = []
    parts: _Parts = []
    for part in _part_list(content):
        if _kind(part) == "functionResponse":
            if parts:
                raise DroppedError("unanswered_tool_call", "text before a result")
            turn.append(_result(as_object(field(part, "functionResponse"))))
        elif _kind(part) == "inlineData":
            blob = as_object(field(part, "inlineData"))
            parts.append(data_image(field(blob, "mimeType"), blob.get("data")))
        else:
            parts.append(_text(part))
    return [*turn, {"role": "user", "content": content_of(parts)}] if parts else turn


def _assistant(content: Mapping[str, Any], repairs: list[str]) -> Message:
    """Return the model's message: text, then calls, without its thoughts.

    The texts are joined as Google's clients join them: they are pieces of one text.
    """
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in _part_list(content):
        if part.get("thought") or field(part, "thoughtSignature"):
            repairs.append("reasoning_removed")
        if part.get("thought") or set(part) <= _HINTS:
            continue
        if _kind(part) == "functionCall":
            call = as_object(field(part, "functionCall"))
            # Proto JSON leaves out what is empty: no args are the args of a function without any.
            calls.append(tool_call(call.get("id"), call.get("name"), call.get("args") or {}))
        elif _kind(part) == "text" and calls and part["text"]:
            raise DroppedError("unsupported_content", "text after a tool call")
        else:
            texts.append(_text(part)["text"])
    text = "".join(texts)
    return assistant([text_part(text)] if text else [], calls)


def _result(response: Mapping[str, Any]) -> Message:
    """Return a function's result, its JSON as text; the name finds the call where no id does."""
    if set(response) - {"id", "name", "response"}:
        raise DroppedError("unsupported_content", "functionResponse")
    call_id = response.get("id")
    result = to_json(response.get("response"), "unsupported_content", "number out of range")
    return {
        "role": "tool",
        "tool_call_id": call_id if isinstance(call_id, str) else "",
        "name": response.get("name"),
        "content": result,
    }


def _without_name(message: Message) -> Message:
    """Return a result without the name, which only found its call."""
    if message["role"] != "tool":
        return message
    return {key: value for key, value in message.items() if key != "name"}


def _tools(tools: object, repairs: list[str]) -> _Parts:
    """Return the declared functions as tools; Google's own tools drop the record."""
    found: _Parts = []
    for tool in objects(tools, "unsupported_tool", "tools"):
        declared = field(tool, "functionDeclarations")
        if declared is None or len([value for value in tool.values() if value is not None]) > 1:
            others = [key for key in tool if key != "functionDeclarations"]
            raise DroppedError("unsupported_tool", kind_of(others[0] if others else None))
        functions = objects(declared, "unsupported_tool", "declarations")
        found += [_tool(function, repairs) for function in functions]
    return found


def _tool(declared: Mapping[str, Any], repairs: list[str]) -> dict[str, Any]:
    """Return one declared function."""
    if declared.get("response") or field(declared, "responseJsonSchema"):
        raise DroppedError("unsupported_tool", "schema of the result")
    count_other_keys(declared, _TOOL_KEYS, repairs)
    schema = field(declared, "parametersJsonSchema")
    if schema is None:
        schema = to_json_schema(declared.get("parameters"))
    return function_tool(declared.get("name"), declared.get("description"), schema)


def _tool_choice(config: Mapping[str, Any]) -> Any:
    """Return the calling mode as tool choice."""
    calling = as_object(field(config, "functionCallingConfig"))
    mode, allowed = calling.get("mode"), field(calling, "allowedFunctionNames") or []
    if mode != "ANY":
        return _MODES.get(str(mode))
    if not isinstance(allowed, list) or not allowed:
        return "required"
    tools = [named_choice(name) for name in allowed]
    if len(tools) == 1:
        return tools[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}


def _response_format(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema or kind of text that the answer had to have."""
    schema = field(settings, "responseJsonSchema")
    if schema is None:
        schema = to_json_schema(field(settings, "responseSchema"))
    if schema is not None:
        return json_schema_format(schema)
    is_json = field(settings, "responseMimeType") == "application/json"
    return {"type": "json_object"} if is_json else None
