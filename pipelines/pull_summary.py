"""What came of a pull."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PullSummary:
    """What came of a pull.

    Attributes:
        read: committed records that were read.
        rows: written rows by split.
        dropped: records that are in no row, by reason; with the rows they add up to `read`, where
            a pair is one row of two records.
        repairs: rows by what was repaired in them.
        split_tag_missing: records that passed every gate without having the tag to split by, so
            that the opening of their conversation decides.
        tokens_estimate: of all rows, at four bytes each.
        files: the bundle's, as `bundle.json` has them.
        windows: how many were read.
        exists: whether this very bundle was there already.
        min_rows: that the service takes.
        why_empty: why no record was read, where none was.
        empty_splits: those that were asked for and got no row, where others did.
    """

    export: str
    destination: str
    format: str
    windows: int
    read: int
    rows: Mapping[str, int]
    dropped: Mapping[str, int]
    repairs: Mapping[str, int]
    tokens_estimate: int
    split_tag_missing: int = 0
    files: tuple[Mapping[str, Any], ...] = ()
    exists: bool = False
    min_rows: int = 1
    why_empty: str = ""
    empty_splits: tuple[str, ...] = ()

    @property
    def total_rows(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json` and for Prefect."""
        return asdict(self)


@dataclass(slots=True)
class Counts:
    """What a pull counts as it goes."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    split_tag_missing: int = 0
    sources: list[dict[str, Any]] = field(default_factory=list)
