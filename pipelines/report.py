"""What a run did, in words and tables for a terminal; no record text but a preview's."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import zstandard

from pipelines.garbage import Garbage
from pipelines.manifest import read_manifest
from pipelines.plan import TO_DO, Plan, WindowPlan
from pipelines.pull_summary import PullSummary
from pipelines.sources.listing import why_no_batch
from pipelines.storage import open_store
from pipelines.summary import ExportSummary, WindowSummary
from pipelines.verification import Verification
from pipelines.windows import UNDATED
from pipelines.words import say_count

_SHOWN_WINDOWS = 40
_SHOWN_CHARS = 300
_SHOWN_PATHS = 5
_UNITS = ("B", "kB", "MB", "GB", "TB")


def describe_run(summary: ExportSummary) -> Iterator[str]:
    """Yield the lines that tell what a run did: counts, rejects by reason, parts, manifests."""
    if not summary.batches:
        yield f"No batch at {summary.source}, as {summary.why_empty}: nothing to do."
        return
    yield from describe_unreadable(summary.unreadable)
    same = sum(window.status == "up to date" for window in summary.windows)
    if not summary.written and not summary.failed and same == len(summary.windows):
        yield f"Nothing to do: {say_count(same, 'window is', 'windows are')} up to date."
        return
    ledger = summary.ledger
    written = summary.written
    parts = sum(len(window.data_files) for window in written)
    partitions = count_partitions(written)
    stored = sum(window.bytes for window in written)
    raw = sum(window.raw_bytes for window in written)
    yield f"Export {summary.export}: {say_count(summary.batches, 'batch', 'batches')} at the source"
    yield f"  windows         {len(written)} committed, {same} up to date"
    yield f"  events          {ledger.read:,} read, {ledger.exported:,} exported"
    for column in ("filtered", "errors_excluded", "superseded", "duplicate", "sampled_out"):
        if events := getattr(ledger, column):
            yield f"  {column:<15} {events:,}{_reasons(ledger.filtered_by, column == 'filtered')}"
    reasons = _reasons(ledger.rejected_by, bool(ledger.rejected))
    yield f"  rejected        {ledger.rejected:,}{reasons}"
    yield (
        f"  parts           {parts:,} in {say_count(partitions, 'partition')}, "
        f"{size(stored)} ({size(raw)} before compression)"
    )
    yield f"  data            {summary.destination}/data/"
    if written:
        folder = f"{summary.destination}/_meta/manifests/"
        yield f"  manifests       {folder}, the last {written[-1].manifest}"
    rejects = [url for window in written for url in window.rejects]
    if rejects:
        more = f" and {len(rejects) - 1} more" if rejects[1:] else ""
        yield f"  rejects         {rejects[0]}{more}"
    yield from describe_left(summary)


def describe_unreadable(batches: Sequence[str]) -> Iterator[str]:
    """Yield a line that names batches which cannot be read; none for none."""
    if batches:
        more = f" and {len(batches) - 1} more" if len(batches) > 1 else ""
        yield f"Not readable: {batches[0]}{more}"


def describe_left(summary: ExportSummary) -> Iterator[str]:
    """Yield a line for each window that is neither committed by this run nor up to date.

    Windows that failed for one reason share a line.
    """
    for window in summary.windows:
        if window.status in ("source expired", "committed by another run"):
            said = f"{window.status}: " if window.status == "source expired" else ""
            yield f"  left alone      {window.window}: {said}{window.detail}"
    failed = (window for window in summary.windows if window.error)
    yield from (f"  FAILED          {line}" for line in describe_failures(failed))


def describe_failures(windows: Iterable[WindowSummary]) -> Iterator[str]:
    """Yield a line for each reason for which windows failed."""
    failed: dict[str, list[str]] = {}
    for window in windows:
        failed.setdefault(reason_of(window), []).append(window.window)
    for reason, names in failed.items():
        more = f" and {say_count(len(names) - 1, 'window')} more" if names[1:] else ""
        yield f"{names[0]}{more}: {reason}"


def reason_of(window: WindowSummary) -> str:
    """Return why a window was not committed, without its own name in front."""
    return window.error.removeprefix(f"window {window.window}: ")


def count_partitions(windows: Iterable[WindowSummary]) -> int:
    """Return how many partitions the committed parts of windows lie in."""
    return len({url.rpartition("/")[0] for window in windows for url in window.data_files})


def describe_plan(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan: each window with its reason, rows and bytes."""
    if not plan.batches:
        source = plan.config.source
        yield f"No batch at {source.url}, as {why_no_batch(source)}: nothing to do."
        return
    yield from describe_unreadable([f"{b.path}: {b.unreadable}" for b in plan.unreadable])
    todo = plan.to_do
    same = [window for window in plan.windows if window.status == "up to date"]
    shown = [window for window in plan.windows if window.status != "up to date"]
    for window in islice(shown, _SHOWN_WINDOWS):
        rows, noun = say_count(window.input.rows, "event").split()
        lost = say_count(window.lost_events, "event") if window.lost_events else ""
        lost = f"; a rebuild loses {lost}" if lost else ""
        yield (
            f"{window.window.name:<33}  {window.status:<14}  batches {window.input.batches:>5}  "
            f"up to {rows:>9} {noun:<6}  {size(window.input.bytes):>8}  {window.detail}{lost}"
        )
    if len(shown) > _SHOWN_WINDOWS:
        more = say_count(len(shown) - _SHOWN_WINDOWS, "more window")
        yield f"… and {more} (all of them with --json)"
    parts = sum(
        max(1, -(-window.input.bytes * 4 // plan.config.target_part_bytes))
        for window in todo
        if window.window != UNDATED and window.input.bytes
    )
    others = len(plan.windows) - len(todo) - len(same)
    left = f", {others} blocked or left alone" if others else ""
    yield (
        f"{say_count(len(todo), 'window')} to write from "
        f"{size(sum(w.input.bytes for w in todo))} of batches, at least "
        f"{say_count(parts, 'part')}; {len(same)} up to date{left}. Nothing was written."
    )


def describe_verification(found: Verification) -> Iterator[str]:
    """Yield what a verification found."""
    yield from found.problems
    how = "sizes compared, bytes not read (--deep reads them)"
    if found.deep:
        how = "bytes read and hashed"
    result = "all as committed"
    if found.problems:
        result = say_count(len(found.problems), "problem")
    yield (
        f"{say_count(found.windows, 'window')}, {say_count(found.parts, 'part')}, "
        f"{say_count(found.records, 'record')}, {size(found.bytes)}: {how}; {result}"
    )
    if found.broken:
        yield "`request-logs repair` exports broken windows again, if the source still has them."
    if found.stray:
        yield f"{say_count(len(found.stray), 'part')} under data/ not in any newest manifest"


def describe_repair(found: Verification, repaired: Sequence[WindowSummary]) -> Iterator[str]:
    """Yield what was broken, and what became of each broken window."""
    yield from found.problems
    for window in repaired:
        done = f"exported again, generation {window.generation}"
        yield f"{window.window}: {f'NOT repaired: {window.error}' if window.error else done}"
    if not found.problems:
        yield "Nothing to repair: all is as committed."
    elif not found.broken:
        yield "Nothing that an export could repair."


def describe_garbage(found: Garbage, *, deleted: bool) -> Iterator[str]:
    """Yield what a clean-up removed, or would remove."""
    verb = "Removed" if deleted else "Would remove"
    if found.objects:
        objects = say_count(len(found.objects), "object")
        yield f"{verb} {objects} that no kept generation names, {size(found.bytes)}:"
        yield from _first(entry.path for entry in found.objects)
    if found.leftovers:
        yield f"{verb} {say_count(found.leftovers, 'unfinished upload')}."
    if found.foreign:
        named = say_count(len(found.foreign), "object")
        yield f"Left alone: {named} that this package did not name:"
        yield from _first(found.foreign)
    if not found.objects and not found.leftovers:
        yield "No garbage: nothing to remove."
    elif not deleted:
        yield "Nothing was removed; --delete removes it."


def garbage_as_dict(found: Garbage, *, deleted: bool) -> dict[str, Any]:
    """Return a clean-up as plain data for `--json`."""
    return {
        "deleted": deleted,
        "objects": [entry.path for entry in found.objects],
        "bytes": found.bytes,
        "unfinished_uploads": found.leftovers,
        "foreign": list(found.foreign),
    }


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data for `--json`; batches are named where they would be read."""
    return {
        "export": plan.config.name,
        "batches": plan.batches,
        "windows": [
            {
                "window": window.window.name,
                "status": window.status,
                "detail": window.detail,
                "generation": window.generation,
                "batch_count": window.input.batches,
                "batches": [b.path for b in plan.batches_of(window)]
                if window.status in TO_DO
                else [],
                "events_at_most": window.input.rows,
                "bytes": window.input.bytes,
                "lost_events": window.lost_events,
            }
            for window in plan.windows
        ],
        "unreadable": {batch.path: batch.unreadable for batch in plan.unreadable},
    }


def _names(plan: Plan, window: WindowPlan) -> list[str]:
    return [b.path for b in plan.batches_of(window)] if window.status in TO_DO else []


def pretty_record(line: bytes) -> str:
    """Return a record indented, in its own key order, long strings cut for the eye."""
    return json.dumps(_cut(json.loads(line)), indent=2, ensure_ascii=False)


def first_record(summary: ExportSummary, storage_options: dict[str, Any]) -> bytes | None:
    """Return the first line of the first committed part; None when there is no record."""
    store = open_store(summary.destination, storage_options)
    window = next((window for window in summary.windows if window.data_files), None)
    if window is None:
        return None
    part = read_manifest(store, window.window, window.generation).parts[0]
    data = store.read_bytes(part.path)
    if part.path.endswith(".gz"):
        data = gzip.decompress(data)
    elif part.path.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data.split(b"\n", 1)[0]


def size(number: int) -> str:
    """Return a number of bytes for people: 512 B, 3.4 kB, 1.2 GB (powers of 1000)."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - a kilo
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner) for inner in value]
    if isinstance(value, str) and len(value) > _SHOWN_CHARS:
        return f"{value[:_SHOWN_CHARS]}… ({len(value):,} characters)"
    return value


