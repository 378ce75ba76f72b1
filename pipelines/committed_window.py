"""One committed window: which generation, which parts, and its records as they are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pipelines.errors import ConfigError, QualityError, WindowChangedError
from pipelines.functions import nearest
from pipelines.layout import (
    MANIFESTS_PREFIX,
    manifests_prefix,
    parse_generation,
    parse_partition,
)
from pipelines.manifest import Ledger, Manifest, read_manifest
from pipelines.part_reader import PartGoneError, damaged, read_parts
from pipelines.parts import Part
from pipelines.record_batches import CutRecords
from pipelines.record_text import cut_record, parse_record
from pipelines.storage import Store
from pipelines.windows import is_window


@dataclass(frozen=True, slots=True)
class Choice:
    """Which generation of a window, and which of its parts.

    Attributes:
        partitions: values by key; parts must have them all.
        as_of: the newest generation committed then or before, in UTC; None is the newest of all.
        generation: this one.
    """

    partitions: Mapping[str, str | None]
    as_of: datetime | None
    generation: int | None

    @property
    def is_pinned(self) -> bool:
        """Return whether a newer generation is no substitute."""
        return self.as_of is not None or self.generation is not None

    def read(self, store: Store, window: str, generations: Sequence[int]) -> Manifest | None:
        """Return the manifest, with the chosen parts alone; None, where no generation fits."""
        if self.generation is not None:
            generations = [number for number in generations if number == self.generation]
        for number in reversed(generations):
            manifest = read_manifest(store, window, number)
            if self.as_of is None or datetime.fromisoformat(manifest.committed_at) <= self.as_of:
                return self.narrow(manifest)
        return None

    def narrow(self, manifest: Manifest) -> Manifest:
        """Return the manifest without its batches and without the parts of other partitions."""
        known = partition_keys_of(manifest.parts)
        for key in self.partitions if manifest.parts else ():
            if key not in known:
                keys = f"its keys are {', '.join(known)}" if known else "it has none"
                raise ConfigError(
                    f"partitions: window {manifest.window} has no partition key {key!r}"
                    f"{nearest(key, known)}; {keys}"
                )
        parts = sorted(manifest.parts, key=lambda part: part.path)
        wanted = self.partitions.items()
        chosen = (p for p in parts if wanted <= dict(parse_partition(p.partition)).items())
        return replace(manifest, parts=tuple(chosen), batches=())


class CommittedWindow:
    """One window as one generation holds it.

    When a part is gone because a newer generation came, that generation takes the place of the
    former. Attributes are those of the generation that is read now.
    """

    def __init__(self, store: Store, manifest: Manifest, choice: Choice) -> None:
        """Use `open_export`."""
        self._store = store
        self._manifest = manifest
        self._choice = choice

    @property
    def name(self) -> str:
        """`20231215T000000Z_20231216T000000Z`, `all` or `undated`."""
        return self._manifest.window

    @property
    def generation(self) -> int:
        """Counted from 1."""
        return self._manifest.generation

    @property
    def committed_at(self) -> str:
        """ISO 8601 in UTC."""
        return self._manifest.committed_at

    @property
    def manifest_url(self) -> str:
        """Where the manifest lies."""
        return self._store.absolute_url(self._manifest.path)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those of the chosen partitions, by path."""
        return self._manifest.parts

    @property
    def ledger(self) -> Ledger:
        """Of the whole window, whatever partitions were chosen."""
        return self._manifest.ledger

    @property
    def record_keys(self) -> tuple[str, ...]:
        """The keys of every record, in order."""
        return self._manifest.record_keys

    @property
    def is_newest_first(self) -> bool:
        """Return whether `order_by` put later records above earlier ones."""
        return (self._manifest.config.get("order_by") or {}).get("direction") == "desc"

    @property
    def data_files(self) -> tuple[str, ...]:
        """The parts as any reader opens them: URLs on S3, paths on a disk."""
        return tuple(self._store.location(part.path) for part in self.parts)

    def part_lines(self) -> Iterator[tuple[Part, list[bytes]]]:
        """Yield lines without their line ends, some at a time, each time of one part.

        Raises:
            WindowChangedError: a newer generation came after lines of this one were handed out.
                Forget them and call this again: it starts at the beginning of the newer one.
            QualityError: a part is damaged or lost, or its generation is no longer kept.
            StorageError: the store refused.
        """
        is_begun = False
        while True:
            former = self.generation
            try:
                for part, block in read_parts(self._store, self.parts):
                    is_begun = True
                    yield part, block[:-1].split(b"\n")
            except PartGoneError as exc:
                self._take_newest(exc)
                if is_begun:
                    raise WindowChangedError(
                        f"window {self.name} was exported again while it was read: generation "
                        f"{former} is no longer kept, the newest is {self.generation}; start again",
                        window=self.name,
                    ) from exc
            else:
                return

    def lines(self) -> Iterator[bytes]:
        """Yield every record's line without its line end, by part and place; see `part_lines`."""
        for _, lines in self.part_lines():
            yield from lines

    def records(self) -> Iterator[Any]:
        """Yield every record as `parse_record` reads it; see `part_lines`."""
        for part, lines in self.part_lines():
            for line in lines:
                try:
                    yield parse_record(line)
                except ValueError as exc:
                    raise self._no_record(part) from exc

    def texts(self) -> Iterator[CutRecords]:
        """Yield the text of the values of records as recorded; see `part_lines`."""
        for part, lines in self.part_lines():
            keys = self.record_keys
            try:
                rows = [cut_record(line, keys) for line in lines]
            except ValueError as exc:
                raise self._no_record(part) from exc
            yield CutRecords(self.name, keys, part.partition, rows)

    def _no_record(self, part: Part) -> QualityError:
        return damaged(self._store.absolute_url(part.path), "has a line that is no record")

    def _take_newest(self, gone: PartGoneError) -> None:
        """Go over to a newer generation, or say why there is none to go over to."""
        newest = list_all_generations(self._store, manifests_prefix(self.name))[self.name][-1]
        if newest == self.generation:
            raise QualityError(
                f"{gone}, and the newest generation of window {self.name} names it: export the "
                f"window again with `request-logs repair`"
            ) from gone
        if self._choice.is_pinned:
            raise QualityError(
                f"generation {self.generation} of window {self.name} is no longer kept: {gone}. "
                f"The newest is {newest}; `keep_generations` says how many are kept"
            ) from gone
        self._manifest = self._choice.narrow(read_manifest(self._store, self.name, newest))


def list_all_generations(store: Store, prefix: str = MANIFESTS_PREFIX) -> dict[str, list[int]]:
    """Return the generations of each window, in order; other objects are passed over."""
    found: dict[str, list[int]] = {}
    for entry in store.list_objects(prefix, ".json"):  # by path, which is by generation
        window, generation = entry.path.split("/")[2], parse_generation(entry.path)
        if generation is not None and (window in found or is_window(window)):
            found.setdefault(window, []).append(generation)
    return found


def partition_keys_of(parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the keys of a window's parts, in order."""
    return tuple(key for key, _ in parse_partition(parts[0].partition)) if parts else ()
