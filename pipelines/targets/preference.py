"""Pairs of answers to one input, of which one is better."""

from collections.abc import Callable
from typing import Any, Literal

from pipelines.chat.example import DroppedError, Example
from pipelines.targets import fireworks, openai, together, trl
from pipelines.targets.base import Row, Target

Style = Literal["openai", "together", "fireworks", "trl"]
_TO_ROW: dict[Style, Callable[[Example], tuple[Row, tuple[str, ...]]]] = {
    "openai": openai.to_row,
    "together": together.to_row,
    "fireworks": fireworks.to_row,
    "trl": trl.to_completion_row,
}


def to_pair(
    chosen: Example, rejected: Example, style: Style = "openai"
) -> tuple[Row, tuple[str, ...]]:
    """Return the row of two answers to one input, and the repairs of both.

    OpenAI, Together and Fireworks share one shape: `input`, and a list of one answer each under
    `preferred_output` and `non_preferred_output`; each service has its own rules for the messages
    in it. TRL has `prompt`, `chosen`, `rejected` and `tools`.

    Raises:
        DroppedError: one of the two is no row of the service, or they are no pair: their inputs
            differ, or their answers do not.
    """
    better, repairs = _TO_ROW[style](chosen)
    worse, more_repairs = _TO_ROW[style](rejected)
    prompt, good = _split(better)
    other_prompt, bad = _split(worse)
    if prompt != other_prompt:
        raise DroppedError("no_pair", "the inputs differ")
    if good == bad:
        raise DroppedError("no_pair", "the answers are the same")
    names = tuple(sorted({*repairs, *more_repairs}))
    if style == "trl":
        return prompt | {"chosen": [good], "rejected": [bad]}, names
    if not prompt["messages"] or prompt["messages"][-1]["role"] not in ("user", "tool"):
        raise DroppedError("wrong_turns", "an input that does not end with user or tool")
    return {"input": prompt, "preferred_output": [good], "non_preferred_output": [bad]}, names


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
