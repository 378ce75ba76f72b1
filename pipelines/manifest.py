"""Manifest and ledger: what one generation of one window holds, and the write that commits it."""

import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.errors import QualityError
from pipelines.layout import manifest_path, manifests_prefix, parse_generation, parse_partition
from pipelines.parts import Part
from pipelines.storage import Store

FORMAT_VERSION = 1  # changes when the same inputs would give other bytes or another manifest
PACKAGE = "request-log-export"
_SPLIT = ("filtered", "rejected")  # columns of the ledger that say why
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEDGER_COLUMNS = (
    "exported",
    "filtered",
    "errors_excluded",
    "superseded",
    "duplicate",
    "sampled_out",
    "rejected",
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts of events that add up: read is the sum of all other columns.

    Attributes:
        filtered_by, rejected_by: those two columns split by reason.
    """

    read: int = 0
    exported: int = 0
    filtered: int = 0
    errors_excluded: int = 0
    superseded: int = 0
    duplicate: int = 0
    sampled_out: int = 0
    rejected: int = 0
    filtered_by: Mapping[str, int] = field(default_factory=dict)
    rejected_by: Mapping[str, int] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Raise a QualityError unless the counts add up."""
        total = sum(getattr(self, column) for column in LEDGER_COLUMNS)
        splits = {name: sum(getattr(self, f"{name}_by").values()) for name in _SPLIT}
        if total != self.read or any(splits[name] != getattr(self, name) for name in _SPLIT):
            raise QualityError(
                f"{where}: the ledger does not add up: read {self.read}, "
                f"accounted for {total} ({self.as_text()}); nothing was committed"
            )

    def as_text(self) -> str:
        """The columns that are not zero, in order."""
        shown = {column: getattr(self, column) for column in LEDGER_COLUMNS}
        return ", ".join(f"{name} {value}" for name, value in shown.items() if value) or "no events"


def count_ledger(read: int, counted: Iterable[tuple[str, str, int]]) -> Ledger:
    """Return the ledger of (column, reason, events); `read` is counted apart."""
    columns: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {name: Counter() for name in _SPLIT}
    for column, reason, events in counted:
        columns[column] += events
        if column in reasons:
            reasons[column][reason] += events
    split = {f"{name}_by": dict(sorted(reasons[name].items())) for name in _SPLIT}
    return Ledger(read=read, **columns, **split)


def add_ledgers(ledgers: Iterable[Ledger]) -> Ledger:
    """Return the sum of ledgers."""
    read, counted = 0, []
    for ledger in ledgers:
        read += ledger.read
        for column in LEDGER_COLUMNS:
            if column in _SPLIT:
                reasons = getattr(ledger, f"{column}_by")
                counted += [(column, reason, events) for reason, events in reasons.items()]
            elif getattr(ledger, column):
                counted.append((column, "", getattr(ledger, column)))
    return count_ledger(read, counted)
