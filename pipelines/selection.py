"""Which examples stay in a bundle: each conversation once, each input once, split without leaks.

All is told by hashes of 16 bytes in DuckDB, which spills: memory does not grow with the export.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import duckdb
import pyarrow as pa

from pipelines.engine import engine_errors, statement
from pipelines.identity import Identity, hash_of

Conversations = Literal["longest", "all"]
Duplicates = Literal["first", "last", "keep"]
_ROWS_AT_ONCE = 10_000
_NO_LIMIT = 2**62
_AGE_BITS = 36  # 34 billion records, either way, of 134 million partitions
_MOST_SHAPES = 2_000
_HASH = pa.binary(16)
_EXAMPLES = pa.schema(
    {
        "ordinal": pa.int64(),
        "age": pa.int64(),
        "start": pa.int64(),
        "size": pa.int64(),
        "conversation": _HASH,
        "input": _HASH,
        "split_at": pa.float64(),
        "lot": _HASH,
        "side": pa.string(),
        "repairs": pa.list_(pa.string()),
        "shape": _HASH,
        "line_start": pa.int64(),
        "line_size": pa.int64(),
    }
)
_PREFIXES = pa.schema({"hash": _HASH})


@dataclass(frozen=True, slots=True)
class Kept:
    """One row of the bundle: where its example, and that of the rejected answer, were put down."""

    start: int
    size: int
    split_at: float
    rejected: tuple[int, int] | None = None


def place_of(seed: int, key: bytes) -> float:
    """Return a place in [0, 1) that a key always has, for one seed."""
    digest = hashlib.md5(b"%d:" % seed + key, usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") / 2**64


def split_of(place: float, fractions: Mapping[Any, float], rest: str) -> str:
    """Return the split that a place falls into; splits take their fractions in order."""
    end = 0.0
    for name, fraction in fractions.items():
        end += fraction
        if place < end:
            return str(name)
    return rest


@dataclass(slots=True)
class Selection:
    """The examples of one pull, in their order.

    Attributes:
        con: takes the tables `examples` and `prefixes`.
        seed: of splits and of the lot that decides when there are too many rows.
    """

    con: duckdb.DuckDBPyConnection
    seed: int
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _prefixes: list[bytes] = field(default_factory=list)
    _count: int = 0
    _partitions: int = 0
    _newest_first: bool = False

    def __post_init__(self) -> None:
        for name, schema in (("examples", _EXAMPLES), ("prefixes", _PREFIXES)):
            self.con.register("empty", schema.empty_table())
            self.con.execute(f"create or replace temp table {name} as from empty")
            self.con.unregister("empty")

    def begin_partition(self, *, newest_first: bool) -> None:
        """Take what is added from now on as of the next partition, which has an order of its own.

        Args:
            newest_first: whether the uppermost of its lines, in all of its parts, is the newest.
        """
        self._partitions += 1
        self._newest_first = newest_first

    def add(
        self,
        identity: Identity,
        start: int,
        size: int,
        *,
        split_key: bytes | None = None,
        side: str | None = None,
        repairs: Sequence[str] = (),
        shape: Collection[str] = (),
        line: tuple[int, int] | None = None,
    ) -> None:
        """Take in one example, which was put down at `start`.

        Args:
            identity: its hashes.
            start: where its row lies.
            size: bytes of the row.
            split_key: what decides the split; by default the conversation's opening.
            side: `chosen` or `rejected`, for pairs.
            repairs: names of what was repaired in it.
            shape: keys and types that its row has.
            line: where its record was put down, for those who are left out.
        """
        place = place_of(self.seed, identity.opening if split_key is None else split_key)
        lot = hash_of(identity.conversation.hex(), b"%d" % self.seed)
        hashes = identity.conversation, identity.input, place, lot
        shown = hash_of(sorted(shape))
        place_of_line = line or (None, None)
        # The newer an example, the higher the number: by window, partition and line.
        age = self._partitions << _AGE_BITS
        age += -self._count if self._newest_first else self._count
        self._rows.append(
            (self._count, age, start, size, *hashes, side, list(repairs), shown, *place_of_line)
        )
        self._prefixes += identity.prefixes
        self._count += 1
        if max(len(self._rows), len(self._prefixes) // 10) >= _ROWS_AT_ONCE:
            self._flush()

    def select(
        self, *, only_longest: bool, duplicates: Duplicates, max_rows: int | None
    ) -> dict[str, int]:
        """Decide, and return how many are left out by reason; `kept` has the others."""
        self._flush()
        options = {
            "newest": duplicates == "last",
            "distinct": duplicates != "keep",
            "longest": only_longest,
            "max_rows": max_rows or _NO_LIMIT,
        }
        return self._decide("select_examples", options)

    def select_pairs(self, *, max_rows: int | None) -> dict[str, int]:
        """Decide which two answers to an input make a pair; as `select`."""
        self._flush()
        return self._decide("select_pairs", {"max_rows": max_rows or _NO_LIMIT})

    def count_repairs(self) -> dict[str, int]:
        """Return how many of the examples that stay were repaired, by what was."""
        with engine_errors("counting repairs"):
            found = self.con.execute(
                "select repair, count(*) from (select unnest(repairs) as repair from selected"
                " where reason is null) group by repair order by repair"
            ).fetchall()
        return dict(found)

    def left_out(self) -> Iterator[tuple[str, int, int]]:
        """Yield the reason of each example that does not stay, and where its record was put."""
        found = self.con.execute(
            "select reason, line_start, line_size from selected"
            " where reason is not null and line_start is not null order by ordinal"
        )
        while rows := found.fetchmany(_ROWS_AT_ONCE):
            yield from rows

    def first_of_shapes(self, ends: Sequence[float]) -> list[Kept]:
        """Return, in order, the first example of each shape in each split that stays, to a limit.

        Args:
            ends: of the splits among the places in [0, 1).
        """
        with engine_errors("comparing rows"):
            found = self.con.execute(
                statement("select_shapes"), {"ends": list(ends), "most": _MOST_SHAPES}
            ).fetchall()
        return [Kept(*row) for row in found]

    def kept(self) -> Iterator[Kept]:
        """Yield what was decided to stay, in order."""
        names = [name for (name, *_) in self.con.execute("describe selected").fetchall()]
        pairs = "rejected_start" in names
        more = ", rejected_start, rejected_size" if pairs else ""
        found = self.con.execute(
            f"select start, size, split_at{more} from selected where reason is null"  # noqa: S608 - closed set
            " order by ordinal"
        )
        while rows := found.fetchmany(_ROWS_AT_ONCE):
            for start, size, place, *rejected in rows:
                yield Kept(start, size, place, (rejected[0], rejected[1]) if pairs else None)

    def _decide(self, name: str, options: Mapping[str, Any]) -> dict[str, int]:
        with engine_errors("selecting examples"):
            self.con.execute(statement(name), dict(options))
            counts = self.con.execute(
                "select reason, count(*) from selected where reason is not null"
                " group by reason order by reason"
            ).fetchall()
        return dict(counts)

    def _flush(self) -> None:
        columns: Sequence[Sequence[Any]] = list(zip(*self._rows, strict=True))
        if columns:
            self._insert("examples", pa.table(list(columns), schema=_EXAMPLES))
        if self._prefixes:
            self._insert("prefixes", pa.table([self._prefixes], schema=_PREFIXES))
        self._rows, self._prefixes = [], []

    def _insert(self, name: str, rows: pa.Table) -> None:
        self.con.register("added", rows)
        with engine_errors("remembering examples"):
            self.con.execute(f"insert into {name} from added")
        self.con.unregister("added")
