"""Function calls of 2023 (`functions`, `function_call`, role `function`) as tool calls."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.chat.example import DroppedError, Message
from pipelines.chat.shapes import (
    as_object,
    count_other_keys,
    function_tool,
    named_choice,
    objects,
)

_REPAIR = "functions_to_tools"


def with_tool_calls(messages: Sequence[object], repairs: list[str]) -> list[object]:
    """Return the messages with tool calls in place of function calls; ids are left empty.

    Raises:
        DroppedError: a function's result that does not answer the message before it.
    """
    converted: list[object] = []
    asked: object = None
    for message in messages:
        recorded = as_object(message)
        if recorded.get("role") == "function":
            if asked is None or recorded.get("name") != asked:
                raise DroppedError("unsupported_role", "function result without its call")
            converted.append({**recorded, "role": "tool", "tool_call_id": ""})
            asked = None
            continue
        call = recorded.get("function_call")
        asked = None
        if call is None:
            converted.append(message)
            continue
        asked = as_object(call).get("name")
        converted.append(_with_tool_call(recorded, as_object(call)))
        repairs.append(_REPAIR)
    return converted


def _with_tool_call(message: Message, call: Mapping[str, Any]) -> Message:
    """Return the message with its one function call as a tool call."""
    if message.get("tool_calls"):
        raise DroppedError("unsupported_tool", "function call beside tool calls")
    rest = {key: value for key, value in message.items() if key != "function_call"}
    return {**rest, "tool_calls": [{"id": "", "type": "function", "function": dict(call)}]}


def tools_of(functions: object, repairs: list[str]) -> list[dict[str, Any]]:
    """Return a request's `functions` as tools."""
    found = objects(functions, "unsupported_tool", "functions that are no objects")
    if found:
        repairs.append(_REPAIR)
    for tool in found:
        count_other_keys(tool, ("name", "description", "parameters"), repairs)
    return [
        function_tool(tool.get("name"), tool.get("description"), tool.get("parameters"))
        for tool in found
    ]


def tool_choice_of(function_call: object) -> Any:
    """Return a request's `function_call` as tool choice."""
    if isinstance(function_call, dict):
        return named_choice(function_call.get("name"))
    return function_call
