"""Axolotl's rows of `type: chat_template`: messages and tools whose types never differ.

Axolotl loads with `datasets`, which gives every key one type over all rows. So arguments and
parameters are JSON text, which Axolotl's chat_template strategy reads again.
"""

import json

from pipelines.chat.example import Example
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import function_tools
from pipelines.targets.messages import (
    fill_content,
    known_messages,
    text_only,
    without_none,
)


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages` and `tools`, a list; images have no place in this format."""
    repairs: set[str] = set()
    messages = known_messages(example, repairs)
    text_only(messages, repairs)
    fill_content(messages, repairs)
    tools = function_tools(example, repairs)
    for tool in tools or ():
        function = tool["function"]
        if "parameters" in function:
            function["parameters"] = json.dumps(function["parameters"], ensure_ascii=False)
    return without_none({"messages": messages, "tools": tools}), tuple(sorted(repairs))


TARGET = Target(
    name="axolotl",
    to_row=to_row,
    source="axolotl prompt_strategies/chat_template.py; docs dataset-formats/conversation",
)
