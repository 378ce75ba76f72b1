"""TRL's conversational rows: language modelling, and prompt with completion.

Arguments are objects, as chat templates of open models take them: text would be written as a
JSON string in a JSON string, or refused. `datasets` keeps them as they are from 4.7 on, which TRL
asks for; older versions unite the keys of all calls. `tools` are JSON text, which TRL reads again
and which every version of `datasets` can hold.
"""

import json
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import function_tools, parsed_arguments
from pipelines.targets.messages import (
    fill_content,
    known_messages,
    text_only,
)

_SOURCE = "trl 1.16.0 data_utils.py, trainer/sft_trainer.py, chat_templates; TRL dataset_formats"


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages` and `tools`; images would need a column of their own, and are refused."""
    repairs: set[str] = set()
    row = {"messages": _messages(example, repairs)} | _tools(example, repairs)
    return row, tuple(sorted(repairs))


def to_completion_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `prompt`, all messages but the last, `completion`, the last one, and `tools`."""
    repairs: set[str] = set()
    messages = _messages(example, repairs)
    if len(messages) == 1 or messages[-2]["role"] not in ("user", "tool"):
        raise DroppedError("wrong_turns", "a prompt that does not end with user or tool")
    row = {"prompt": messages[:-1], "completion": messages[-1:]} | _tools(example, repairs)
    return row, tuple(sorted(repairs))


def _messages(example: Example, repairs: set[str]) -> list[Message]:
    messages = known_messages(example, repairs)
    if all(message["role"] != "user" for message in messages):
        raise DroppedError("wrong_turns", "no message of a user, which chat templates ask for")
    text_only(messages, repairs)
    fill_content(messages, repairs)
    for message in messages:
        for call in message.get("tool_calls", ()):
            function = call["function"]
            function["arguments"] = parsed_arguments(function["arguments"], repairs)
    return messages


def _tools(example: Example, repairs: set[str]) -> dict[str, Any]:
    tools = function_tools(example, repairs)
    return {"tools": json.dumps(tools, ensure_ascii=False)} if tools else {}


TARGET = Target(name="trl", to_row=to_row, source=_SOURCE)
COMPLETION_TARGET = Target(name="trl-completion", to_row=to_completion_row, source=_SOURCE)
