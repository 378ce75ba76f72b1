"""The batch index: what footers say of every batch, kept so that none is read twice."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.segments import SegmentCache
from pipelines.sources.batches import Batch, RowGroup
from pipelines.sources.columns import Column, Columns
from pipelines.sources.mapping import EventMapping
from pipelines.storage import Store
from pipelines.windows import microseconds

FOLDER = "_meta/batches"
_VERSION = 3  # changes when the same footer would give another row
_GROUP = pa.struct(
    {"rows": pa.int64(), "bytes": pa.int64(), "first_us": pa.int64(), "last_us": pa.int64()}
)
SCHEMA = pa.schema(
    {
        "time_key": pa.string(),
        "path": pa.string(),
        "etag": pa.string(),
        "size": pa.int64(),
        "rows": pa.int64(),
        "columns": pa.string(),
        "groups": pa.list_(_GROUP),
        "first_us": pa.int64(),
        "last_us": pa.int64(),
        "undated": pa.int64(),
        "windows": pa.list_(pa.int64()),
    },
    metadata={"version": str(_VERSION)},
)


def open_index(store: Store) -> SegmentCache:
    """Return the batch index of a destination."""
    return SegmentCache(store, FOLDER, SCHEMA)


def time_key(mapping: EventMapping, config: ExportConfig) -> str:
    """Return a digest of all that decides a batch's event times and windows, besides the batch."""
    field = mapping.fields.get("requested_at")
    grid = config.window.grid if config.window is not None else None
    meaning = {
        "version": _VERSION,
        "requested_at": None if field is None else field.model_dump(),
        "valid_times": [microseconds(instant) for instant in config.source.valid_times],
        "grid": None if grid is None else [str(grid.every), grid.origin.isoformat()],
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def index_rows(batches: Iterable[Batch], key: str) -> pa.Table:
    """Return the index's rows of readable batches."""
    found = list(batches)
    columns: dict[str, Any] = {
        name: [getattr(batch, name) for batch in found]
        for name in ("path", "etag", "size", "rows", "first_us", "last_us", "undated", "windows")
    }
    columns["time_key"] = pa.repeat(key, len(found))
    columns["columns"] = [_columns_text(batch.columns) for batch in found]
    columns["groups"] = _groups_of(found)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _groups_of(batches: Sequence[Batch]) -> pa.Array:
    """The row groups of batches; from dicts it would take half of the time of all rows."""
    groups = [group for batch in batches for group in batch.row_groups]
    ends = accumulate((len(batch.row_groups) for batch in batches), initial=0)
    values = [
        pa.array([getattr(group, field.name) for group in groups], field.type) for field in _GROUP
    ]
    places = pa.array(list(ends), pa.int32())
    return pa.ListArray.from_arrays(places, pa.StructArray.from_arrays(values, fields=list(_GROUP)))


def batch_of(row: Mapping[str, Any]) -> Batch:
    """Return the batch that a row of the index describes."""
    return Batch(
        path=row["path"],
        etag=row["etag"],
        size=row["size"],
        rows=row["rows"],
        columns=parse_columns(row["columns"]),
        row_groups=tuple(
            RowGroup(group["rows"], group["bytes"], group["first_us"], group["last_us"])
            for group in row["groups"]
        ),
        first_us=row["first_us"],
        last_us=row["last_us"],
        undated=row["undated"],
        windows=None if row["windows"] is None else tuple(row["windows"]),
    )


@functools.lru_cache
def _columns_text(columns: Columns) -> str:
    return json.dumps([[column.name, column.family, column.type] for column in columns.all])


@functools.lru_cache
def parse_columns(text: str) -> Columns:
    """Return the columns that a row's text stands for."""
    return Columns(tuple(Column(*parts) for parts in json.loads(text)))
