"""Committed records, read through the manifests: one whole generation of each window.

A listing of `data/` shows parts that are superseded or not committed yet; what is read here is what
the manifests name, compared with their digests. Nothing is held but what is being read, so memory
does not grow with the export. Only the manifests and parts that are asked for are read:

    import datasets
    import pipelines

    june = pipelines.open_export("s3://bucket/exports/calls", partitions={"model": "gpt-4o"})
    files = list(june.data_files)
    dataset = datasets.load_dataset("json", data_files=files, split="train", streaming=True)

Where payloads differ from record to record, Hugging Face finds no common columns in the files. Then
take the values as text, with digests checked:

    def texts():
        for batch in june.reader():
            yield from batch.to_pylist()

    dataset = datasets.IterableDataset.from_generator(texts)
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from pipelines.committed_window import (
    Choice,
    CommittedWindow,
    list_all_generations,
    partition_keys_of,
)
from pipelines.config import ExportConfig
from pipelines.errors import ConfigError
from pipelines.layout import MANIFESTS_PREFIX, OWNER_PATH, canonical_value
from pipelines.manifest import Manifest, add_ledgers, read_manifest
from pipelines.owner import check_owner, open_destination
from pipelines.record_batches import open_reader
from pipelines.storage import Store, open_store
from pipelines.windows import ALL, UNDATED, TimeWindow, parse_window
from pipelines.words import say_count

_MANIFESTS_AHEAD: Final = 16


class CommittedExport:
    """What is committed of an export, at the time it was opened; nothing is read until asked."""

    def __init__(
        self,
        store: Store,
        generations: Mapping[str, list[int]],
        choice: Choice,
        bounds: tuple[str, str] | None,
    ) -> None:
        """Use `open_export`; `bounds` are the first and the last window, chosen or not."""
        self._bounds = bounds
        self._store = store
        self._generations = generations
        self._choice = choice

    @property
    def url(self) -> str:
        """The destination."""
        return self._store.url

    def why_empty(self) -> str:
        """Say why no record is read: no window, no part or nothing exported, with the counts."""
        if not self._generations:
            if self._bounds is None:
                return "nothing is committed there yet"
            return "none of its windows, {} to {}, was chosen".format(*self._bounds)
        ledgers = [window.ledger for window in self.iter_windows()]
        if not ledgers:
            return self._why_no_generation()
        ledger = add_ledgers(ledgers)
        held = say_count(len(ledgers), "window holds", "windows hold")
        if not ledger.exported:
            found = (
                f"; of {say_count(ledger.read, 'event')} {ledger.as_text()}"
                if ledger.read
                else ", no event"
            )
            return f"{held} no record{found}"
        wanted = ", ".join(f"{key}={value}" for key, value in self._choice.partitions.items())
        return f"{held} {say_count(ledger.exported, 'record')}, none of them in {wanted}"

    def _why_no_generation(self) -> str:
        if self._choice.generation is not None:
            return f"no window has a generation {self._choice.generation}"
        first = min(
            read_manifest(self._store, window, numbers[0]).committed_at
            for window, numbers in self._generations.items()
        )
        return f"no window was committed by then; of what is kept the first was at {first}"

    def iter_windows(self) -> Iterator[CommittedWindow]:
        """Yield the windows by time; their manifests are read a few ahead, and not kept."""
        for manifest in self._read_manifests():
            if manifest is not None:
                yield CommittedWindow(self._store, manifest, self._choice)

    @cached_property
    def windows(self) -> tuple[CommittedWindow, ...]:
        """All windows by time; `iter_windows` holds only one."""
        return tuple(self.iter_windows())

    @property
    def data_files(self) -> tuple[str, ...]:
        """Every part, as any reader opens it; what is read later may since be replaced."""
        return tuple(path for window in self.iter_windows() for path in window.data_files)

    def lines(self) -> Iterator[bytes]:
        """Yield every record's line without its line end: by window, part and place.

        Raises:
            WindowChangedError: a window was exported again while it was read; start again, or
                read window by window, and begin that one again.
            QualityError: a part is damaged or lost, or its generation is no longer kept.
            StorageError: the store refused.
        """
        for window in self.iter_windows():
            yield from window.lines()

    def __iter__(self) -> Iterator[Any]:
        """Yield every record, parsed; order and errors as those of `lines`."""
        for window in self.iter_windows():
            yield from window.records()

    def reader(self, rows: int = 2048) -> pa.RecordBatchReader:
        """Stream records as Arrow; order and errors as those of `lines`.

        Columns: input, output, tags and extra fields as large_string, the JSON text as recorded
        (null where a window has no such field); the partition keys as string; window. A name that
        is there already gets a `_`. To know the columns, every manifest is read once more.

        Args:
            rows: in one batch at most; about 1 MiB of text is a batch too.

        Raises:
            ConfigError: `rows` is less than one.
        """
        if rows < 1:
            raise ConfigError(f"rows: {rows} is no size of a batch; give 1 or more")
        keys: dict[str, None] = {}
        partition_keys: dict[str, None] = {}
        for window in self.iter_windows():
            keys |= dict.fromkeys(window.record_keys)
            partition_keys |= dict.fromkeys(partition_keys_of(window.parts))
        keys = keys or dict.fromkeys(("input", "output", "tags"))
        texts = (found for window in self.iter_windows() for found in window.texts())
        return open_reader(texts, tuple(keys), tuple(partition_keys), rows)

    def relation(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """Return `reader()` as a relation of DuckDB; like any stream it is read once."""
        return con.from_arrow(self.reader())

    def _read_manifests(self) -> Iterator[Manifest | None]:
        """Read them by window, the next ones while one is in use."""
        pool = ThreadPoolExecutor(_MANIFESTS_AHEAD)
        waiting: deque[Future[Manifest | None]] = deque()
        try:
            for found in sorted(self._generations.items()):
                if len(waiting) == _MANIFESTS_AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(self._choice.read, self._store, *found))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def open_export(
    place: str | Path | ExportConfig,
    *,
    storage_options: Mapping[str, Any] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    partitions: Mapping[str, str | None] | None = None,
    as_of: datetime | None = None,
    generation: int | None = None,
) -> CommittedExport:
    """Return what an export has committed, the newest generation of each window.

    Args:
        place: the destination's URL or path, or the export's config.
        storage_options: for a URL on S3, as in a config.
        start: choose the whole windows that overlap `[start, end)`.
        end: the first instant that is not wanted.
        partitions: Hive keys and values, such as `{"model": "gpt-4o"}`; None is NULL. Only parts
            with all of them are read.
        as_of: read, of each window, the newest generation committed then or before; windows
            without one are left out.
        generation: read this generation of each window.

    Raises:
        ConfigError: nothing was exported there, or an argument does not fit what was.
        StorageError: the destination cannot be read.
    """
    store = _open_place(place, storage_options)
    start, end, as_of = _utc("start", start), _utc("end", end), _utc("as_of", as_of)
    if start is not None and end is not None and start >= end:
        raise ConfigError(f"start {start.isoformat()} is not before end {end.isoformat()}")
    if as_of is not None and generation is not None:
        raise ConfigError("as_of and generation both choose generations; give one of them")
    generations = list_all_generations(store)
    if not generations and store.stat(OWNER_PATH) is None:
        raise ConfigError(
            f"{store.url}: no export here: there is neither {OWNER_PATH} nor anything below "
            f"{MANIFESTS_PREFIX}; give the destination of an export, the folder above its data/, "
            f"or export to it first"
        )
    bounds = (min(generations), max(generations)) if generations else None
    if start is not None or end is not None:
        generations = _within(generations, start, end, store.url)
    if generation is not None:
        _check_generation(generation, generations)
    wanted = {key: _partition_value(value) for key, value in (partitions or {}).items()}
    found = CommittedExport(store, generations, Choice(wanted, as_of, generation), bounds)
    if wanted:  # an unknown key is refused now, by the first window that has keys
        any(window.ledger.exported for window in found.iter_windows())
    return found


def _open_place(
    place: str | Path | ExportConfig, storage_options: Mapping[str, Any] | None
) -> Store:
    if not isinstance(place, ExportConfig):
        return open_store(str(place), storage_options)
    if storage_options is not None:
        raise ConfigError("storage_options: those of the config's destination are used")
    check_owner(place)
    return open_destination(place)


def _utc(name: str, instant: datetime | None) -> datetime | None:
    if instant is None:
        return None
    if not isinstance(instant, datetime):
        raise ConfigError(f"{name}: {instant!r} is no datetime")
    if instant.utcoffset() is None:
        raise ConfigError(f"{name}: {instant.isoformat()} has no time zone; give one, such as UTC")
    return instant.astimezone(UTC)


def _within(
    generations: Mapping[str, list[int]], start: datetime | None, end: datetime | None, url: str
) -> dict[str, list[int]]:
    """Those whose windows overlap `[start, end)`."""
    if ALL.name in generations:
        raise ConfigError(
            f"{url}: this export has no windows to choose from by start and end: all of its "
            f"records are in one, `all`"
        )
    chosen = {}
    for name, found in generations.items():
        window = parse_window(name)
        if (
            isinstance(window, TimeWindow)
            and (start is None or window.end > start)
            and (end is None or window.start < end)
        ):
            chosen[name] = found
    return chosen


def _check_generation(generation: int, generations: Mapping[str, list[int]]) -> None:
    for window, found in generations.items():
        if generation not in found and window != UNDATED.name:
            raise ConfigError(
                f"generation {generation}: window {window} has generations {found[0]} to "
                f"{found[-1]}; choose windows with start and end, or a time with as_of"
            )


def _partition_value(value: object) -> str | None:
    return None if value is None else canonical_value(str(value))
