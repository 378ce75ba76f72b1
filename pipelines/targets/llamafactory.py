"""LLaMA-Factory's rows with `formatting: openai`; `DATASET_INFO` is what dataset_info.json says.

Calls are text of the role `function_call`, not `tool_calls`: LLaMA-Factory makes that text of
`tool_calls` itself, but would write arguments that are JSON text as a string in a string, and
`datasets` would unite the keys of arguments that are objects.
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import check_arguments, function_tools
from pipelines.targets.messages import (
    known_messages,
    system_first,
    text_only,
    text_or_calls,
)

DATASET_INFO: Mapping[str, Any] = MappingProxyType(
    {
        "formatting": "openai",
        "columns": {"messages": "messages", "tools": "tools"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    }
)


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages` of role and content, and `tools`, JSON text that is '' without tools.

    The converter skips rows whose turns do not alternate, with a warning only: user or results,
    then assistant; results that follow each other count as one, as it puts them together.
    """
    repairs: set[str] = set()
    messages = known_messages(example, repairs, named_roles=())
    text_only(messages, repairs)
    text_or_calls(messages)
    system_first(messages)
    _check_turns(messages)
    rows = [
        {"role": "function_call", "content": _calls_text(message["tool_calls"])}
        if "tool_calls" in message
        else {"role": message["role"], "content": message["content"]}
        for message in messages
    ]
    return {"messages": rows, "tools": _tools_text(example, repairs)}, tuple(sorted(repairs))


def _check_turns(messages: list[Message]) -> None:
    for place, role in enumerate(_turns(messages)):
        if (role == "assistant") != (place % 2 == 1):
            raise DroppedError("wrong_turns", f"{role} in place {place + 1}")


def _turns(messages: list[Message]) -> Iterator[str]:
    previous = ""
    for message in messages:
        role = message["role"]
        if role != "system" and not (role == previous == "tool"):
            yield role
        previous = role


def _calls_text(calls: list[dict[str, Any]]) -> str:
    texts = []
    for call in calls:
        function = call["function"]
        check_arguments(function["arguments"])  # an object, or the formatter fails
        name = json.dumps(function["name"], ensure_ascii=False)
        texts.append(f'{{"name": {name}, "arguments": {function["arguments"].strip()}}}')
    return f"[{', '.join(texts)}]"


def _tools_text(example: Example, repairs: set[str]) -> str:
    functions = [tool["function"] for tool in function_tools(example, repairs) or ()]
    for function in functions:
        if "properties" not in function.get("parameters", {}):
            # The default formatter reads `parameters.properties` without looking first.
            given = {"type": "object", "properties": {}}
            function["parameters"] = given | function.get("parameters", {})
            repairs.add("parameters_added")
    return json.dumps(functions, ensure_ascii=False) if functions else ""


TARGET = Target(
    name="llamafactory",
    to_row=to_row,
    source="LLaMA-Factory data/converter.py, data/formatter.py, data/tool_utils.py",
)
