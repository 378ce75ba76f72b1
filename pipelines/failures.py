"""Windows that failed, noted at the destination for people who look.

A note decides nothing: the next run tries the window again either way. It counts as long as the
window would be written from the same inputs, and goes with the next commit or failure.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from pipelines.errors import StorageError
from pipelines.layout import FAILURES_PREFIX
from pipelines.owner import open_destination
from pipelines.plan import TO_DO, Plan
from pipelines.storage import Store, StoredObject
from pipelines.summary import WindowSummary

logger = logging.getLogger(__name__)

_REQUESTS = 16  # sent at once
_PATH = re.compile(rf"{FAILURES_PREFIX}([^/]+)/([0-9]{{8}})-[^/]+\.json")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the newest try of a window's next generation came to nothing.

    Attributes:
        generation: the one that was not committed.
        input_digest: of what it would have been made.
        failed_at: the moment that the run was given, ISO 8601.
        error: as the run said it.
    """

    window: str
    generation: int
    input_digest: str
    failed_at: str
    error: str


def record_failures(plan: Plan, windows: Sequence[WindowSummary]) -> None:
    """Note the windows that a run tried in vain, and remove the notes that it made outdated.

    Args:
        plan: the run's.
        windows: what came of them; those that were not tried are no news.
    """
    digests = {w.window.name: w.input_digest for w in plan.windows if w.status in TO_DO}
    failed = [
        Failure(
            window=window.window,
            generation=window.generation + 1,
            input_digest=digests[window.window],
            failed_at=f"{plan.now:%Y-%m-%dT%H:%M:%SZ}",
            error=window.error,
        )
        for window in windows
        if window.status == "failed" and window.tried and window.window in digests
    ]
    settled = {window.window for window in windows if window.status == "committed"}
    settled |= {failure.window for failure in failed}
    if not settled:
        return
    store = open_destination(plan.config)
    try:
        outdated = {found.path for found, window, _ in _notes(store) if window in settled}
        with ThreadPoolExecutor(_REQUESTS) as pool:
            outdated -= set(pool.map(lambda failure: _write(store, failure), failed))
            list(pool.map(store.delete, sorted(outdated)))
    except StorageError as exc:
        logger.info("`status` may not know of the windows that failed: %s", exc)


def read_failures(store: Store) -> dict[str, Failure]:
    """Return the newest failure of each window that has a note; one that is damaged is none."""
    newest = {window: found for found, window, _ in _notes(store)}
    with ThreadPoolExecutor(_REQUESTS) as pool:
        read = pool.map(lambda found: _read(store, found), newest.values())
        return {failure.window: failure for failure in read if failure is not None}


def outdated_failures(store: Store, newest: Mapping[str, int]) -> Iterator[StoredObject]:
    """Yield the notes of generations that are committed by now."""
    for found, window, generation in _notes(store):
        if generation <= newest.get(window, 0):
            yield found


def _write(store: Store, failure: Failure) -> str:
    """Write a note, unless it is there, and return its path."""
    data = json.dumps(asdict(failure)).encode() + b"\n"
    digest = hashlib.sha256(data).hexdigest()[:8]
    stamp = re.sub(r"[-:]", "", failure.failed_at)
    path = f"{FAILURES_PREFIX}{failure.window}/{failure.generation:08d}-{stamp}-{digest}.json"
    store.create(path, data)
    return path


def _read(store: Store, found: StoredObject) -> Failure | None:
    try:
        note = json.loads(store.read_bytes(found.path))
        return Failure(
            window=str(note["window"]),
            generation=int(note["generation"]),
            input_digest=str(note["input_digest"]),
            failed_at=str(note["failed_at"]),
            error=str(note["error"]),
        )
    except (StorageError, ValueError, TypeError, KeyError) as exc:
        # Gone since the listing, say: a run that settles the window removes its note.
        logger.info("passing over %s (%s)", store.absolute_url(found.path), type(exc).__name__)
        return None


def _notes(store: Store) -> Iterator[tuple[StoredObject, str, int]]:
    """Each note with its window and generation, by path, so the newest of a window last."""
    for found in store.list_objects(FAILURES_PREFIX):
        if match := _PATH.fullmatch(found.path):
            yield found, match[1], int(match[2])
