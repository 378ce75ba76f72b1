"""Batches on a local disk for DuckDB: footers, and sparse copies that hold only what is read."""

import struct
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BatchChangedError, ContractError
from pipelines.scratch import open_scratch
from pipelines.storage import Store

_TAIL_BYTES = 64 * 1024  # most footers fit: one request a batch
_MAGIC = b"PAR1"
_TRAILER_BYTES = 8  # footer length (uint32, little endian) and magic
# Of a plain footer above encrypted columns: nonce (12) and tag (16).
# https://github.com/apache/parquet-format/blob/master/Encryption.md#55-plaintext-footer-mode
_SIGNATURE_BYTES = 28
_GAP_BYTES = 256 * 1024  # closer ranges are cheaper read together than asked for apart


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


class Spool:
    """A temporary folder for copies of batches; local batches are read where they lie.

    A copy is sparse: column chunks stand at their own offsets and the rest is a hole, so the
    footer stays valid and row numbers stay the batch's.
    """

    def __init__(self, store: Store) -> None:
        """Open a spool for batches of one store."""
        self._store = store
        self._count = 0
        self.in_place = store.is_local
        self._scratch = ExitStack()
        self.folder = self._scratch.enter_context(open_scratch())
        self.fetched_bytes = 0

    def __enter__(self) -> Self:
        """Return the spool; it is removed on exit."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Remove every copy."""
        self._scratch.close()

    def materialise(
        self, path: str, etag: str, size: int, rows: tuple[int, int], columns: Collection[str]
    ) -> Path:
        """Return a local file with the row groups of `rows` (half-open) and the columns named.

        Raises:
            BatchChangedError: the batch is not the one that was listed.
        """
        if self._store.is_local:
            found = self._store.stat(path)
            if found is None or found.etag != etag:
                url = self._store.absolute_url(path)
                raise BatchChangedError(f"{url} changed after it was listed; run again", url=url)
            return Path(self._store.root) / path
        self._count += 1
        local = self.folder / f"{self._count:06d}.parquet"
        tail = _tail(self._store, path, etag=etag, size=size)
        metadata = pq.read_metadata(pa.BufferReader(tail))
        ranges = list(_merged(sorted(_chunks(metadata, rows, columns))))
        self.fetched_bytes += len(tail) + self._store.download(
            path, local, ranges, etag=etag, size=size
        )
        with local.open("r+b") as file:
            file.seek(size - len(tail))
            file.write(tail)
        return local

    def release(self, local: Path) -> None:
        """Remove one copy before the spool ends; a batch read in place stays."""
        if local.parent == self.folder:
            local.unlink(missing_ok=True)

    def with_binary_text(
        self, local: Path, rows: tuple[int, int], columns: Collection[str]
    ) -> Path:
        """Return a copy of some columns, text as binary, for batches with text that is not UTF-8.

        DuckDB refuses to read such a column; read as bytes, each bad value is one reject. Row
        groups outside of `rows` (half-open) hold only NULLs: they may not be there to read.
        """
        self._count += 1
        copy = self.folder / f"{self._count:06d}-binary.parquet"
        source = pq.ParquetFile(local)
        fields = [field for field in source.schema_arrow if field.name in columns]
        schema = pa.schema(
            [
                field.with_type(pa.large_binary() if _is_text(field.type) else field.type)
                .with_nullable(True)  # noqa: FBT003 - pyarrow's signature
                for field in fields
            ]
        )  # fmt: skip
        first = 0
        with pq.ParquetWriter(copy, schema, compression="zstd") as writer:
            for group in range(source.num_row_groups):
                size = source.metadata.row_group(group).num_rows
                if first < rows[1] and first + size > rows[0]:
                    try:
                        table = source.read_row_group(group, columns=schema.names)
                        arrays = [_as_binary(table.column(name)) for name in schema.names]
                    except pa.ArrowException as exc:
                        kind = type(exc).__name__
                        raise ContractError(f"cannot be read as bytes ({kind})") from exc
                else:
                    arrays = [pa.nulls(size, field.type) for field in schema]
                first += size
                writer.write_table(pa.table(arrays, schema=schema), row_group_size=size or 1)
        return copy


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
    wanted = {name.lower() for name in columns}
    row = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if row < rows[1] and row + group.num_rows > rows[0]:
            for index in range(group.num_columns):
                chunk = group.column(index)
                if chunk.path_in_schema.split(".")[0].lower() in wanted:
                    start = chunk.data_page_offset
                    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                        start = min(start, chunk.dictionary_page_offset)
                    yield start, start + chunk.total_compressed_size
        row += group.num_rows


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


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, also as a dictionary or as Parquet's JSON."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in text)


def _as_binary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as bytes without a look at them, for both lie alike in memory; the rest as it is."""
    if not _is_text(column.type):
        return column
    return pa.chunked_array([_bytes_of(chunk) for chunk in column.chunks], pa.large_binary())


def _bytes_of(text: pa.Array) -> pa.Array:
    if isinstance(text, pa.ExtensionArray):
        text = text.storage
    if isinstance(text, pa.DictionaryArray):
        return _bytes_of(text.dictionary).take(text.indices)
    if pa.types.is_string_view(text.type):
        return text.cast(pa.binary_view()).cast(pa.large_binary())
    alike = pa.binary() if pa.types.is_string(text.type) else pa.large_binary()
    return text.view(alike).cast(pa.large_binary())
