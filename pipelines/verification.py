"""Is what was committed still there, and how to mend it."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from pipelines.config import ExportConfig
from pipelines.errors import PipelineError, QualityError
from pipelines.export import export_window, plan_run
from pipelines.garbage import clean_up
from pipelines.layout import (
    DATA_PREFIX,
    MANIFESTS_PREFIX,
    REJECTS_PREFIX,
    parse_generation,
    parse_part,
)
from pipelines.manifest import Manifest, list_generations, read_manifest
from pipelines.owner import check_owner, open_destination
from pipelines.plan import TO_DO
from pipelines.states import StateLog
from pipelines.storage import Store
from pipelines.summary import WindowSummary, summarise
from pipelines.windows import is_window
from pipelines.words import say_count

_READERS = 16


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify_export` found.

    Attributes:
        problems: one sentence for each thing that is not as its manifest says.
        broken: names of the windows whose parts or rejects are not all as committed.
        stray: parts under data/ that no newest generation names: superseded, or of a run that
            died or is under way. They are no fault.
        deep: whether digests were read again, or sizes alone compared with a listing.
    """

    windows: int
    parts: int
    bytes: int
    records: int
    problems: tuple[str, ...]
    broken: tuple[str, ...]
    stray: tuple[str, ...]
    deep: bool


def verify_export(config: ExportConfig, *, deep: bool = False) -> Verification:
    """Compare committed parts and rejects with the newest manifests.

    Args:
        config: the export; only its destination is read.
        deep: read every part again and compare its digest, instead of its size in a listing.

    Raises:
        ConfigError: the destination belongs to another export.
        StorageError: the destination cannot be read.
    """
    check_owner(config)
    store = open_destination(config)
    sizes = {
        found.path: found.size
        for prefix in (DATA_PREFIX, REJECTS_PREFIX)
        for found in store.list_objects(prefix)
    }
    newest = sorted(list_generations(store).items())
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(lambda found: _read(store, *found), newest))
    manifests = [found for found in read if isinstance(found, Manifest)]
    problems = [found for found in read if isinstance(found, str)]
    broken = []
    for manifest in manifests:
        own = list(_problems(config, store, manifest, sizes, deep=deep))
        problems += own
        broken += [manifest.window] if own else []
    named = {part.path for manifest in manifests for part in manifest.parts}
    unnamed = [path for path in sizes if path.startswith(DATA_PREFIX) and path not in named]
    problems += [
        f"{store.absolute_url(path)} is no part of this package, and readers of data/ would read it"
        for path in unnamed
        if parse_part(path) is None
    ]
    problems += [
        f"{store.absolute_url(found.path)} is no manifest of this package"
        for found in store.list_objects(MANIFESTS_PREFIX)
        if parse_generation(found.path) is None or not is_window(found.path.split("/")[2])
    ]
    if not newest:
        problems.append(f"nothing is committed at {store.url}")
    return Verification(
        windows=len(newest),
        parts=len(named),
        bytes=sum(part.bytes for manifest in manifests for part in manifest.parts),
        records=sum(part.records for manifest in manifests for part in manifest.parts),
        problems=tuple(problems),
        broken=tuple(broken),
        stray=tuple(path for path in unnamed if parse_part(path) is not None),
        deep=deep,
    )


def repair_export(
    config: ExportConfig, *, now: datetime, deep: bool = False
) -> tuple[Verification, tuple[WindowSummary, ...]]:
    """Export again every window whose parts are not as committed, where the source still has it.

    A repaired window is a new generation; its parts have the same bytes where the inputs are the
    same, under another attempt's name where a damaged object holds the name.

    Returns:
        What was found before, and a summary of each broken window: committed, or with an error
        that says why it could not be repaired.

    Raises:
        PipelineError: nothing could be verified or planned.
    """
    found = verify_export(config, deep=deep)
    if not found.broken:
        return found, ()
    plan = plan_run(config, now=now, force=True)
    planned = {window.window.name: window for window in plan.windows}
    log = StateLog(open_destination(config))
    summaries = []
    for name in found.broken:
        window = planned.get(name)
        if window is None:
            error = "it is not due, or on another grid than the config's"
            summaries.append(WindowSummary(name, "failed", error=error))
            continue
        try:
            summary = export_window(plan, window, on_commit=log.add)
            if window.status not in TO_DO and not summary.error:
                summary = replace(summary, error=f"{window.status}: {window.detail}")
        except PipelineError as exc:
            summary = replace(summarise(plan, window), status="failed", error=str(exc))
        summaries.append(summary)
    log.flush()
    clean_up(config, [summary.window for summary in summaries if summary.status == "committed"])
    return found, tuple(summaries)


def _read(store: Store, window: str, generation: int) -> Manifest | str:
    """The manifest, or what is wrong with it."""
    try:
        return read_manifest(store, window, generation)
    except QualityError as exc:
        return str(exc)


def _problems(
    config: ExportConfig, store: Store, manifest: Manifest, sizes: Mapping[str, int], *, deep: bool
) -> Iterator[str]:
    if manifest.export_name != config.name:
        yield f"{store.absolute_url(manifest.path)} is of another export, {manifest.export_name!r}"
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
        found = say_count(total, "record")
        yield f"window {manifest.window}: {found} in parts, the ledger has {exported}"
    try:
        manifest.ledger.check(f"window {manifest.window}")
    except QualityError as exc:
        yield str(exc)
