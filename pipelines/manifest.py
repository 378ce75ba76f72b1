"""Manifest and ledger: what one generation of one window holds, and the write that commits it."""

import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.create_only import is_create_only
from pipelines.deadline import Deadline
from pipelines.errors import QualityError
from pipelines.layout import MANIFESTS_PREFIX, manifest_path, parse_generation, parse_partition
from pipelines.parts import Part
from pipelines.storage import Store, StoredObject
from pipelines.windows import is_window

FORMAT_VERSION = 1  # changes when the same inputs would give other bytes or another manifest
PACKAGE = "request-log-export"
_SPLIT = ("filtered", "rejected")  # columns of the ledger that say why
_CHECKERS = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEDGER_COLUMNS = (
    "exported",
    "filtered",
    "errors_excluded",
    "superseded",
    "duplicate",
    "sampled_out",
    "rejected",
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts of events that add up: read is the sum of all other columns.

    Attributes:
        filtered_by, rejected_by: those two columns split by reason.
    """

    read: int = 0
    exported: int = 0
    filtered: int = 0
    errors_excluded: int = 0
    superseded: int = 0
    duplicate: int = 0
    sampled_out: int = 0
    rejected: int = 0
    filtered_by: Mapping[str, int] = field(default_factory=dict)
    rejected_by: Mapping[str, int] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Raise a QualityError unless the counts add up."""
        total = sum(getattr(self, column) for column in LEDGER_COLUMNS)
        splits = {name: sum(getattr(self, f"{name}_by").values()) for name in _SPLIT}
        if total != self.read or any(splits[name] != getattr(self, name) for name in _SPLIT):
            raise QualityError(
                f"{where}: the ledger does not add up: read {self.read}, "
                f"accounted for {total} ({self.as_text()}); nothing was committed"
            )

    def as_text(self) -> str:
        """The columns that are not zero, in order."""
        shown = {column: getattr(self, column) for column in LEDGER_COLUMNS}
        return ", ".join(f"{name} {value}" for name, value in shown.items() if value) or "no events"


def count_ledger(read: int, counted: Iterable[tuple[str, str, int]]) -> Ledger:
    """Return the ledger of (column, reason, events); `read` is counted apart."""
    columns: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {name: Counter() for name in _SPLIT}
    for column, reason, events in counted:
        columns[column] += events
        if column in reasons:
            reasons[column][reason] += events
    return Ledger(
        read=read,
        exported=columns["exported"],
        filtered=columns["filtered"],
        errors_excluded=columns["errors_excluded"],
        superseded=columns["superseded"],
        duplicate=columns["duplicate"],
        sampled_out=columns["sampled_out"],
        rejected=columns["rejected"],
        filtered_by=dict(sorted(reasons["filtered"].items())),
        rejected_by=dict(sorted(reasons["rejected"].items())),
    )


def add_ledgers(ledgers: Iterable[Ledger]) -> Ledger:
    """Return the sum of ledgers."""
    read, counted = 0, []
    for ledger in ledgers:
        read += ledger.read
        for column in LEDGER_COLUMNS:
            if column in _SPLIT:
                reasons = getattr(ledger, f"{column}_by")
                counted += [(column, reason, events) for reason, events in reasons.items()]
            elif getattr(ledger, column):
                counted.append((column, "", getattr(ledger, column)))
    return count_ledger(read, counted)


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """One batch as a generation read it."""

    path: str
    etag: str
    size: int
    rows: int
    ledger: Ledger
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one generation of one window holds.

    Attributes:
        run_id: the run that wrote it, by which a lost answer to its own commit is recognised.
        config: the export's config, without secrets.
        config_digest: sha256 of what in the config changes records.
        input_digest: sha256 of that and of the batches, the format, the codec and the shard cut.
        first_event_at, last_event_at: range of the exported event times, ISO 8601, or None.
        engines: versions of what made the bytes.
        etag: of the object, where this process wrote it; stands in no manifest.
    """

    destination: str
    export_name: str
    window: str
    generation: int
    run_id: str
    committed_at: str
    config: Mapping[str, Any]
    config_digest: str
    input_digest: str
    batches: tuple[ReadBatch, ...]
    parts: tuple[Part, ...]
    rejects: tuple[Part, ...]
    ledger: Ledger
    first_event_at: str | None
    last_event_at: str | None
    record_keys: tuple[str, ...] = ("input", "output", "tags")
    engines: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    etag: str = field(default="", compare=False)

    @property
    def path(self) -> str:
        """Where it lies, relative to the destination."""
        return manifest_path(self.window, self.generation)

    def to_json(self) -> bytes:
        """Return the object's bytes: Redshift's UNLOAD manifest, and ours under `export`."""
        export = {
            "format_version": self.format_version,
            "name": self.export_name,
            "window": self.window,
            "generation": self.generation,
            "run_id": self.run_id,
            "committed_at": self.committed_at,
            "config_digest": self.config_digest,
            "input_digest": self.input_digest,
            "ledger": asdict(self.ledger),
            "first_event_at": self.first_event_at,
            "last_event_at": self.last_event_at,
            "batches": [asdict(batch) for batch in self.batches],
            "parts": [
                {**asdict(part), "partition": dict(parse_partition(part.partition))}
                for part in self.parts
            ],
            "rejects": [asdict(part) for part in self.rejects],
            "engines": dict(self.engines),
            "config": dict(self.config),
        }
        document = {
            "entries": [
                {
                    "url": f"{self.destination}/{part.path}",
                    "mandatory": True,
                    "meta": {"content_length": part.bytes, "record_count": part.records},
                }
                for part in self.parts
            ],
            "schema": {
                "elements": [{"name": key, "type": {"base": "super"}} for key in self.record_keys]
            },
            "meta": {
                "content_length": sum(part.bytes for part in self.parts),
                "record_count": sum(part.records for part in self.parts),
            },
            "author": {"name": PACKAGE, "version": package_version()},
            "export": export,
        }
        return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def parse_manifest(data: bytes, *, destination: str, where: str) -> Manifest:
    """Return the manifest that `to_json` wrote.

    Raises:
        QualityError: it is none of this package's, or of a newer format.
    """
    try:
        document = json.loads(data)
        export = document["export"]
        if export["format_version"] > FORMAT_VERSION:
            raise QualityError(
                f"{where}: manifest of format {export['format_version']}, which is newer than "
                f"this package's {FORMAT_VERSION}; upgrade {PACKAGE}"
            )
        return Manifest(
            destination=destination,
            export_name=export["name"],
            window=export["window"],
            generation=export["generation"],
            run_id=export["run_id"],
            committed_at=export["committed_at"],
            config=export["config"],
            config_digest=export["config_digest"],
            input_digest=export["input_digest"],
            batches=tuple(
                ReadBatch(**{**batch, "ledger": Ledger(**batch["ledger"])})
                for batch in export["batches"]
            ),
            parts=tuple(
                Part(**{**part, "partition": _folder(part["path"])}) for part in export["parts"]
            ),
            rejects=tuple(Part(**part) for part in export["rejects"]),
            ledger=Ledger(**export["ledger"]),
            first_event_at=export["first_event_at"],
            last_event_at=export["last_event_at"],
            record_keys=tuple(element["name"] for element in document["schema"]["elements"]),
            engines=export["engines"],
            format_version=export["format_version"],
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise QualityError(f"{where}: not a manifest of {PACKAGE} ({type(exc).__name__})") from exc


def newest_manifests(store: Store) -> dict[str, StoredObject]:
    """Return the newest manifest of each window that has one; other objects are passed over."""
    newest: dict[str, StoredObject] = {}
    for found in store.list_objects(MANIFESTS_PREFIX, ".json"):  # by path, which is by generation
        window = found.path.split("/")[2]
        if parse_generation(found.path) is not None and (window in newest or is_window(window)):
            newest[window] = found
    return newest


def list_generations(store: Store) -> dict[str, int]:
    """Return the newest generation of each window that has one; other objects are passed over."""
    return {w: parse_generation(found.path) or 0 for w, found in newest_manifests(store).items()}


def read_manifest(store: Store, window: str, generation: int) -> Manifest:
    """Return one generation of one window."""
    path = manifest_path(window, generation)
    where = store.absolute_url(path)
    return parse_manifest(store.read_bytes(path), destination=store.url, where=where)


def commit(store: Store, manifest: Manifest, *, deadline: Deadline | None = None) -> Manifest:
    """Commit a generation by one create-only write.

    Where the store has no such write, the manifest is looked for before the write and read again
    after it. That finds a rival who was earlier or later, not one in the very same moment.

    Args:
        store: the destination.
        manifest: of the next generation.
        deadline: checked last of all before the write.

    Returns:
        The manifest that is committed: this one, or that of a rival who was first.

    Raises:
        QualityError: the ledger does not add up, a part is not there at its size, or it is too
            late; nothing was committed.
    """
    manifest.ledger.check(f"window {manifest.window}")
    with ThreadPoolExecutor(_CHECKERS) as pool:
        for problem in pool.map(partial(_problem, store), (*manifest.parts, *manifest.rejects)):
            if problem:
                raise QualityError(f"{problem}; nothing was committed")
    if deadline is not None:
        deadline.check()
    create_only = is_create_only(store)
    if not create_only and store.stat(manifest.path) is not None:
        return read_manifest(store, manifest.window, manifest.generation)
    etag = store.create(manifest.path, manifest.to_json())
    if etag and create_only:
        return replace(manifest, etag=etag)
    # A create whose answer was lost and that was sent again finds its own manifest.
    return read_manifest(store, manifest.window, manifest.generation)


def _problem(store: Store, part: Part) -> str:
    """What is wrong with a part that is to be committed, '' when nothing is."""
    found = store.stat(part.path)
    if found is not None and found.size == part.bytes:
        return ""
    seen = "is not there" if found is None else f"has {found.size} bytes"
    return f"{store.absolute_url(part.path)} {seen}, {part.bytes} were written"


def engine_versions(compression: str) -> dict[str, str]:
    """Return versions of what makes bytes, for the manifest."""
    return {
        PACKAGE: package_version(),
        "duckdb": duckdb.__version__,
        "pyarrow": pa.__version__,
        "python": platform.python_version(),
        "codec": compression,
    }


def package_version() -> str:
    """Return this package's version, `0+source` when it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "0+source"


def iso_instant(microseconds: int | None) -> str | None:
    """Return ISO 8601 in UTC for microseconds since 1970."""
    if microseconds is None:
        return None
    instant = _EPOCH + timedelta(microseconds=microseconds)
    return instant.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _folder(path: str) -> str:
    return path.removeprefix("data/").rpartition("/")[0]
