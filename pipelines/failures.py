"""Windows that failed, noted at the destination until a later generation is committed.

A note is for people who look, and decides nothing: the next run tries the window again either way.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime

from pipelines.config import ExportConfig
from pipelines.errors import StorageError
from pipelines.layout import FAILURES_PREFIX
from pipelines.manifest import list_generations
from pipelines.owner import open_destination
from pipelines.storage import Store, StoredObject
from pipelines.summary import WindowSummary

logger = logging.getLogger(__name__)

_READERS = 16
_PATH = re.compile(rf"{FAILURES_PREFIX}([^/]+)/([0-9]{{8}})-([0-9]{{8}}T[0-9]{{6}}Z)-[^/]+\.json")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the newest try of a window's next generation came to nothing.

    Attributes:
        generation: the one that was not committed.
        failed_at: the moment that the run was given, ISO 8601.
        error: as the run said it.
    """

    window: str
    generation: int
    failed_at: str
    error: str


def record_failures(
    config: ExportConfig, windows: Sequence[WindowSummary], *, now: datetime
) -> None:
    """Note the windows of a run that failed, in the place of what was noted of them before."""
    failed = [
        Failure(window.window, window.generation + 1, f"{now:%Y-%m-%dT%H:%M:%SZ}", window.error)
        for window in windows
        if window.status == "failed"
    ]
    if not failed:
        return
    store = open_destination(config)
    try:
        names = {failure.window for failure in failed}
        before = [found for found, window, _ in _notes(store) if window in names]
        for failure in failed:
            data = json.dumps(asdict(failure), ensure_ascii=False).encode() + b"\n"
            stamp = f"{failure.generation:08d}-{now:%Y%m%dT%H%M%SZ}"
            name = f"{stamp}-{hashlib.sha256(data).hexdigest()[:8]}"
            path = f"{FAILURES_PREFIX}{failure.window}/{name}.json"
            store.create(path, data)
            before = [found for found in before if found.path != path]
        for found in before:
            store.delete(found.path)
    except StorageError as exc:
        logger.info("`status` will not know of the windows that failed: %s", exc)


def read_failures(store: Store) -> dict[str, Failure]:
    """Return the newest failure of each window that has one, committed since or not."""
    newest = {window: found for found, window, _ in _notes(store)}
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda found: store.read_bytes(found.path), newest.values())
        return {note["window"]: Failure(**note) for note in map(json.loads, read)}


def outdated_failures(store: Store) -> list[StoredObject]:
    """Return the notes of generations that are committed by now."""
    if not (notes := list(_notes(store))):
        return []
    newest = list_generations(store)
    return [found for found, window, generation in notes if generation <= newest.get(window, 0)]


def _notes(store: Store) -> Iterator[tuple[StoredObject, str, int]]:
    """Each note with its window and generation, by path, so the newest of a window last."""
    for found in store.list_objects(FAILURES_PREFIX):
        if match := _PATH.fullmatch(found.path):
            yield found, match[1], int(match[2])
