"""Looking after an export: its config, what would come out, garbage and the caches."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.config import ExportConfig
from pipelines.copies import with_losers
from pipelines.errors import ConfigError, PipelineError, QualityError
from pipelines.garbage import Garbage, collect_garbage, find_garbage
from pipelines.owner import check_owner, check_places, open_destination
from pipelines.plan import Plan, plan_export
from pipelines.scratch import open_scratch
from pipelines.shard import preview_lines
from pipelines.sources.batches import Batch
from pipelines.sources.index import open_index
from pipelines.sources.listing import why_no_batch
from pipelines.sources.mapping import EventMapping
from pipelines.spans import folder_of
from pipelines.states import open_states
from pipelines.storage import open_store
from pipelines.windows import UNDATED
from pipelines.words import say_count


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what, whether it is as it should be, and what was seen."""

    what: str
    ok: bool
    seen: str


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
    check_owner(config)
    destination = config.destination
    act = collect_garbage if delete else find_garbage
    return act(
        open_store(destination.url, destination.storage_options),
        keep_generations=destination.keep_generations,
        grace_seconds=(grace or destination.grace).total_seconds(),
    )


def check_export(config: ExportConfig, *, now: datetime) -> Iterator[Finding]:
    """Yield what a run would need, one after the other: source, columns, destination.

    A place that cannot be reached keeps no other from being looked at. A probe object is written to
    the destination and removed again.

    Raises:
        ConfigError: the config does not fit its source, or the destination is another export's.
    """
    check_places(config)
    try:
        check_owner(config)
    except ConfigError:
        raise
    except PipelineError as exc:
        with open_scratch() as folder:  # a plan asks the destination what is known already
            elsewhere = config.destination.model_copy(update={"url": str(folder)})
            yield from _check_source(config.model_copy(update={"destination": elsewhere}), now)
        yield Finding("destination", ok=False, seen=str(exc))
    else:
        yield from _check_source(config, now)
        yield _try_to_write(config)


def _check_source(config: ExportConfig, now: datetime) -> Iterator[Finding]:
    """Whether the source can be read and its batches fit the config."""
    try:
        plan = plan_export(config, now=now, force=True)
    except ConfigError:
        raise
    except PipelineError as exc:
        what = "destination" if isinstance(exc, QualityError) else "source"
        yield Finding(what, ok=False, seen=str(exc))
        return
    if plan.mapping is None:
        why = f", as {why_no_batch(config.source)}" if not plan.batches else ""
        yield Finding("source", ok=False, seen=f"{config.source.url} holds no readable batch{why}")
    else:
        batches = say_count(plan.batches, "batch", "batches")
        yield Finding("source", ok=True, seen=f"{batches}, {say_count(plan.rows, 'event')}")
        yield from _check_fields(config, plan.mapping, plan.inputs.first_batch)
    for batch in plan.unreadable:
        yield Finding("batch", ok=False, seen=f"{batch.path}: {batch.unreadable}")


def _try_to_write(config: ExportConfig) -> Finding:
    """Whether the destination takes an object."""
    store = open_destination(config)
    probe = f"_meta/tmp/probe-{uuid.uuid4().hex}"
    try:
        if not store.create(probe, b"written by `request-logs check`\n"):
            return Finding(
                "destination", ok=False, seen=f"{store.url}: a new name is taken already"
            )
        store.delete(probe)
    except PipelineError as exc:
        return Finding("destination", ok=False, seen=str(exc))
    return Finding("destination", ok=True, seen=f"{store.url} can be written")


def _check_fields(config: ExportConfig, mapping: EventMapping, batch: Batch) -> Iterator[Finding]:
    """Which fields the first batch has a column for, and whether its path has the date."""
    columns = set(batch.columns.names)
    mapped = {name: field.column for name, field in sorted(mapping.fields.items())}
    absent = [name for name, column in mapped.items() if column and column not in columns]
    found = sorted({*mapped, *mapping.derived}.difference(absent))
    yield Finding("mapping", ok=True, seen=mapping.origin)
    yield Finding("fields", ok=True, seen=", ".join(found))
    if absent:
        yield Finding("no column", ok=True, seen=f"{', '.join(absent)}: null in {batch.path}")
    if config.source.date_path is not None:
        dated = folder_of(config, batch) is not None
        seen = f"{config.source.date_path} {'fits' if dated else 'does not fit'} {batch.path}"
        yield Finding("date_path", ok=dated, seen=seen)


def preview_export(config: ExportConfig, limit: int, *, now: datetime) -> tuple[Plan, list[bytes]]:
    """Return the plan and the first records as lines, whether committed or not; writes nothing."""
    plan = plan_export(config, now=now, force=True)
    lines: list[bytes] = []
    for window in plan.windows:
        if len(lines) == limit or window.window == UNDATED:
            break
        for work in with_losers(plan.shard_works(window)):
            if len(lines) < limit:
                lines += preview_lines(work, limit - len(lines))
    return plan, lines


@dataclass(frozen=True, slots=True)
class IndexState:
    """The caches at a destination: batches in the index, windows with a state, what was removed."""

    batches: int
    unreadable: int
    windows: int
    removed_segments: int


def rebuild_index(config: ExportConfig, *, now: datetime, rebuild: bool) -> IndexState:
    """Bring the batch index and the cache of window states up to date.

    Args:
        config: the export.
        now: the moment.
        rebuild: remove the caches first, and read every footer and newest manifest again.

    Raises:
        PipelineError: source or destination cannot be read, or belong to another export.
    """
    check_owner(config)
    store = open_destination(config)
    removed = 0
    if rebuild:
        removed = open_index(store).clear() + open_states(store).clear()
    plan = plan_export(config, now=now, remember=True)
    windows = sum(window.committed is not None for window in plan.windows)
    readable = plan.batches - len(plan.unreadable)
    return IndexState(readable, len(plan.unreadable), windows, removed)
