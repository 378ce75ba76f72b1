"""Copies of batches whose text is not UTF-8: DuckDB refuses to read it, and reads bytes instead."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ContractError
from pipelines.sources.columns import BINARY, TEXT, Column, Columns, bytes_column, is_text


def columns_of_copy(columns: Columns, marked: Collection[str]) -> Columns:
    """Return the columns of a copy that `copy_as_bytes` made of a batch with these columns."""
    bytes_type = str(pa.large_binary())
    found = [
        Column(column.name, BINARY, bytes_type) if column.family == TEXT else column
        for column in columns.all
    ]
    return Columns((*found, *(Column(bytes_column(m), BINARY, bytes_type) for m in sorted(marked))))


def copy_as_bytes(
    local: Path,
    copy: Path,
    rows: tuple[int, int],
    columns: Collection[str],
    fetched: Collection[str],
) -> list[str]:
    """Copy some columns of a batch, text as binary, so that each bad value is one reject.

    A nested value with bad text in it becomes NULL, and the column `bytes_column` beside it then
    holds what it was, as bytes. Row numbers stay the batch's.

    Args:
        local: the batch, or a sparse copy of it.
        copy: where to write.
        rows: half-open range; row groups outside of it hold only NULLs.
        columns: what to copy.
        fetched: columns that are there to be read; others hold only NULLs.

    Returns:
        The nested columns that have a `bytes_column`.

    Raises:
        ContractError: the batch cannot be read.
    """
    try:
        source = pq.ParquetFile(local)
        fields = [field for field in source.schema_arrow if field.name in columns]
        nested = [f.name for f in fields if pa.types.is_nested(f.type) and f.name in fetched]
        kinds = {f.name: pa.large_binary() if is_text(f.type) else f.type for f in fields}
        kinds |= {bytes_column(name): pa.large_binary() for name in nested}
        schema = pa.schema(kinds)
        with pq.ParquetWriter(copy, schema, compression="zstd") as writer:
            for size, table in _row_groups(source, rows, [f.name for f in fields], fetched):
                arrays = {kind.name: pa.nulls(size, kind.type) for kind in schema}
                for name, chunks in table.items():
                    column = _whole(chunks)
                    if is_text(column.type):
                        arrays[name] = _bytes_of(column)
                    elif pa.types.is_nested(column.type):
                        arrays[name], arrays[bytes_column(name)] = _parted(column)
                    else:
                        arrays[name] = column
                writer.write_table(pa.table(arrays, schema=schema), row_group_size=size or 1)
    except pa.ArrowException as exc:
        raise ContractError(f"cannot be read as bytes ({type(exc).__name__})") from exc
    return nested


def _row_groups(
    source: pq.ParquetFile, rows: tuple[int, int], columns: list[str], fetched: Collection[str]
) -> Iterator[tuple[int, dict[str, pa.ChunkedArray]]]:
    """Rows of each row group, and those of its columns that are at hand."""
    first = 0
    present = [name for name in columns if name in fetched]
    for number in range(source.num_row_groups):
        size = source.metadata.row_group(number).num_rows
        wanted = first < rows[1] and first + size > rows[0]
        table = source.read_row_group(number, columns=present) if wanted else None
        yield size, {} if table is None else {name: table.column(name) for name in present}
        first += size


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    array = column.combine_chunks()
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)


def _bytes_of(text: pa.Array) -> pa.Array:
    """Text as bytes without a look at them, for both lie alike in memory."""
    if isinstance(text, pa.ExtensionArray):
        text = text.storage
    if isinstance(text, pa.DictionaryArray):
        return _bytes_of(text.dictionary).take(text.indices)
    if pa.types.is_string_view(text.type):
        return text.cast(pa.binary_view()).cast(pa.large_binary())
    alike = pa.binary() if pa.types.is_string(text.type) else pa.large_binary()
    return text.view(alike).cast(pa.large_binary())


def _parted(nested: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The values without bad text, NULL in place of the others, and those others as bytes."""
    bad = set(_bad_rows(nested, 0, len(nested)))
    if not bad:
        return nested, pa.nulls(len(nested), pa.large_binary())
    kept = pa.array([None if row in bad else row for row in range(len(nested))], pa.int64())
    others = [_rendered(nested[row]) if row in bad else None for row in range(len(nested))]
    return nested.take(kept), pa.array(others, pa.large_binary())


def _bad_rows(nested: pa.Array, start: int, end: int) -> Iterator[int]:
    """Rows in which text somewhere is not UTF-8, found by halves: they are few."""
    try:
        # Not a slice: that is checked with all that its children hold.
        nested.take(pa.array(range(start, end), pa.int64())).validate(full=True)
    except pa.ArrowInvalid:
        if end - start == 1:
            yield start
            return
        middle = (start + end) // 2
        yield from _bad_rows(nested, start, middle)
        yield from _bad_rows(nested, middle, end)


def _rendered(value: pa.Scalar) -> bytes:
    """A nested value as JSON, but for the text's bytes, which stay as they are."""
    if not value.is_valid:
        return b"null"
    if isinstance(value, pa.ExtensionScalar | pa.DictionaryScalar):
        return _rendered(value.value)
    if is_text(value.type):
        text: bytes = value.as_buffer().to_pybytes()
        return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    if isinstance(value, pa.StructScalar):
        pairs = zip(value.type.names, value.values(), strict=True)
        inner = (json.dumps(name).encode() + b":" + _rendered(item) for name, item in pairs)
        return b"{" + b",".join(inner) + b"}"
    if pa.types.is_nested(value.type):  # of a map: its keys and values as pairs
        return b"[" + b",".join(_rendered(item) for item in value.values) + b"]"
    return json.dumps(value.as_py(), default=str).encode()
