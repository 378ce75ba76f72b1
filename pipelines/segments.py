"""Caches at the destination: immutable, create-only Parquet segments that readers union.

Losing a segment costs time and nothing else, so one that cannot be read is passed over. They are
copied to this machine, where DuckDB reads of them what a query needs: all rows may be gigabytes.
"""

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import StorageError
from pipelines.local import local_errors
from pipelines.storage import Store, StoredObject

logger = logging.getLogger(__name__)

_READERS = 16
_SMALL_BYTES = 8 * 1024**2
_MANY_SMALL = 24  # an hourly schedule merges once a day
_MERGED_BYTES = 32 * 1024**2  # one merged segment is held in memory
_ROWS_A_GROUP = 50_000


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment, and its copy on this machine."""

    path: str
    size: int
    file: Path


@dataclass(frozen=True, slots=True)
class SegmentCache:
    """The segments below one folder of a destination, all of one schema."""

    store: Store
    folder: str
    schema: pa.Schema

    def copy_to(self, folder: Path, *, remember: bool) -> "SegmentCopies":
        """Return every segment that is there, is whole and has the schema.

        Args:
            folder: a new one on this machine, for the copies.
            remember: let what is added to the copies be added to the cache too.
        """
        found = list(self.store.list_objects(f"{self.folder}/", ".parquet"))
        with local_errors("create", f"file://{folder}"):
            folder.mkdir()
        with ThreadPoolExecutor(_READERS) as pool:
            copied = pool.map(partial(self._copy, folder), found)
            segments = tuple(segment for segment in copied if segment is not None)
        copies = SegmentCopies(self, folder, segments, remember)
        copies.keep(segment_bytes(self.schema.empty_table()))  # readers need one file at least
        return copies

    def add(self, table: pa.Table) -> None:
        """Write one segment, unless the table is empty; equal rows have an equal name."""
        if table.num_rows:
            self.publish(segment_bytes(table.cast(self.schema)))

    def publish(self, data: bytes) -> None:
        """Write the bytes of one segment."""
        self.store.create(f"{self.folder}/{_name_of(hashlib.sha256(data))}", data)

    def clear(self) -> int:
        """Remove every segment; return how many there were."""
        found = list(self.store.list_objects(f"{self.folder}/"))
        for entry in found:
            self.store.delete(entry.path)
        return len(found)

    def _copy(self, folder: Path, found: StoredObject) -> Segment | None:
        name = found.path.rpartition("/")[2]
        file = folder / name
        try:
            whole = [(0, found.size)]
            self.store.download(found.path, file, whole, etag=found.etag, size=found.size)
            if _has_schema(file, self.schema) and _is_whole(file):
                return Segment(found.path, found.size, file)
        except (StorageError, pa.ArrowException, OSError) as exc:
            logger.warning("passing over %s: %s", self.store.absolute_url(found.path), exc)
        file.unlink(missing_ok=True)
        return None


@dataclass(frozen=True, slots=True)
class SegmentCopies:
    """The segments of a cache, in a folder on this machine.

    Attributes:
        segments: those of the cache when they were copied, by path.
        remember: whether what is added goes to the cache too.
    """

    cache: SegmentCache
    folder: Path
    segments: tuple[Segment, ...]
    remember: bool

    @property
    def files(self) -> list[str]:
        """The Parquet files that hold all rows; there is one at least, a row may stand twice."""
        return sorted(str(file) for file in self.folder.iterdir())

    def add(self, table: pa.Table) -> None:
        """Add rows here and, if they are to be remembered, to the cache."""
        if not table.num_rows:
            return
        data = segment_bytes(table.cast(self.cache.schema))
        if self.remember:
            self.cache.publish(data)
        self.keep(data)

    def keep(self, data: bytes) -> None:
        """Add the bytes of a segment here alone."""
        file = self.folder / _name_of(hashlib.sha256(data))
        with local_errors("write", f"file://{file}"):
            file.write_bytes(data)

    def merge(self) -> None:
        """Replace small segments by few when there are many; what they hold stays readable."""
        small = [segment for segment in self.segments if segment.size < _SMALL_BYTES]
        if not self.remember or len(small) <= _MANY_SMALL:
            return
        for group in _groups(small):
            self.cache.publish(_merged(group, self.cache.schema))
            for segment in group:
                self.cache.store.delete(segment.path)


def segment_bytes(table: pa.Table) -> bytes:
    """Return a table as one segment."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _groups(small: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Neighbours that make one segment each; one that is left over stays as it is."""
    group: list[Segment] = []
    for segment in small:
        group.append(segment)
        if sum(one.size for one in group) >= _MERGED_BYTES:
            yield group
            group = []
    if len(group) > 1:
        yield group


def _merged(group: Sequence[Segment], schema: pa.Schema) -> bytes:
    """The bytes of one segment with the rows of several, of which few are in memory at once."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        rows = schema.empty_table()
        for segment in group:
            rows = pa.concat_tables([rows, pq.read_table(segment.file).cast(schema)])
            if rows.num_rows >= _ROWS_A_GROUP:
                writer.write_table(rows, _ROWS_A_GROUP)
                rows = schema.empty_table()
        if rows.num_rows:
            writer.write_table(rows)
    return buffer.getvalue()


def _has_schema(file: Path, schema: pa.Schema) -> bool:
    """Whether a segment is of this version of the package."""
    found = pq.read_schema(file)
    version = (found.metadata or {}).get(b"version")
    return bool(found.names == schema.names and version == schema.metadata[b"version"])


def _is_whole(file: Path) -> bool:
    """Whether a segment holds what was written under its name."""
    with file.open("rb") as data:
        return file.name == _name_of(hashlib.file_digest(data, "sha256"))


def _name_of(digest: "hashlib._Hash") -> str:
    return f"{digest.hexdigest()[:32]}.parquet"
