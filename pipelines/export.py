"""Plan, run the shards of each window, commit: the one place that composes them."""

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipelines.config import ExportConfig
from pipelines.errors import (
    BatchChangedError,
    ConfigError,
    ContractError,
    PipelineError,
    QualityError,
    StorageError,
)
from pipelines.executors import InlineExecutor
from pipelines.inputs import grid_of
from pipelines.interrupts import stop_statements
from pipelines.layout import OWNER_PATH
from pipelines.manifest import (
    Ledger,
    Manifest,
    ReadBatch,
    add_ledgers,
    commit,
    count_ledger,
    engine_versions,
    iso_instant,
    read_manifest,
)
from pipelines.plan import TO_DO, Plan, WindowPlan, plan_again, plan_export
from pipelines.reshape import Rules, compile_rules
from pipelines.scans import ShardWork
from pipelines.shard import (
    Progress,
    ShardResult,
    find_duplicates,
    find_superseded,
    list_keys,
    run_shard,
    too_many_partitions,
)
from pipelines.states import StateLog
from pipelines.summary import (
    ExportSummary,
    WindowSummary,
    open_destination,
    summarise,
    summarise_manifest,
)
from pipelines.windows import UNDATED

logger = logging.getLogger(__name__)

_REPLANS = 3  # a source whose batches are overwritten all the time is not read consistently
_BROKEN_WINDOWS = 3  # failed by the store one after the other: the rest would only take their time


