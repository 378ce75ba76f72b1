"""Caches at the destination: immutable, create-only Parquet segments that readers union.

Losing a segment costs time and nothing else, so one that cannot be read is passed over.
"""

import hashlib
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import StorageError
from pipelines.storage import Store, StoredObject

logger = logging.getLogger(__name__)

_READERS = 16
_SMALL_BYTES = 8 * 1024**2
_MANY_SMALL = 24  # an hourly schedule merges once a day


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as it was read."""

    path: str
    size: int
    table: pa.Table


@dataclass(frozen=True, slots=True)
class SegmentCache:
    """The segments below one folder of a destination, all of one schema."""

    store: Store
    folder: str
    schema: pa.Schema

    def load(self) -> list[Segment]:
        """Return every segment that is there and has the schema, by path."""
        found = list(self.store.list_objects(f"{self.folder}/", ".parquet"))
        with ThreadPoolExecutor(_READERS) as pool:
            return [segment for segment in pool.map(self._read, found) if segment is not None]

    def union(self, segments: Sequence[Segment]) -> pa.Table:
        """Return the rows of all segments; a row may stand there twice."""
        return pa.concat_tables([self.schema.empty_table(), *(s.table for s in segments)])

    def add(self, table: pa.Table) -> None:
        """Write one segment, unless the table is empty; equal rows have an equal name."""
        if not table.num_rows:
            return
        buffer = io.BytesIO()
        pq.write_table(table.cast(self.schema), buffer, compression="zstd")
        data = buffer.getvalue()
        self.store.create(f"{self.folder}/{hashlib.sha256(data).hexdigest()[:32]}.parquet", data)

    def merge(self, segments: Sequence[Segment]) -> None:
        """Replace small segments by one when there are many; what they hold stays readable."""
        small = [segment for segment in segments if segment.size < _SMALL_BYTES]
        if len(small) > _MANY_SMALL:
            self.add(self.union(small))
            for segment in small:
                self.store.delete(segment.path)

    def clear(self) -> int:
        """Remove every segment; return how many there were."""
        found = list(self.store.list_objects(f"{self.folder}/"))
        for entry in found:
            self.store.delete(entry.path)
        return len(found)

    def _read(self, found: StoredObject) -> Segment | None:
        try:
            data = self.store.read_bytes(found.path)
            table = pq.read_table(pa.BufferReader(data))
            if table.schema.names != self.schema.names or not _same_version(table, self.schema):
                return None  # of another version of this package
            return Segment(found.path, found.size, table.cast(self.schema))
        except (StorageError, pa.ArrowException, OSError) as exc:
            logger.warning("passing over %s: %s", self.store.absolute_url(found.path), exc)
            return None


def _same_version(table: pa.Table, schema: pa.Schema) -> bool:
    return bool((table.schema.metadata or {}).get(b"version") == schema.metadata[b"version"])
