"""The accounts of one window: what its shards wrote and counted, as a manifest with a ledger."""

import uuid
from collections import Counter
from datetime import UTC, datetime

from pipelines.errors import QualityError
from pipelines.manifest import (
    Ledger,
    Manifest,
    ReadBatch,
    add_ledgers,
    count_ledger,
    engine_versions,
    iso_instant,
)
from pipelines.owner import open_destination
from pipelines.plan import Plan, WindowPlan
from pipelines.reshape import Rules
from pipelines.shard import ShardResult
from pipelines.windows import UNDATED
from pipelines.words import say_count


def build_manifest(
    plan: Plan, window: WindowPlan, rules: Rules, results: list[ShardResult]
) -> Manifest:
    """Return the manifest of what a window's shards wrote and counted.

    Raises:
        QualityError: a batch's ledger does not add up.
    """
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


def check_rejects(
    plan: Plan,
    window: WindowPlan,
    rules: Rules,
    manifest: Manifest,
    results: list[ShardResult],
) -> None:
    """Refuse a window with too many rejects; `undated` holds nothing else, so of all events.

    Raises:
        QualityError: names the reasons, each with a located example.
    """
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
    store = open_destination(plan.config)
    where = [store.absolute_url(part.path) for part in manifest.rejects]
    are = "is a reject" if rejected == 1 else "are rejects"
    raise QualityError(
        f"window {window.window.name}: {rejected} of {say_count(total, 'event')} {are}, more than "
        f"max_reject_ratio {limit:g} allows: {'; '.join(reasons)}. Nothing was committed; raise it "
        f"to commit all the same; the rejects are in {', '.join(where)}"
    )
