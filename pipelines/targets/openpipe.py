"""OpenPipe's dataset rows: what it imports, and what it exports of a dataset."""

from collections.abc import Callable
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.targets import openai
from pipelines.targets.base import Row, Target
from pipelines.targets.messages import join_text, text_or_calls, without_none

_CHOICES = ("none", "auto", "required")


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return OpenAI's messages and tools with `tool_choice`, `response_format`, `metadata`.

    Stricter than OpenAI: an answer is text or calls, never both; only a user's message is a list
    of parts; none is empty. An empty system message says nothing and goes, which is counted.
    `split` is None until the caller says TRAIN or TEST. Metadata are strings: the record's tags,
    a tag without a value is ''.
    """
    row, made = openai.to_row(example)
    repairs = set(made)
    join_text((message for message in row["messages"] if message["role"] != "user"), repairs)
    messages = _without_empty(row["messages"], repairs)
    text_or_calls(messages)
    full = {
        "messages": messages,
        "tools": row.get("tools"),
        "tool_choice": _known(example.tool_choice, _is_choice, "tool_choice_removed", repairs),
        "response_format": _known(
            example.response_format, _is_format, "response_format_removed", repairs
        ),
        "metadata": {name: value or "" for name, value in example.tags.items()},
    }
    return without_none(full) | {"split": None}, tuple(sorted(repairs))


def _without_empty(messages: list[Message], repairs: set[str]) -> list[Message]:
    kept = []
    for message in messages:
        if message["content"] or "tool_calls" in message:
            kept.append(message)
        elif message["role"] == "system":
            repairs.add("empty_system_removed")
        else:
            raise DroppedError("unsupported_content", f"an empty message of {message['role']}")
    if len(kept) == 1:
        raise DroppedError("no_messages", "answer without a request")
    return kept


def _known(value: Any, holds: Callable[[Any], bool], repair: str, repairs: set[str]) -> Any:
    """Return the value if OpenPipe knows its form, else None."""
    if value is None or holds(value):
        return value
    repairs.add(repair)
    return None


def _is_choice(choice: Any) -> bool:
    if isinstance(choice, dict):
        function = choice.get("function")
        named = isinstance(function, dict) and isinstance(function.get("name"), str)
        return choice.get("type") == "function" and named
    return choice in _CHOICES


def _is_format(response_format: Any) -> bool:
    kind = response_format.get("type")
    described = response_format.get("json_schema")
    if kind != "json_schema" or not isinstance(described, dict):
        return kind in ("text", "json_object")
    schema = described.get("schema")
    return isinstance(described.get("name"), str) and isinstance(schema, dict | None)


TARGET = Target(
    name="openpipe",
    to_row=to_row,
    source=(
        "OpenPipe/OpenPipe@1da9a24 parseRowsToImport.ts, shared.types.ts; docs.openpipe.ai; "
        "openpipe 5.0.0 CreateDatasetEntriesRequestEntriesItem (tool_choice, response_format)"
    ),
)
