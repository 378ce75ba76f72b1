"""Garbage at a destination: what no kept generation names, and what dead runs left.

Three rules keep every reader and every run safe. What is removed is older than the grace period by
the store's clock. What a generation names stays until the manifest that pushed it out of the kept
ones is that old too. And a run commits nothing older than that (`deadline`, `parts.Reuse`), so what
is old and named by nobody when its manifests are read stays named by nobody.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from os.path import commonpath
from typing import TypeVar

from pipelines.config import ExportConfig
from pipelines.errors import PipelineError
from pipelines.failures import outdated_failures
from pipelines.layout import (
    DATA_PREFIX,
    MANIFESTS_PREFIX,
    REJECTS_PREFIX,
    SCRATCH_PREFIX,
    PartName,
    parse_generation,
    parse_part,
    parse_rejects,
    window_prefix,
)
from pipelines.manifest import list_generations, read_manifest
from pipelines.owner import open_destination
from pipelines.storage import Store, StoredObject

logger = logging.getLogger(__name__)

_REQUESTS = 16  # sent at once
_FEW_WINDOWS = 100  # for more, all manifests and parts are listed
_LOOK_BACK = 8  # generations by which the partitions of a window are known
_PLACES = (DATA_PREFIX, REJECTS_PREFIX)
_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may be removed, or was.

    Attributes:
        objects: parts, rejects and probes, by path.
        leftovers: unfinished uploads of dead runs; on a local disk temporary files.
        foreign: paths among parts and rejects that are not named as this package names them; they
            are left alone.
    """

    objects: tuple[StoredObject, ...] = ()
    leftovers: int = 0
    foreign: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the objects."""
        return sum(found.size for found in self.objects)


def find_garbage(store: Store, *, keep_generations: int, grace_seconds: float) -> Garbage:
    """Return what `collect_garbage` would remove now; removes nothing.

    Args:
        store: the destination.
        keep_generations: how many of the newest generations of a window keep what they name.
        grace_seconds: how old, by the store's clock, what is removed must be at least.

    Raises:
        QualityError: a manifest is damaged or of a newer format: what it names is not known.
        StorageError: the store cannot be listed or read.
    """
    found = _Search(store, keep_generations, store.read_clock() - grace_seconds).everywhere()
    return replace(found, leftovers=store.clear_leftovers(grace_seconds, only_count=True))


def collect_garbage(
    store: Store,
    *,
    keep_generations: int,
    grace_seconds: float,
    windows: Collection[str] | None = None,
) -> Garbage:
    """Remove what no kept generation names, and what dead runs left; return what was removed.

    Args:
        store: the destination.
        keep_generations: how many of the newest generations of a window keep what they name.
        grace_seconds: how old, by the store's clock, what is removed must be at least.
        windows: names of committed windows; looks only for what is theirs, in the partitions that
            their generations name.

    Raises:
        QualityError: a manifest is damaged or of a newer format; nothing was removed.
        StorageError: the store refused; what was removed until then is gone.
    """
    search = _Search(store, keep_generations, store.read_clock() - grace_seconds)
    if windows is None or len(windows) > _FEW_WINDOWS:
        found = search.everywhere(windows)
    else:
        found = search.within(windows)
    doomed = search.still_unnamed(found.objects)
    _each(store.delete, (entry.path for entry in doomed))
    return replace(found, objects=doomed, leftovers=store.clear_leftovers(grace_seconds))


def clean_up(config: ExportConfig, windows: Collection[str]) -> None:
    """Remove the garbage of windows that a run has just committed; a failure is only logged."""
    if not windows:
        return
    destination = config.destination
    try:
        removed = collect_garbage(
            open_destination(config),
            keep_generations=destination.keep_generations,
            grace_seconds=destination.grace.total_seconds(),
            windows=windows,
        )
    except PipelineError as exc:
        logger.warning(
            "the clean-up after the commits failed, a later one makes up for it: %s", exc
        )
    else:
        logger.debug("removed %d objects, %d leftovers", len(removed.objects), removed.leftovers)


class _Search:
    """One search for garbage; each manifest is read once.

    Windows go by their prefix, the instant they start at, which is what names of parts have.
    """

    def __init__(self, store: Store, keep_generations: int, oldest: float) -> None:
        self._store = store
        self._keep = keep_generations
        self._oldest = oldest  # what is younger than this instant stays
        self._named: dict[str, frozenset[str]] = {}  # by path of the manifest

    def everywhere(self, windows: Collection[str] | None = None) -> Garbage:
        """List all parts and rejects; `windows` narrows what is looked at among them."""
        chosen = None if windows is None else {window_prefix(window) for window in windows}
        old: list[StoredObject] = []
        foreign: list[str] = []
        for found in chain.from_iterable(map(self._store.list_objects, _PLACES)):
            name = _parse(found.path)
            if name is None:
                foreign.append(found.path)
            elif found.modified_at < self._oldest and (
                chosen is None or name.window_prefix in chosen
            ):
                old.append(found)
        # On a disk these are the temporary files, which `clear_leftovers` knows.
        scratch = () if self._store.is_local else self._list((SCRATCH_PREFIX,))
        notes: Iterable[StoredObject] = ()
        if windows is None:
            notes = outdated_failures(self._store, list_generations(self._store))
        others = [found for found in (*scratch, *notes) if found.modified_at < self._oldest]
        return Garbage((*self.still_unnamed(old), *others), foreign=tuple(foreign))

    def within(self, windows: Collection[str]) -> Garbage:
        """List the parts and rejects of a few windows."""
        generations: dict[str, list[str]] = defaultdict(list)
        for found in self._list(f"{MANIFESTS_PREFIX}{window}/" for window in sorted(windows)):
            if parse_generation(found.path):
                generations[_window_of(found.path)].append(found.path)
        newest = {window: found[-_LOOK_BACK:] for window, found in generations.items()}
        self._read_names(tuple(chain.from_iterable(newest.values())))
        places = {
            place
            for window, manifests in newest.items()
            for place in _places(window, self._read_names(manifests))
        }
        prefixes = {window_prefix(window) for window in windows}
        old = [
            found
            for found in self._list(sorted(places))
            if (name := _parse(found.path)) is not None
            and name.window_prefix in prefixes
            and found.modified_at < self._oldest
        ]
        return Garbage(self.still_unnamed(old))

    def still_unnamed(self, objects: Collection[StoredObject]) -> tuple[StoredObject, ...]:
        """Return those that no generation names which is kept now, or was just before."""
        prefixes = {name.window_prefix for found in objects if (name := _parse(found.path))}
        named = self._read_names(self._protected(prefixes))
        return tuple(found for found in objects if found.path not in named)

    def _protected(self, prefixes: Collection[str]) -> list[str]:
        """Paths of the manifests, of windows with these prefixes, whose parts must stay."""
        places: Iterable[str] = (MANIFESTS_PREFIX,)
        if len(prefixes) <= _FEW_WINDOWS:
            places = sorted(_manifests_of(prefix) for prefix in prefixes)
        generations: dict[str, list[StoredObject]] = defaultdict(list)
        for found in self._list(places):
            window = _window_of(found.path)
            if parse_generation(found.path) and window_prefix(window) in prefixes:
                generations[window].append(found)
        return [path for found in generations.values() for path in self._kept(found)]

    def _kept(self, generations: Sequence[StoredObject]) -> Iterator[str]:
        """The generations that are kept, and those that young ones pushed out of the kept."""
        for index, manifest in enumerate(generations):
            pushed_by = generations[index + self._keep :][:1]
            if not pushed_by or pushed_by[0].modified_at >= self._oldest:
                yield manifest.path

    def _read_names(self, manifests: Collection[str]) -> frozenset[str]:
        """Return the paths of all parts and rejects that these manifests name."""
        unread = [path for path in manifests if path not in self._named]
        self._named |= zip(unread, _each(self._read, unread), strict=True)
        return frozenset().union(*(self._named[path] for path in manifests))

    def _read(self, path: str) -> frozenset[str]:
        manifest = read_manifest(self._store, _window_of(path), parse_generation(path) or 0)
        return frozenset(part.path for part in (*manifest.parts, *manifest.rejects))

    def _list(self, prefixes: Iterable[str]) -> Iterator[StoredObject]:
        """Yield the objects under each prefix, in the order of the prefixes."""
        prefixes = list(prefixes)
        if len(prefixes) == 1:
            return self._store.list_objects(prefixes[0])
        listed = _each(lambda prefix: list(self._store.list_objects(prefix)), prefixes)
        return chain.from_iterable(listed)


def _parse(path: str) -> PartName | None:
    return parse_part(path) or parse_rejects(path)


def _window_of(path: str) -> str:
    """The name of the window whose manifest has this path."""
    return path.removeprefix(MANIFESTS_PREFIX).partition("/")[0]


def _manifests_of(prefix: str) -> str:
    """What the paths of the manifests of a window with this prefix begin with."""
    return f"{MANIFESTS_PREFIX}{prefix}{'/' if prefix in {'all', 'undated'} else '_'}"


def _places(window: str, named: Iterable[str]) -> Iterator[str]:
    """What to list for the parts and rejects of a window, from those that its manifests name."""
    yield f"{REJECTS_PREFIX}{window}/"
    folders = {path.rpartition("/")[0] for path in named if path.startswith(DATA_PREFIX)}
    shared = f"{commonpath(folders)}/" if folders else DATA_PREFIX
    if len(folders) > 1 and shared != DATA_PREFIX:
        yield shared
        return
    for folder in folders:
        yield f"{folder}/{window_prefix(window)}-"


def _each(act: Callable[[_A], _B], values: Iterable[_A]) -> list[_B]:
    """Return what becomes of each value, in order; the first error is raised."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(act, values))
