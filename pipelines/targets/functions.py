"""What targets do to tools and calls: known keys only, names that a service takes, arguments.

Whatever is changed is named in `repairs`, a set that the caller hands in; whatever has no place in
a row raises a DroppedError.
"""

import json
import math
import re
from collections.abc import Collection, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message

_KEYS = ("name", "description", "parameters", "strict")
# "Must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64", and "a
# max of 128 functions are supported": openai-openapi FunctionObject, CreateChatCompletionRequest.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_TOOLS = 128


def function_tools(example: Example, repairs: set[str]) -> list[dict[str, Any]] | None:
    """Return the tools with known keys only, or None; a tool that is no function is refused."""
    tools = []
    for tool in example.tools or ():
        function = tool.get("function")
        if tool.get("type", "function") != "function" or not isinstance(function, dict):
            raise DroppedError("unsupported_tool", "no function")
        given = {key: value for key, value in function.items() if value is not None}
        kept = {key: given[key] for key in _KEYS if key in given}
        if len(kept) < len(given):
            repairs.add("tool_keys_removed")
        if not isinstance(kept.get("name"), str):
            raise DroppedError("unsupported_tool", "no name")
        if not isinstance(kept.get("parameters", {}), dict):
            raise DroppedError("unsupported_tool", "parameters that are no object")
        tools.append({"type": "function", "function": kept})
    return tools or None


def check_functions(
    messages: Iterable[Message],
    tools: Collection[dict[str, Any]] | None,
    *,
    max_tools: int | None = MAX_TOOLS,
) -> None:
    """Refuse names of tools and calls that services refuse, and too many tools.

    A call of a tool that the request does not declare is taken: no service refuses it, and
    histories have them where an application stopped offering a tool.
    """
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    for named in (*calls, *(tools or ())):
        if _NAME.fullmatch(named["function"]["name"]) is None:
            raise DroppedError("unsupported_tool", "a function name that is refused")
    if max_tools is not None and len(tools or ()) > max_tools:
        raise DroppedError("over_limit", f"{len(tools or ())} tools")


def check_arguments(arguments: str) -> None:
    """Refuse arguments of a call that are no object, or that JSON cannot hold again."""
    try:
        parsed = json.loads(arguments, parse_constant=_refuse)
        json.dumps(parsed, allow_nan=False)  # 1e400 is read as infinity
    except (ValueError, RecursionError) as exc:
        raise DroppedError("arguments_not_json") from exc
    if not isinstance(parsed, dict):
        raise DroppedError("arguments_not_json", "no object")


def parsed_arguments(arguments: str, repairs: set[str]) -> Any:
    """Return the arguments of a call as an object; fractions that a double rounds are counted.

    Objects in which a name stands twice are refused: a reader would keep one of the two values.
    """
    check_arguments(arguments)

    def fraction(text: str) -> float:
        value = float(text)
        if math.isfinite(value) and not _is_exact(text, value):
            repairs.add("numbers_rounded")
        return value

    return json.loads(arguments, object_pairs_hook=_names_once, parse_float=fraction)


def _names_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise DroppedError("arguments_not_json", "a name twice")
    return found


def _is_exact(text: str, value: float) -> bool:
    try:
        return Decimal(text) == Decimal(repr(value))
    except InvalidOperation:  # an exponent that no decimal has
        return False


def _refuse(constant: str) -> None:
    raise ValueError(constant)
