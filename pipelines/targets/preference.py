"""Pairs of answers to one input, of which one is better."""

from collections.abc import Callable
from typing import Any, Literal

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.identity import identify
from pipelines.targets import fireworks, openai, together, trl
from pipelines.targets.base import Row, Target

Style = Literal["openai", "together", "fireworks", "trl"]
_TO_ROW: dict[Style, Callable[[Example], tuple[Row, tuple[str, ...]]]] = {
    "openai": openai.to_row,
    "together": together.to_row,
    "fireworks": fireworks.to_row,
    "trl": trl.to_completion_row,
}


def check_side(example: Example, style: Style) -> None:
    """Make sure that an answer may be one of a pair, whatever the other one is.

    Raises:
        DroppedError: it is no row of the service, or its input does not end with user or tool.
    """
    prompt, _ = _split(_TO_ROW[style](example)[0])
    _check_end(prompt["prompt"] if style == "trl" else prompt["messages"])


def to_pair(
    chosen: Example, rejected: Example, style: Style = "openai"
) -> tuple[Row, tuple[str, ...]]:
    """Return the row of two answers to one input, and the repairs of both.

    OpenAI, Together and Fireworks share one shape: `input`, and a list of one answer each under
    `preferred_output` and `non_preferred_output`; each service has its own rules for the messages
    in it. TRL has `prompt`, `chosen`, `rejected` and `tools`. The input is that of the chosen one:
    ids of calls and the spelling may differ in the other.

    Raises:
        DroppedError: one of the two is no row of the service, or they are no pair: their inputs
            differ, or their answers do not.
    """
    better, repairs = _TO_ROW[style](chosen)
    worse, more_repairs = _TO_ROW[style](rejected)
    prompt, good = _split(better)
    _, bad = _split(worse)
    if identify(chosen).input != identify(rejected).input:
        raise DroppedError("no_pair", "the inputs differ")
    if good == bad:
        raise DroppedError("no_pair", "the answers are the same")
    names = tuple(sorted({*repairs, *more_repairs}))
    if style == "trl":
        return prompt | {"chosen": [good], "rejected": [bad]}, names
    _check_end(prompt["messages"])
    return {"input": prompt, "preferred_output": [good], "non_preferred_output": [bad]}, names


def _check_end(messages: list[Message]) -> None:
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise DroppedError("wrong_turns", "an input that does not end with user or tool")


def _split(row: Row) -> tuple[Row, dict[str, Any]]:
    """Return the row without its answer, and the answer."""
    if "completion" in row:
        rest = {key: value for key, value in row.items() if key != "completion"}
        return rest, row["completion"][0]
    return row | {"messages": row["messages"][:-1]}, row["messages"][-1]


# `to_row` is that of one side; the caller finds pairs and asks for `to_pair`.
TARGET = Target(
    name="preference",
    to_row=openai.to_row,
    max_file_bytes=150_000_000,  # Fireworks', the smallest of the three
    max_rows=3_000_000,
    min_rows=10,
    needs_pairs=True,
    source="openai-openapi FineTunePreferenceRequestInput; together==2.13.0; docs.fireworks.ai dpo",
)
