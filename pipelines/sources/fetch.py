"""Batches on a local disk for DuckDB: footers, and sparse copies that hold only what is read."""

import itertools
import re
import shutil
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BatchChangedError, ConfigError
from pipelines.sources.not_utf8 import copy_as_bytes
from pipelines.storage import Store

_TAIL_BYTES = 64 * 1024  # most footers fit: one request a batch
_MAGIC = b"PAR1"
_TRAILER_BYTES = 8  # footer length (uint32, little endian) and magic
# Of a plain footer above encrypted columns: nonce (12) and tag (16).
# https://github.com/apache/parquet-format/blob/master/Encryption.md#55-plaintext-footer-mode
_SIGNATURE_BYTES = 28
_GAP_BYTES = 256 * 1024  # closer ranges are cheaper read together than asked for apart
# DuckDB takes a path with one of these for a pattern. It has an escape, `[[]`, but then lists the
# folder, once for each file, and fails on some neighbours (a file named `\.parquet`).
_PATTERN = re.compile(r"[*?\[]")


def read_footer(store: Store, path: str, *, etag: str, size: int) -> pq.FileMetaData:
    """Return a batch's Parquet metadata, in one ranged read, two when the footer is large.

    Raises:
        pyarrow.ArrowInvalid: the object is no Parquet, is truncated or encrypted.
        BatchChangedError: the object is not the one that was listed.
    """
    tail = _tail(store, path, etag=etag, size=size)
    metadata = pq.read_metadata(pa.BufferReader(tail))
    if _footer_bytes(tail) - metadata.serialized_size == _SIGNATURE_BYTES:
        # pyarrow 26 ends the process when it is asked about a column that it cannot decrypt.
        raise pa.ArrowInvalid("encrypted columns behind a plain footer")
    return metadata


def readable_of(store: Store) -> list[str]:
    """Return the folders in which batches are read where they lie."""
    return [store.root] if store.is_local else []


class Spool:
    """A temporary folder for copies of batches; local batches are read where they lie.

    A copy is sparse: column chunks stand at their own offsets and the rest is a hole, so the
    footer stays valid and row numbers stay the batch's.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        """Open a spool for batches of one store; copies lie below a folder that DuckDB may read."""
        self._store = store
        self._numbers = itertools.count(1)
        self.in_place = store.is_local
        self.folder = Path(mkdtemp(dir=folder))

    def __enter__(self) -> Self:
        """Return the spool; it is removed on exit."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Remove every copy."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def materialise(
        self, path: str, etag: str, size: int, rows: tuple[int, int], columns: Collection[str]
    ) -> Path:
        """Return a local file with the row groups of `rows` (half-open) and the columns named.

        Raises:
            BatchChangedError: the batch is not the one that was listed.
        """
        self.check_unchanged(path, etag)
        if self.in_place:
            found = Path(self._store.root) / path
            if not _PATTERN.search(str(found)):
                return found
            local = self._new_file()
            local.symlink_to(found)
            return local
        local = self._new_file()
        tail = _tail(self._store, path, etag=etag, size=size)
        metadata = pq.read_metadata(pa.BufferReader(tail))
        ranges = list(_merged(sorted(_chunks(metadata, rows, columns))))
        self._store.download(path, local, ranges, etag=etag, size=size)
        with local.open("r+b") as file:
            file.seek(size - len(tail))
            file.write(tail)
        return local

    def release(self, local: Path) -> None:
        """Remove one copy before the spool ends; a batch read in place stays."""
        if local.parent == self.folder:
            local.unlink(missing_ok=True)

    def check_unchanged(self, path: str, etag: str) -> None:
        """Make sure that a batch read in place still is the one that was listed; a copy is.

        Raises:
            BatchChangedError: it was overwritten or removed: what was read of it is not to be used.
        """
        if self.in_place:
            found = self._store.stat(path)
            if found is None or found.etag != etag:
                url = self._store.absolute_url(path)
                raise BatchChangedError(f"{url} changed after it was listed; run again", url=url)

    def as_bytes(
        self,
        local: Path,
        rows: tuple[int, int],
        columns: Collection[str],
        fetched: Collection[str],
    ) -> tuple[Path, list[str]]:
        """Return what `copy_as_bytes` makes of a batch, and the nested columns it marks."""
        copy = self._new_file()
        return copy, copy_as_bytes(local, copy, rows, columns, fetched)

    def _new_file(self) -> Path:
        # One `next` is one step for threads; a number that is raised and then read is two.
        local = self.folder / f"{next(self._numbers):06d}.parquet"
        if _PATTERN.search(str(local)):
            raise ConfigError(f"TMPDIR: DuckDB takes {self.folder} for a pattern; use another one")
        return local


def _tail(store: Store, path: str, *, etag: str, size: int) -> bytes:
    """The end of a batch, from the footer's first byte on (or earlier)."""
    tail = store.read_bytes(path, start=max(0, size - _TAIL_BYTES), end=size, etag=etag)
    if len(tail) < _TRAILER_BYTES or tail[-4:] != _MAGIC:
        return tail  # pyarrow says what is wrong with it
    needed = _footer_bytes(tail) + _TRAILER_BYTES
    if len(tail) < needed <= size:
        head = store.read_bytes(path, start=size - needed, end=size - len(tail), etag=etag)
        tail = head + tail
    return tail


def _footer_bytes(tail: bytes) -> int:
    """Length of the footer, without its trailer."""
    return int(struct.unpack("<I", tail[-8:-4])[0])


def _chunks(
    metadata: pq.FileMetaData, rows: tuple[int, int], columns: Collection[str]
) -> Iterator[tuple[int, int]]:
    """Byte ranges of the named columns' chunks in the row groups that overlap `rows`."""
    wanted = [
        index
        for index in range(metadata.num_columns)
        if _belongs(metadata.schema.column(index).path, columns)
    ]
    row = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if row < rows[1] and row + group.num_rows > rows[0]:
            for chunk in map(group.column, wanted):
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                    start = min(start, chunk.dictionary_page_offset)
                yield start, start + chunk.total_compressed_size
        row += group.num_rows


def _belongs(leaf: str, columns: Collection[str]) -> bool:
    """Whether a leaf is of one of the columns: `a.b` is in `a`, or a column of that name."""
    return any(leaf == name or leaf.startswith(f"{name}.") for name in columns)


def _merged(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join sorted ranges that touch or nearly touch."""
    current: tuple[int, int] | None = None
    for start, end in ranges:
        if current is not None and start - current[1] <= _GAP_BYTES:
            current = (current[0], max(current[1], end))
        else:
            if current is not None:
                yield current
            current = (start, end)
    if current is not None:
        yield current