def run_export(
    config: ExportConfig,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
    executor: Executor | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Export every due window that is missing or whose inputs changed.

    Args:
        config: the export.
        now: the moment, aware UTC.
        start: with `end`, chooses whole windows of the grid.
        end: the end of the last of them.
        force: write windows that are up to date again.
        rebuild_from_remaining: write windows again whose batches are gone, without their events.
        executor: where shards run; by default here, one after the other.
        on_plan: called once with the plan.
        progress: called with events and bytes as lines are written, by the default executor only.

    Returns:
        A summary; windows that failed stand in it with their error, the others are committed.

    Raises:
        PipelineError: nothing could be planned.
    """
    plan = plan_run(
        config,
        now=now,
        start=start,
        end=end,
        force=force,
        rebuild_from_remaining=rebuild_from_remaining,
    )
    if on_plan is not None:
        on_plan(plan)
    log = StateLog(open_destination(config))
    summaries = []
    broken = 0
    try:
        for window in plan.windows:
            if broken >= _BROKEN_WINDOWS and window.status in TO_DO:
                error = f"not tried: the store failed the {broken} windows before"
                summaries.append(replace(summarise(plan, window), status="failed", error=error))
                continue
            try:
                summary = export_window(
                    plan, window, executor=executor, progress=progress, on_commit=log.add
                )
                broken = 0 if window.status in TO_DO else broken
            except ConfigError:
                raise
            except PipelineError as exc:
                summary = replace(summarise(plan, window), status="failed", error=str(exc))
                by_store = isinstance(exc, StorageError) and not isinstance(exc, BatchChangedError)
                broken = broken + 1 if by_store else 0
            summaries.append(summary)
    finally:
        log.flush()
    return ExportSummary(config.name, config.destination.url, plan.batches, tuple(summaries))


def plan_run(
    config: ExportConfig,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
) -> Plan:
    """Return the plan of a run that is to write, and make sure that the destination is its own.

    Raises:
        ConfigError: the destination belongs to another export, source or grid.
        ContractError: no batch is readable.
    """
    owned = check_owner(config)
    plan = plan_export(
        config,
        now=now,
        start=start,
        end=end,
        force=force,
        rebuild_from_remaining=rebuild_from_remaining,
        remember=True,
    )
    if plan.unreadable and plan.mapping is None and config.source.on_unreadable_batch == "fail":
        batch = plan.unreadable[0]
        raise ContractError(
            f"{batch.path}: {batch.unreadable}; no batch of {config.source.url} can be exported",
            batch=batch.path,
        )
    if not owned and plan.to_do:
        claim_destination(config)
    return plan


def claim_destination(config: ExportConfig) -> None:
    """Write the destination's owner record, or check that it is this export's.

    Raises:
        ConfigError: the destination belongs to another export, source or grid.
    """
    data = json.dumps(_owner(config), ensure_ascii=False, indent=1).encode() + b"\n"
    if not open_destination(config).create(OWNER_PATH, data):
        check_owner(config)


def check_owner(config: ExportConfig) -> bool:
    """Return whether the destination has an owner record, which then is this export's.

    Raises:
        ConfigError: the destination belongs to another export, source or grid.
    """
    store = open_destination(config)
    if store.stat(OWNER_PATH) is None:
        return False
    found = json.loads(store.read_bytes(OWNER_PATH))
    for key, value in _owner(config).items():
        if found.get(key) != value:
            raise ConfigError(
                f"destination.url: {store.url} belongs to another {key} ({found.get(key)!r}, this "
                f"config has {value!r}); take a new destination"
            )
    return True


def _owner(config: ExportConfig) -> dict[str, Any]:
    grid = grid_of(config)
    return {
        "export": config.name,
        "source": config.source.url,
        "grid": None
        if grid is None
        else {"every": f"{int(grid.every.total_seconds())}s", "origin": grid.origin.isoformat()},
    }


def export_window(
    plan: Plan,
    window: WindowPlan,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    on_commit: Callable[[Manifest], None] | None = None,
) -> WindowSummary:
    """Run one window's shards and commit it; a window that is not to be written is left alone.

    A batch that is overwritten or removed meanwhile makes the window be planned again.

    Args:
        plan: the run's plan.
        window: one of its windows.
        executor: where shards run; by default here, one after the other.
        progress: called with events and bytes as lines are written, by the default executor only.
        on_commit: called with the manifest when it is this run that committed the window.

    Raises:
        PipelineError: the window is not committed; what was before still is.
    """
    for _ in range(_REPLANS):
        try:
            return _export_window(plan, window, executor, progress, on_commit)
        except BatchChangedError as exc:
            logger.warning("window %s is planned again: %s", window.window.name, exc)
            plan, window = plan_again(plan, window)
    return _export_window(plan, window, executor, progress, on_commit)


def _export_window(
    plan: Plan,
    window: WindowPlan,
    executor: Executor | None,
    progress: Progress | None,
    on_commit: Callable[[Manifest], None] | None,
) -> WindowSummary:
    if window.status not in TO_DO:
        summary = summarise(plan, window)
        if window.status == "blocked":
            return replace(summary, error=f"unreadable batch {window.detail}")
        return summary
    if plan.mapping is None:
        raise ConfigError("a plan without batches has no windows to write")
    logger.info("window %s: %s (%s)", window.window.name, window.status, window.detail)
    undated = window.window == UNDATED
    rules = compile_rules(plan.config, plan.mapping, now=plan.now, undated=undated)
    works = plan.shard_works(window)
    if not undated:
        works = _with_losers(plan, rules, works, executor or InlineExecutor())
    results = list(_run(works, executor, progress))
    manifest = _manifest(plan, window, rules, results)
    _check_rejects(plan, window, rules, manifest, results)
    partitions = {part.partition for part in manifest.parts}
    if len(partitions) > plan.config.max_partitions:
        raise too_many_partitions(rules.partition_keys, plan.config.max_partitions)
    store = open_destination(plan.config)
    if not commit(store, manifest):
        logger.info("window %s: another run committed it", window.window.name)
        rival = read_manifest(store, manifest.window, manifest.generation)
        return summarise_manifest(store, rival, "committed by another run", window.status)
    if on_commit is not None:
        on_commit(manifest)
    return summarise_manifest(store, manifest, "committed", window.status)


def _with_losers(
    plan: Plan, rules: Rules, works: list[ShardWork], executor: Executor
) -> list[ShardWork]:
    """The works with the events that another copy in the window outlives."""
    if not works:
        return works
    whole = replace(works[0], ranges=_joined(works))
    losers = [(*place, rules.superseded) for place in find_superseded(whole)]
    works = [_narrowed(work, losers) for work in works]
    if plan.config.remove_duplicates != "none":
        tables = [future.result() for future in [executor.submit(list_keys, w) for w in works]]
        losers += [(*place, rules.duplicate) for place in find_duplicates(plan.config, tables)]
        works = [_narrowed(work, losers) for work in works]
    return works


def _joined(works: list[ShardWork]) -> tuple[Any, ...]:
    """The ranges of all shards, a batch cut by a shard's end made whole again."""
    ranges: list[Any] = []
    for entry in (entry for work in works for entry in work.ranges):
        if ranges and ranges[-1].number == entry.number:
            last = ranges[-1]
            rows = (last.rows[0], entry.rows[1])
            ranges[-1] = replace(last, rows=rows, bytes=last.bytes + entry.bytes)
        else:
            ranges.append(entry)
    return tuple(ranges)


def _narrowed(work: ShardWork, losers: list[tuple[int, int, int]]) -> ShardWork:
    """The work with those losers that are its own."""
    rows = {entry.number: entry.rows for entry in work.ranges}
    own = sorted(
        (batch, row, disposition)
        for batch, row, disposition in losers
        if batch in rows and rows[batch][0] <= row < rows[batch][1]
    )
    return replace(work, losers=tuple(own))


def _run(
    works: list[ShardWork], executor: Executor | None, progress: Progress | None
) -> Iterator[ShardResult]:
    """Results of the shards in order; the first error is raised."""
    if executor is None:
        for work in works:
            yield run_shard(work, progress)
        return
    futures = [executor.submit(run_shard, work) for work in works]
    try:
        for future in futures:
            yield future.result()
    except (KeyboardInterrupt, SystemExit):
        for future in futures:
            future.cancel()
        stop_statements()
        raise
    finally:
        for future in futures:
            future.cancel()


def _manifest(plan: Plan, window: WindowPlan, rules: Rules, results: list[ShardResult]) -> Manifest:
    config = plan.config
    batches = _ledgers(plan, window, rules, results)
    parts = tuple(part for result in results for part in result.parts)
    firsts = [result.first_us for result in results if result.first_us is not None]
    lasts = [result.last_us for result in results if result.last_us is not None]
    return Manifest(
        destination=open_destination(config).url,
        export_name=config.name,
        window=window.window.name,
        generation=window.generation,
        run_id=uuid.uuid4().hex,
        committed_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        config=config.model_dump(mode="json"),
        config_digest=window.config_digest,
        input_digest=window.input_digest,
        batches=batches,
        parts=tuple(sorted(parts, key=lambda part: part.path)),
        rejects=tuple(part for result in results for part in result.rejects),
        ledger=add_ledgers(batch.ledger for batch in batches),
        first_event_at=iso_instant(min(firsts, default=None)),
        last_event_at=iso_instant(max(lasts, default=None)),
        record_keys=("input", "output", "tags", *config.extra_fields),
        engines=engine_versions(config.compression),
    )


def _ledgers(
    plan: Plan, window: WindowPlan, rules: Rules, results: list[ShardResult]
) -> tuple[ReadBatch, ...]:
    """The batches that the window read, each with its ledger, and those it could not read."""
    read: Counter[int] = Counter()
    counts: Counter[tuple[int, int]] = Counter()
    for result in results:
        read.update(result.read)
        counts.update(result.counts)
    by_batch: dict[int, list[tuple[str, str, int]]] = {}
    for (number, disposition), events in counts.items():
        named = rules.dispositions[disposition]
        by_batch.setdefault(number, []).append((named.column, named.reason, events))
    batches = [
        ReadBatch(
            path=batch.path,
            etag=batch.etag,
            size=batch.size,
            rows=batch.rows,
            ledger=count_ledger(read[number], by_batch.get(number, [])),
        )
        for number, batch in enumerate(plan.batches_of(window))
    ]
    for batch in batches:
        batch.ledger.check(f"window {window.window.name}, batch {batch.path}")
    return (
        *batches,
        *(
            ReadBatch(b.path, b.etag, b.size, 0, Ledger(), unreadable=b.unreadable)
            for b in window.unreadable
        ),
    )


def _check_rejects(
    plan: Plan,
    window: WindowPlan,
    rules: Rules,
    manifest: Manifest,
    results: list[ShardResult],
) -> None:
    """Refuse a window with too many rejects; `undated` holds nothing else, so of all events."""
    rejected = manifest.ledger.rejected
    limit = plan.config.max_reject_ratio
    total = plan.rows if window.window == UNDATED else manifest.ledger.read
    if rejected <= limit * total:
        return
    reasons = []
    for reason, events in manifest.ledger.rejected_by.items():
        number = next(i for i, d in enumerate(rules.dispositions) if d.reason == reason)
        batch, row = next(r.examples[number][0] for r in results if number in r.examples)
        reasons.append(f"{reason} {events} (such as {batch} row {row})")
    raise QualityError(
        f"window {window.window.name}: {rejected} of {total} events are rejects, more than "
        f"max_reject_ratio {limit:g} allows: {'; '.join(reasons)}. "
        f"Nothing was committed"
    )
