"""Rows of pairs: two answers to one input, of which a tag says which is the better one."""

from collections.abc import Mapping
from typing import Any

from pipelines.chat.example import DroppedError, Example
from pipelines.pull_options import PullOptions
from pipelines.pull_rows import dump_fitting, dump_row, example_as_data, example_from_data
from pipelines.selection import Match, Selection
from pipelines.spill import SpillFile
from pipelines.targets.base import Target
from pipelines.targets.columns import shape
from pipelines.targets.preference import check_side, to_pair


def side_of(tags: Mapping[str, str | None], options: PullOptions) -> str:
    """Return whether a record's answer is `chosen` or `rejected`, or raise a DroppedError."""
    for side in ("chosen", "rejected"):
        tag, value = getattr(options, side)
        if tags.get(tag) == value:
            return side
    raise DroppedError("no_pair", "no tag says which answer is better")


def dump_side(example: Example, options: PullOptions) -> bytes:
    """Return an answer as it is put down until the other one is known, or raise a DroppedError."""
    check_side(example, options.pair_style)
    return dump_row(example_as_data(example))


def make_pairs(
    selection: Selection, spool: SpillFile, target: Target, options: PullOptions
) -> None:
    """Put the row of each pair down and tell the selection of it, or why there is none."""
    for match in selection.match_pairs():
        try:
            row, repairs = _pair(match, spool, options)
            data = dump_fitting(row, target)
        except DroppedError as exc:
            selection.refuse_pair(match, exc.reason)
        except RecursionError:
            selection.refuse_pair(match, "unreadable_record")
        else:
            selection.add_pair(match, *spool.write(data), repairs, shape(row))


def _pair(
    match: Match, spool: SpillFile, options: PullOptions
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The row, and what was repaired on either side."""
    chosen, rejected = (
        example_from_data(spool.read(*place)) for place in (match.chosen, match.rejected)
    )
    row, repairs = to_pair(chosen, rejected, options.pair_style)
    return row, tuple(sorted({*repairs, *chosen.repairs, *rejected.repairs}))
