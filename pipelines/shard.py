"""One shard of a window: batches in; parts, rejects and counts out.

A shard's work and its result are small plain values, so a shard can run in any process on any
machine that has this package and credentials.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.copies import settle_losers
from pipelines.errors import QualityError
from pipelines.layout import (
    SUFFIXES,
    canonical_value,
    part_path,
    partition_path,
    rejects_path,
)
from pipelines.parts import Part, PartExistsError, PartWriter, Reuse
from pipelines.reshape import EXPORTED
from pipelines.scans import Session, open_session
from pipelines.storage import open_store
from pipelines.work import ShardWork

_WRITE_BUDGET_BYTES = 128 * 1024**2
_EXAMPLES = 3  # located rejects kept for each reason
_ATTEMPTS = 5  # names tried when one is taken
_LOCAL_WRITERS, _REMOTE_WRITERS = 2, 4  # compression is CPU, an upload also waits
_NO_LIMIT = 2**62
_PARTS, _REJECTS, _NOWHERE = "parts", "rejects", "nowhere"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a shard wrote and counted.

    Attributes:
        read: events of the window by batch number, counted apart from what became of them.
        counts: events by (batch number, disposition).
        examples: by disposition, up to three rejects as (batch path, row).
        first_us, last_us: range of the exported event times.
        taken: events and bytes of the lines that were made, as `progress` is told them.
    """

    parts: tuple[Part, ...] = ()
    rejects: tuple[Part, ...] = ()
    read: dict[int, int] = field(default_factory=dict)
    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    examples: dict[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    taken: tuple[int, int] = (0, 0)


def run_shard(work: ShardWork, progress: Progress | None = None) -> ShardResult:
    """Export one shard; safe to run again, also beside another run of the same work.

    Args:
        work: what to do.
        progress: called with events and bytes of lines as they are taken in.

    Raises:
        PipelineError: nothing of the shard is left open; finished parts stay uncommitted.
    """
    taken = None
    for attempt in range(_ATTEMPTS):
        try:
            return _run(work, attempt, progress)
        except PartExistsError as exc:
            taken = exc
    raise QualityError(
        f"window {work.window.name}: {taken}, as {_ATTEMPTS - 1} names like it do. Nothing was "
        f"committed; remove what no manifest names by `request-logs gc --delete`"
    ) from taken


def preview_lines(work: ShardWork, limit: int) -> list[bytes]:
    """Return the first records of a shard as lines; writes nothing."""
    lines: list[bytes] = []
    with open_session(work) as session:
        settle_losers(session)
        for rows in chain.from_iterable(session.lines(scan) for scan in session.scans()):
            kept = rows.filter(pc.equal(rows.column("disposition"), EXPORTED))
            lines += [line.encode() for line in kept.column("line").to_pylist()]
            if len(lines) >= limit:
                break
    return lines[:limit]


def _run(work: ShardWork, attempt: int, progress: Progress | None) -> ShardResult:
    config = work.config
    store = open_store(config.destination.url, config.destination.storage_options)
    suffix = SUFFIXES[config.compression]
    half_of_grace = config.destination.grace.total_seconds() / 2
    reuse = Reuse(frozenset(work.committed), half_of_grace)

    def name_part(partition: str, number: int) -> str:
        prefix, digest = work.window.prefix, work.digest
        return part_path(partition, prefix, digest, work.shard, number, suffix, attempt)

    def name_rejects(_partition: str, _number: int) -> str:
        return rejects_path(work.window.name, work.digest, work.shard, attempt)

    with (
        open_session(work) as session,
        PartWriter(
            store,
            name_part,
            reuse=reuse,
            compression=config.compression,
            level=config.compression_level,
            target_part_bytes=config.target_part_bytes,
            budget_bytes=_WRITE_BUDGET_BYTES,
            workers=_LOCAL_WRITERS if store.is_local else _REMOTE_WRITERS,
        ) as parts,
        PartWriter(
            store,
            name_rejects,
            reuse=reuse,
            compression="gzip",
            level=None,
            target_part_bytes=_NO_LIMIT,
            budget_bytes=_WRITE_BUDGET_BYTES // 8,
            workers=1,
        ) as rejects,
    ):
        settle_losers(session)
        tally = _Tally(session)
        router = _Router(session, parts, rejects)

        def take(reads: Iterable[pa.RecordBatch]) -> None:
            for rows in reads:
                if not rows.num_rows:
                    continue
                line_bytes = router.route(rows)
                tally.add(rows, line_bytes)
                if progress is not None:
                    progress(rows.num_rows, line_bytes)

        for scan in session.scans():
            tally.add_counts(*session.counts(scan))
            if config.order_by is None:
                take(session.lines(scan))
            else:
                session.collect_lines(scan)
        if config.order_by is not None:
            take(session.ordered_lines())
        tally.counts.update(session.outlived)
        return ShardResult(
            parts=tuple(parts.finish()),
            rejects=tuple(rejects.finish()),
            read=dict(tally.read),
            counts=dict(tally.counts),
            examples={number: tuple(found) for number, found in tally.examples.items()},
            first_us=tally.first_us,
            last_us=tally.last_us,
            taken=(tally.events, tally.line_bytes),
        )


class _Tally:
    """Counts of dispositions, located rejects and the range of times, read by read."""

    def __init__(self, session: Session) -> None:
        self.read: Counter[int] = Counter()
        self.counts: Counter[tuple[int, int]] = Counter()
        self.examples: dict[int, list[tuple[str, int]]] = {}
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.events = self.line_bytes = 0
        self._paths = {entry.number: entry.path for entry in session.work.ranges}
        self._first_reject = session.reshape.rules.first_reject

    def add_counts(
        self, read: Iterable[tuple[int, int]], dropped: Iterable[tuple[int, int, int]]
    ) -> None:
        """Take in a scan's events, and those of them that no line is made of."""
        for batch, events in read:
            self.read[batch] += events
        for batch, disposition, events in dropped:
            self.counts[batch, disposition] += events

    def add(self, rows: pa.RecordBatch, line_bytes: int) -> None:
        """Take in one read of lines, and the bytes of those that were written."""
        self.events += rows.num_rows
        self.line_bytes += line_bytes
        dispositions, batches = rows.column("disposition"), rows.column("batch")
        first, last = _range(batches)
        low, high = _range(dispositions)
        if first == last and low == high:
            self.counts[first, low] += rows.num_rows
        else:
            keys = pc.add(pc.multiply(batches.cast(pa.int64()), high + 1), dispositions)
            for item in pc.value_counts(keys).to_pylist():
                self.counts[divmod(item["values"], high + 1)] += item["counts"]
        if high >= self._first_reject:
            self._locate(rows)
        times = rows.column("requested_us")
        if high != EXPORTED:
            times = times.filter(pc.equal(dispositions, EXPORTED))
        if len(times) > times.null_count:
            first, last = _range(times)
            self.first_us = first if self.first_us is None else min(self.first_us, first)
            self.last_us = last if self.last_us is None else max(self.last_us, last)

    def _locate(self, rows: pa.RecordBatch) -> None:
        rejects = rows.select(["disposition", "batch", "row"]).filter(
            pc.greater_equal(rows.column("disposition"), self._first_reject)
        )
        for reject in rejects.to_pylist():
            found = self.examples.setdefault(reject["disposition"], [])
            if len(found) < _EXAMPLES:
                found.append((self._paths[reject["batch"]], reject["row"]))


class _Router:
    """Sends runs of lines to their partition, or to the rejects, without an object per event."""

    def __init__(self, session: Session, parts: PartWriter, rejects: PartWriter) -> None:
        self._keys = session.reshape.rules.partition_keys
        self._first_reject = session.reshape.rules.first_reject
        self._max_partitions = session.work.config.max_partitions
        self._parts = parts
        self._rejects = rejects
        self._paths: dict[tuple[str | None, ...], str] = {}

    def route(self, rows: pa.RecordBatch) -> int:
        """Write one read's lines; return their bytes."""
        if not rows.num_rows:
            return 0
        lines = rows.column("line")
        columns = [rows.column(f"p{number}") for number in range(len(self._keys))]
        codes, values = _combined(
            [(rows.column("disposition"), self._goal), *((c, canonical_value) for c in columns)]
        )
        if codes is None:
            return self._write(values[0], lines, 0, len(lines))
        order = pc.array_sort_indices(codes)  # stable: lines keep their order in a partition
        lines = lines.take(order)
        runs = pc.run_end_encode(codes.take(order))
        ends = runs.run_ends.to_pylist()
        starts = [0, *ends[:-1]]
        firsts = order.take(pa.array(starts)).to_pylist()
        # By first row: codes go by the order of values in each column.
        found = sorted(zip(firsts, starts, ends, runs.values.to_pylist(), strict=True))
        return sum(self._write(values[code], lines, start, end) for _, start, end, code in found)

    def _goal(self, disposition: int) -> str:
        """Where a line goes, whatever the reason: rejects of all reasons keep their order."""
        if disposition == EXPORTED:
            return _PARTS
        return _REJECTS if disposition >= self._first_reject else _NOWHERE

    def _write(self, value: tuple[Any, ...], lines: pa.Array, start: int, end: int) -> int:
        goal, *keys = value
        if goal == _NOWHERE:
            return 0
        # Large strings: 64-bit offsets, then bytes that are the file's own.
        _, offset_buffer, data_buffer = lines.buffers()
        offsets = memoryview(offset_buffer).cast("q")[lines.offset :]
        data = memoryview(data_buffer if data_buffer is not None else b"")
        if goal == _PARTS:
            self._parts.write(self._path(tuple(keys)), data, offsets, start, end)
        else:
            self._rejects.write("", data, offsets, start, end)
        return offsets[end] - offsets[start]

    def _path(self, values: tuple[str | None, ...]) -> str:
        path = self._paths.get(values)
        if path is None:
            path = self._paths[values] = partition_path(self._keys, values)
        if self._parts.partitions > self._max_partitions:
            raise too_many_partitions(self._keys, self._max_partitions)
        return path


def too_many_partitions(keys: Sequence[str], limit: int) -> QualityError:
    """Return the error for a window with more partitions than allowed."""
    return QualityError(
        f"partition_by {', '.join(keys)}: a window has more than {limit} partitions; choose keys "
        f"with fewer values, or raise max_partitions"
    )


def _combined(
    columns: Sequence[tuple[pa.Array, Callable[[Any], Any]]],
) -> tuple[pa.Array | None, list[tuple[Any, ...]]]:
    """One code a row, None when all rows agree; and the values that each code stands for.

    Args:
        columns: each with what makes its values canonical: equal ones share a code.
    """
    codes: pa.Array | None = None
    found: list[tuple[Any, ...]] = [()]
    for column, canonical in columns:
        indices, values = _encoded(column, canonical)
        if indices is None:
            found = [(*known, values[0]) for known in found]
        elif codes is None:
            codes, found = indices, [(*found[0], value) for value in values]
        else:
            # Encoded again after each column, codes stay below the rows of a read.
            width = len(values)
            pairs = pc.add(pc.multiply(codes, width), indices).dictionary_encode()
            codes = pairs.indices.cast(pa.int64())
            known = pairs.dictionary.to_pylist()
            found = [(*found[pair // width], values[pair % width]) for pair in known]
    return codes, found


def _encoded(
    column: pa.Array, canonical: Callable[[Any], Any]
) -> tuple[pa.Array | None, list[Any]]:
    """The index of each row's canonical value, None when all rows agree; and those values."""
    encoded = column.dictionary_encode(null_encoding="encode")
    found = [canonical(value) for value in encoded.dictionary.to_pylist()]
    places = {value: place for place, value in enumerate(dict.fromkeys(found))}
    if len(places) == 1:
        return None, list(places)
    indices = encoded.indices.cast(pa.int64())
    if len(places) < len(found):
        indices = pa.array([places[value] for value in found], pa.int64()).take(indices)
    return indices, list(places)


def _range(numbers: pa.Array) -> tuple[int, int]:
    found = pc.min_max(numbers).as_py()
    return found["min"], found["max"]
