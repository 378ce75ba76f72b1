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
_PAIRED = pa.schema(
    {
        "ordinal": pa.int64(),
        "start": pa.int64(),
        "size": pa.int64(),
        "repairs": pa.list_(pa.string()),
        "shape": _HASH,
        "reason": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One row of the bundle: where it was put down."""

    start: int
    size: int
    split_at: float


@dataclass(frozen=True, slots=True)
class Match:
    """Two examples of one input that may make a pair: start and size of what was put down."""

    ordinal: int
    chosen: tuple[int, int]
    rejected: tuple[int, int]


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
        con: takes the tables `examples`, `prefixes` and `paired`.
        seed: of splits and of the lot that decides when there are too many rows.
    """

    con: duckdb.DuckDBPyConnection
    seed: int
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _prefixes: list[bytes] = field(default_factory=list)
    _paired: list[tuple[Any, ...]] = field(default_factory=list)
    _count: int = 0
    _partitions: int = 0
    _newest_first: bool = False

    def __post_init__(self) -> None:
        tables = {"examples": _EXAMPLES, "prefixes": _PREFIXES, "paired": _PAIRED}
        for name, schema in tables.items():
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

    def match_pairs(self) -> Iterator[Match]:
        """Yield of each input the newest answer of each side; `add_pair` or `refuse_pair` it.

        Two answers that are the same make no pair: then one of them is the next older one.
        """
        self._flush()
        with engine_errors("finding pairs"):
            self.con.execute(statement("match_pairs"))
        options = {"after": -1, "most": _ROWS_AT_ONCE}
        while rows := self.con.execute(statement("list_matches"), options).fetchall():
            for ordinal, *places in rows:
                yield Match(ordinal, (places[0], places[1]), (places[2], places[3]))
            options["after"] = rows[-1][0]

    def add_pair(
        self, match: Match, start: int, size: int, repairs: Sequence[str], shape: Collection[str]
    ) -> None:
        """Take in the row of a pair, which was put down at `start`; the rest is as for `add`."""
        shown = hash_of(sorted(shape))
        self._add_paired((match.ordinal, start, size, list(repairs), shown, None))

    def refuse_pair(self, match: Match, reason: str) -> None:
        """Leave both examples of a pair out."""
        self._add_paired((match.ordinal, None, None, [], None, reason))

    def select_pairs(self, *, max_rows: int | None) -> dict[str, int]:
        """Decide which pairs stay; as `select`."""
        self._flush()
        return self._decide("select_pairs", {"max_rows": max_rows or _NO_LIMIT})

    def count_repairs(self) -> dict[str, int]:
        """Return how many of the rows that stay were repaired, by what was."""
        with engine_errors("counting repairs"):
            return dict(self.con.execute(statement("count_repairs")).fetchall())

    def left_out(self) -> Iterator[tuple[str, int, int]]:
        """Yield the reason of each example that does not stay, and where its record was put."""
        found = self.con.execute(statement("list_left_out"))
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
        found = self.con.execute(statement("list_kept"))
        while rows := found.fetchmany(_ROWS_AT_ONCE):
            for row in rows:
                yield Kept(*row)

    def _decide(self, name: str, options: Mapping[str, Any]) -> dict[str, int]:
        with engine_errors("selecting examples"):
            self.con.execute(statement(name), dict(options))
            return dict(self.con.execute(statement("count_reasons")).fetchall())

    def _add_paired(self, row: tuple[Any, ...]) -> None:
        self._paired.append(row)
        if len(self._paired) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        for name, schema, rows in (
            ("examples", _EXAMPLES, self._rows),
            ("prefixes", _PREFIXES, [(found,) for found in self._prefixes]),
            ("paired", _PAIRED, self._paired),
        ):
            if rows:
                columns = [list(column) for column in zip(*rows, strict=True)]
                self._insert(name, pa.table(columns, schema=schema))
        self._rows, self._prefixes, self._paired = [], [], []

    def _insert(self, name: str, rows: pa.Table) -> None:
        self.con.register("added", rows)
        with engine_errors("remembering examples"):
            self.con.execute(f"insert into {name} from added")
        self.con.unregister("added")
