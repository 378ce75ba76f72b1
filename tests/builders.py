"""Builders: events, batches, configs and runs; each states only what differs from a good event."""

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from pipelines.config import ExportConfig, parse_config
from pipelines.export import run_export
from pipelines.manifest import Manifest, list_generations, parse_manifest
from pipelines.manifest import read_manifest as read_generation
from pipelines.summary import ExportSummary

NOW = datetime(2024, 6, 15, 12, 0, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "requested_at": INSTANT,
        "received_at": INSTANT,
        "model": pa.string(),
        "status_code": pa.int32(),
        "request": pa.string(),
        "response": pa.string(),
        "error_message": pa.string(),
        "tags": pa.string(),
        "duration_ms": pa.int64(),
    }
)
EVENT: Mapping[str, Any] = {
    "id": "call-1",
    "requested_at": datetime(2024, 6, 1, 9, 30, tzinfo=UTC),
    "received_at": datetime(2024, 6, 1, 9, 30, 2, tzinfo=UTC),
    "model": "gpt-4o",
    "status_code": 200,
    "request": '{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}',
    "response": '{"id":"c-1","choices":[{"message":{"role":"assistant","content":"Hi"}}]}',
    "error_message": None,
    "tags": '{"prompt_id":"greet"}',
    "duration_ms": 850,
}


def event(**changes: Any) -> dict[str, Any]:
    """A good event, with changes."""
    return {**EVENT, **changes}


def events(changes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Good events with an id of their own each, with changes."""
    return [event(**{"id": f"call-{number}", **change}) for number, change in enumerate(changes)]


def schema_with(**types: pa.DataType | None) -> pa.Schema:
    """The schema of good events with other or more columns; None takes a column away."""
    kinds = {field.name: field.type for field in SCHEMA} | types
    return pa.schema({name: kind for name, kind in kinds.items() if kind is not None})


def write_batch(
    rows: Iterable[Mapping[str, Any]],
    schema: pa.Schema | None = None,
    *,
    row_group_size: int | None = None,
) -> bytes:
    """Parquet bytes of events, in the columns of a schema."""
    schema = SCHEMA if schema is None else schema
    rows = list(rows)
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
    return write_table(pa.table(columns, schema=schema), row_group_size=row_group_size)


def write_table(table: pa.Table, *, row_group_size: int | None = None) -> bytes:
    """Parquet bytes of a table."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group_size)
    return buffer.getvalue()


def unchecked_text(values: Iterable[bytes | None]) -> pa.Array:
    """A STRING column of any bytes, also such that are not UTF-8, as careless writers leave."""
    binary = pa.array(list(values), pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())


def make_config(site: Any, **changes: Any) -> ExportConfig:
    """The config of an export from a site's source to its destination; `source` is merged in."""
    sections: dict[str, dict[str, Any]] = {
        "source": {"url": site.source_url, "preset": "generic"},
        "destination": {"url": site.destination_url},
    }
    for name, section in sections.items():
        section.update({"storage_options": site.storage_options} | changes.pop(name, {}))
    document = {"name": "test-export", **sections, **changes}
    return parse_config(document, origin="test", base=Path("/"))


def export(config: ExportConfig, now: datetime = NOW, **options: Any) -> ExportSummary:
    """Run an export that commits every window of its plan."""
    summary = run_export(config, now=now, **options)
    assert not summary.failed, [window.error for window in summary.failed]
    return summary


def read_manifests(site: Any) -> list[Manifest]:
    """The newest manifest of every window, by window."""
    newest = sorted(list_generations(site.destination).items())
    return [read_generation(site.destination, *found) for found in newest]


def read_manifest(site: Any, window: str = "all") -> Manifest:
    """The newest manifest of one window."""
    return next(found for found in read_manifests(site) if found.window == window)


def read_manifest_json(site: Any, window: str = "all") -> dict[str, Any]:
    """The newest manifest of one window as the JSON it is."""
    manifest = read_manifest(site, window)
    data = site.destination.read_bytes(manifest.path)
    assert parse_manifest(data, destination=manifest.destination, where="test") == manifest
    return json.loads(data)


def read_parts(site: Any) -> Iterator[bytes]:
    """The uncompressed bytes of every committed part, in the manifests' order."""
    for manifest in read_manifests(site):
        for part in manifest.parts:
            yield unpack(part.path, site.destination.read_bytes(part.path))


def read_records(site: Any) -> list[bytes]:
    """The raw lines of all committed records, without their line ends."""
    return [line for data in read_parts(site) for line in split_lines(data)]


def read_rejects(site: Any) -> list[dict[str, Any]]:
    """All committed rejects, parsed."""
    return [
        json.loads(line)
        for manifest in read_manifests(site)
        for part in manifest.rejects
        for line in split_lines(gzip.decompress(site.destination.read_bytes(part.path)))
    ]


def split_lines(data: bytes) -> list[bytes]:
    r"""Lines at `\n` alone, each of which must be ended by one."""
    assert data.endswith(b"\n"), "a file ends with a line end"
    return data[:-1].split(b"\n")


def unpack(path: str, data: bytes) -> bytes:
    """What a part holds, by the end of its name."""
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data
