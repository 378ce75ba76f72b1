"""What is committed, window by window, without reading every manifest at every run."""

import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.engine import engine_errors, read_table, statement
from pipelines.errors import StorageError
from pipelines.layout import parse_generation
from pipelines.manifest import Manifest, newest_manifests, read_manifest
from pipelines.segments import SegmentCache
from pipelines.storage import Store, StoredObject

logger = logging.getLogger(__name__)

FOLDER = "_meta/windows"
_READERS = 16
_WINDOWS_AT_ONCE = 500
_BATCH = pa.struct({"path": pa.string(), "etag": pa.string(), "read": pa.int64()})
SCHEMA = pa.schema(
    {
        "window": pa.string(),
        "generation": pa.int64(),
        "etag": pa.string(),
        "config_digest": pa.string(),
        "input_digest": pa.string(),
        "format_version": pa.int64(),
        "batches": pa.list_(_BATCH),
        "summary": pa.string(),
    },
    metadata={"version": "2"},
)


@dataclass(frozen=True, slots=True)
class Committed:
    """The newest generation of one window, as far as planning and reporting need it.

    Attributes:
        summary: ledger, sizes and paths as JSON text, which `describe` reads.
    """

    window: str
    generation: int
    config_digest: str
    input_digest: str
    format_version: int
    summary: str

    def describe(self) -> dict[str, Any]:
        """Return ledger, bytes, raw_bytes, partitions, parts and rejects (relative paths)."""
        found: dict[str, Any] = json.loads(self.summary)
        return found


def open_states(store: Store) -> SegmentCache:
    """Return the cache of window states of a destination."""
    return SegmentCache(store, FOLDER, SCHEMA)


def state_rows(manifests: Iterable[Manifest]) -> pa.Table:
    """Return the cache's rows of manifests."""
    return pa.Table.from_pylist([_state_row(manifest) for manifest in manifests], schema=SCHEMA)


@dataclass(frozen=True, slots=True)
class States:
    """What is committed.

    Attributes:
        committed: by window.
        files: Parquet segments that say, beside that, which batches each window read; the
            connection's table `states` says in which of their rows.
    """

    committed: Mapping[str, Committed] = field(default_factory=dict)
    files: Sequence[str] = ()


def load_states(
    con: duckdb.DuckDBPyConnection, store: Store, folder: Path, *, remember: bool
) -> States:
    """Find the newest generation of each window; read only unknown manifests.

    Args:
        con: gets the table `states`.
        store: the destination.
        folder: a new one on this machine, for the cache's segments.
        remember: add what had to be read to the cache.
    """
    newest = newest_manifests(store)
    if not newest:
        return States()
    copies = open_states(store).copy_to(folder, remember=remember)
    found = {
        "window": pa.array(newest, pa.string()),
        "generation": [parse_generation(entry.path) for entry in newest.values()],
        "etag": [entry.etag for entry in newest.values()],
    }
    con.register("newest", pa.table(found))
    unknown = sorted(newest.keys() - _committed_windows(con, copies.files).keys())
    with ThreadPoolExecutor(_READERS) as pool:
        for at in range(0, len(unknown), _WINDOWS_AT_ONCE):
            windows = unknown[at : at + _WINDOWS_AT_ONCE]
            read = pool.map(partial(_read, store), windows, [newest[name] for name in windows])
            copies.add(state_rows(read))
    copies.merge()
    return States(_committed_windows(con, copies.files), copies.files)


def _committed_windows(
    con: duckdb.DuckDBPyConnection, files: Sequence[str]
) -> dict[str, Committed]:
    """Make the table `states` of the cache's rows for the newest manifests."""
    names = ", ".join(f"states.{item.name}" for item in fields(Committed))
    with engine_errors("looking windows up in their cache"):
        con.execute(statement("plan_states"), {"states": files})
        rows = con.execute(f"select {names} from states").fetchall()  # noqa: S608 - our own names
    return {row[0]: Committed(*row) for row in rows}


def paths_read(con: duckdb.DuckDBPyConnection, states: States, windows: Sequence[str]) -> pa.Table:
    """Return the paths of the batches that the newest generations of some windows read."""
    if not states.committed:
        return pa.table({"path": pa.array([], pa.string())})
    with engine_errors("looking up what windows read"):
        params = {"states": states.files, "windows": windows}
        return read_table(con, statement("plan_paths_read"), params)


class StateLog:
    """Adds windows to the cache as they are committed, many in one segment."""

    def __init__(self, store: Store) -> None:
        """Write nothing yet."""
        self._cache = open_states(store)
        self._rows: list[pa.Table] = []
        self._lock = threading.Lock()  # windows may be written side by side

    def add(self, manifest: Manifest) -> None:
        """Take note of a commit."""
        with self._lock:
            if manifest.etag:  # without, the next run reads it
                self._rows.append(state_rows([manifest]))
            is_full = len(self._rows) >= _WINDOWS_AT_ONCE
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Write what was noted; a cache that cannot be written is no reason to fail."""
        with self._lock:
            rows, self._rows = self._rows, []
        try:
            if rows:
                self._cache.add(pa.concat_tables(rows))
        except StorageError as exc:
            logger.warning("the next run reads %d manifests again: %s", len(rows), exc)


def _read(store: Store, window: str, found: StoredObject) -> Manifest:
    """The manifest as it is now; its ETag is the listing's."""
    generation = parse_generation(found.path) or 0
    return replace(read_manifest(store, window, generation), etag=found.etag)


def _state_row(manifest: Manifest) -> dict[str, Any]:
    return {
        "window": manifest.window,
        "generation": manifest.generation,
        "etag": manifest.etag,
        "config_digest": manifest.config_digest,
        "input_digest": manifest.input_digest,
        "format_version": manifest.format_version,
        "batches": [
            {"path": batch.path, "etag": batch.etag, "read": batch.ledger.read}
            for batch in manifest.batches
            if not batch.unreadable
        ],
        "summary": json.dumps(describe_manifest(manifest), ensure_ascii=False),
    }


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return what `Committed.describe` does, from the manifest itself."""
    return {
        "ledger": asdict(manifest.ledger),
        "bytes": sum(part.bytes for part in manifest.parts),
        "raw_bytes": sum(part.raw_bytes for part in manifest.parts),
        "partitions": len({part.partition for part in manifest.parts}),
        "parts": [part.path for part in manifest.parts],
        "rejects": [part.path for part in manifest.rejects],
        "manifest": manifest.path,
    }
