"""Records as Arrow: text as recorded, beside the partition's values and the window."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.layout import parse_partition


@dataclass(frozen=True, slots=True)
class CutRecords:
    """Records of one part.

    Attributes:
        keys: of every record, in order.
        partition: the part's, as a path.
        rows: the text of the values of each record, in the order of `keys`.
    """

    window: str
    keys: tuple[str, ...]
    partition: str
    rows: list[list[str]]


def open_reader(
    found: Iterable[CutRecords], keys: Sequence[str], partition_keys: Sequence[str], rows: int
) -> pa.RecordBatchReader:
    """Return the stream of `found` with columns for all keys, in batches of `rows` at most.

    A column whose name is there already, but for case, gets a `_`.
    """
    names: list[str] = []
    for name in (*keys, *partition_keys, "window"):
        taken = {known.lower() for known in names}
        own = name
        while own.lower() in taken:
            own += "_"
        names.append(own)
    kinds = [pa.large_string()] * len(keys) + [pa.string()] * (len(partition_keys) + 1)
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    return pa.RecordBatchReader.from_batches(
        schema, _batches(found, tuple(keys), tuple(partition_keys), rows, schema)
    )


def _batches(
    found: Iterable[CutRecords],
    keys: tuple[str, ...],
    partition_keys: tuple[str, ...],
    rows: int,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    for records in found:
        places = [records.keys.index(key) if key in records.keys else None for key in keys]
        values = dict(parse_partition(records.partition))
        fixed = [*(values.get(key) for key in partition_keys), records.window]
        for chosen in _cut(records.rows, rows):
            texts = (
                pa.nulls(len(chosen), pa.large_string())
                if place is None
                else pa.array([row[place] for row in chosen], pa.large_string())
                for place in places
            )
            repeated = (pa.repeat(pa.scalar(value, pa.string()), len(chosen)) for value in fixed)
            yield pa.record_batch([*texts, *repeated], schema=schema)


def _cut(records: list[list[str]], rows: int) -> Iterator[list[list[str]]]:
    for start in range(0, len(records), rows):
        yield records[start : start + rows]
