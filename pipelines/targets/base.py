"""What a service takes: how an example becomes its row, and how much of it a file may hold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.chat.example import Example

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One format of bundles.

    Attributes:
        to_row: the row of an example and the names of repairs; raises a DroppedError.
        max_file_bytes, max_rows: of one file and of one bundle; None where there is no limit.
        min_rows: fewer are refused by the service: a warning, not an error.
        needs_pairs: whether a row is made of two answers to one input (see `preference`).
        source: where the rules were read.
    """

    name: str
    to_row: Callable[[Example], tuple[Row, tuple[str, ...]]]
    max_file_bytes: int | None = None
    max_rows: int | None = None
    min_rows: int = 1
    needs_pairs: bool = False
    source: str = ""
