"""Events that another copy outlives: their places, packed in 8 bytes each and sorted."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

BATCH_WIDTH = 2**40
"""More rows than a batch can hold: the place of an event is batch number * this + row."""


@dataclass(frozen=True, slots=True)
class Losers:
    """Superseded and duplicate events, each as `pack_places` packs them; no event is both."""

    superseded: bytes = b""
    duplicates: bytes = b""

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.superseded or self.duplicates)


def list_places(rows: Any) -> Any:
    """Return the places, int64, of rows with columns batch and row."""
    batches = pc.multiply(rows.column("batch").cast(pa.int64()), BATCH_WIDTH)
    return pc.add(batches, rows.column("row"))


def pack_places(reads: Iterable[pa.RecordBatch]) -> bytes:
    """Return the places of rows (batch, row), which come sorted."""
    packed = bytearray()
    for rows in reads:
        places = list_places(rows)
        packed += memoryview(places.buffers()[1]).cast("B")[: 8 * len(places)]
    return bytes(packed)


def unpack_places(packed: bytes) -> Any:
    """Return packed places as an Arrow array over the same memory."""
    return pa.Array.from_buffers(pa.int64(), len(packed) // 8, [None, pa.py_buffer(packed)])


def places_between(packed: bytes, first: int, last: int) -> Any:
    """Return the places from `first` to `last`, both included, as an Arrow array."""
    places = memoryview(packed).cast("q")
    start = bisect_left(places, first)
    return unpack_places(packed).slice(start, bisect_right(places, last, start) - start)


def places_within(packed: bytes, ranges: Iterable[tuple[int, tuple[int, int]]]) -> bytes:
    """Return those of the places that lie in ranges of (batch number, half-open rows), sorted."""
    places = memoryview(packed).cast("q")
    pieces: list[tuple[int, int]] = []
    for number, (first, end) in ranges:
        start = bisect_left(places, number * BATCH_WIDTH + first)
        stop = bisect_left(places, number * BATCH_WIDTH + end, start)
        if pieces and pieces[-1][1] == start:
            pieces[-1] = (pieces[-1][0], stop)
        else:
            pieces.append((start, stop))
    # A slice of all is no copy, and a shard is often all of a window.
    return b"".join(packed[8 * start : 8 * stop] for start, stop in pieces)
