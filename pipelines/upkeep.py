"""Looking after an export: is its config right, is what was committed there, what is garbage."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.config import ExportConfig
from pipelines.errors import QualityError, StorageError
from pipelines.garbage import Garbage, collect_garbage, find_garbage
from pipelines.manifest import Manifest, list_generations, read_manifest
from pipelines.plan import Plan, plan_export
from pipelines.shard import preview_lines
from pipelines.storage import Store, open_store


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what, whether it is as it should be, and what was seen."""

    what: str
    ok: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify_export` found.

    Attributes:
        problems: one sentence for each thing that is not as its manifest says.
        stray: objects under data/ that no newest generation names: superseded, or of a run that
            died or is under way. They are no fault.
        deep: whether digests were read again, or sizes alone compared with a listing.
    """

    windows: int
    parts: int
    bytes: int
    records: int
    problems: tuple[str, ...]
    stray: tuple[str, ...]
    deep: bool


def verify_export(config: ExportConfig, *, deep: bool = False) -> Verification:
    """Compare committed parts and rejects with the newest manifests.

    Args:
        config: the export; only its destination is read.
        deep: read every part again and compare its digest, instead of its size in a listing.

    Raises:
        StorageError: the destination cannot be read.
        QualityError: a manifest is damaged or of a newer format.
    """
    store = open_store(config.destination.url, config.destination.storage_options)
    sizes = {
        found.path: found.size
        for prefix in ("data/", "_meta/rejects/")
        for found in store.list_objects(prefix)
    }
    manifests = [
        read_manifest(store, window, generation)
        for window, generation in sorted(list_generations(store).items())
    ]
    problems = [
        problem
        for manifest in manifests
        for problem in _problems(store, manifest, sizes, deep=deep)
    ]
    named = {part.path for manifest in manifests for part in manifest.parts}
    return Verification(
        windows=len(manifests),
        parts=len(named),
        bytes=sum(part.bytes for manifest in manifests for part in manifest.parts),
        records=sum(part.records for manifest in manifests for part in manifest.parts),
        problems=tuple(problems),
        stray=tuple(path for path in sizes if path.startswith("data/") and path not in named),
        deep=deep,
    )


def sweep_export(config: ExportConfig, *, delete: bool, grace: timedelta | None = None) -> Garbage:
    """Return what no kept generation names, and dead runs' uploads; remove it on demand.

    Args:
        config: the export; only its destination is looked at.
        delete: remove what was found; otherwise nothing is written.
        grace: instead of `destination.grace`; a shorter one is safe while no run is under way.

    Raises:
        ConfigError: the destination belongs to another export.
        QualityError: a manifest is damaged or of a newer format; nothing was removed.
        StorageError: the destination cannot be listed, read or written.
    """
    destination = config.destination
    act = collect_garbage if delete else find_garbage
    return act(
        open_store(destination.url, destination.storage_options),
        keep_generations=destination.keep_generations,
        grace_seconds=(grace or destination.grace).total_seconds(),
    )


def check_export(config: ExportConfig, *, now: datetime) -> Iterator[Finding]:
    """Yield what a run would need, one after the other: source, columns, destination.

    A probe object is written to the destination and removed again.

    Raises:
        PipelineError: something is wrong; what was yielded before is right.
    """
    plan = plan_export(config, now=now, force=True)
    if plan.mapping is None:
        yield Finding("source", ok=False, seen=f"{config.source.url} holds no readable batch")
    else:
        yield Finding("source", ok=True, seen=f"{plan.batches} batches, {plan.rows} events")
        yield Finding("mapping", ok=True, seen=plan.mapping.origin)
        fields = ", ".join(sorted(plan.mapping.fields))
        yield Finding("fields", ok=True, seen=fields)
    for batch in plan.unreadable:
        yield Finding("batch", ok=False, seen=f"{batch.path}: {batch.unreadable}")
    store = open_store(config.destination.url, config.destination.storage_options)
    probe = f"_meta/tmp/probe-{uuid.uuid4().hex}"
    if not store.create(probe, b"written by `request-logs check`\n"):
        raise StorageError(f"{store.url}: a new name is taken already", url=store.url)
    store.delete(probe)
    yield Finding("destination", ok=True, seen=f"{store.url} can be written")


def preview_export(config: ExportConfig, limit: int, *, now: datetime) -> tuple[Plan, list[bytes]]:
    """Return the plan and the first records as lines, whether committed or not; writes nothing."""
    plan = plan_export(config, now=now, force=True)
    lines: list[bytes] = []
    for window in plan.windows:
        for work in plan.shard_works(window):
            if len(lines) < limit and window.window.name != "undated":
                lines += preview_lines(work, limit - len(lines))
    return plan, lines


def _problems(
    store: Store, manifest: Manifest, sizes: dict[str, int], *, deep: bool
) -> Iterator[str]:
    for part in (*manifest.parts, *manifest.rejects):
        url = store.absolute_url(part.path)
        if part.path not in sizes:
            yield f"{url} is gone (window {manifest.window})"
        elif sizes[part.path] != part.bytes:
            yield f"{url} has {sizes[part.path]} bytes, its manifest says {part.bytes}"
        elif deep and store.sha256(part.path) != part.sha256:
            yield f"{url} has other bytes than its manifest says"
    total = sum(part.records for part in manifest.parts)
    if total != manifest.ledger.exported:
        exported = manifest.ledger.exported
        yield f"window {manifest.window}: {total} records in parts, the ledger has {exported}"
    try:
        manifest.ledger.check(f"window {manifest.window}")
    except QualityError as exc:
        yield str(exc)