def _first(paths: Iterable[str]) -> Iterator[str]:
    """The first few paths, indented, and how many more there are."""
    known = list(paths)
    yield from (f"  {path}" for path in known[:_SHOWN_PATHS])
    if (more := len(known) - _SHOWN_PATHS) > 0:
        yield f"  … and {more:,} more (all of them with --json)"


def _reasons(reasons: Any, shown: bool) -> str:  # noqa: FBT001 - private
    text = ", ".join(f"{reason} {events:,}" for reason, events in reasons.items())
    return f" ({text})" if shown and text else ""


def describe_findings(findings: Sequence[Any]) -> Iterator[str]:
    """Yield one line a finding of `check_export`."""
    for finding in findings:
        yield f"{'ok' if finding.ok else 'NOT OK':<7} {finding.what:<12} {finding.seen}"


def describe_pull(summary: PullSummary) -> Iterator[str]:
    """Yield the lines of a pull: rows, what was left out and why, and where the bundle is."""
    if not summary.read:
        yield f"Nothing to pull from {summary.export}: {summary.why_empty}."
        return
    splits = ", ".join(f"{split} {count:,}" for split, count in summary.rows.items())
    yield (
        f"{say_count(summary.total_rows, 'row')} for {summary.format}"
        f"{f' ({splits})' if len(summary.rows) > 1 else ''} from "
        f"{say_count(summary.read, 'record')} of {say_count(summary.windows, 'window')}; "
        f"about {say_count(summary.tokens_estimate, 'token')}"
    )
    for title, counts in (("left out", summary.dropped), ("repaired", summary.repairs)):
        if counts:
            found = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            yield f"  {title:<9} {found}"
    if summary.split_tag_missing:
        found = say_count(summary.split_tag_missing, "record has", "records have")
        yield f"  note      {found} no tag to split by: the opening of the conversation decides"
    for split in summary.empty_splits:
        yield f"  note      no row fell to {split}, so the bundle has no file for it"
    for file in summary.files:
        rows, noun = say_count(file["rows"], "row").split()
        yield f"  {file['path']:<28} {rows:>9} {noun:<4}  {size(file['bytes']):>9}"
    if 0 < summary.total_rows < summary.min_rows:
        yield f"  note      {summary.format} takes no fewer than {summary.min_rows:,} rows"
    if summary.files:
        there = " (it was there already)" if summary.exists else ""
        yield f"Bundle: {summary.destination}{there}"
    else:
        yield "Every record was left out, so nothing was written."
