"""What a run would do and why: windows, their inputs, and what is committed already."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipelines.codecs import DEFAULT_LEVELS, codec_version
from pipelines.config import ExportConfig, meaning_digest
from pipelines.errors import ConfigError
from pipelines.filters import compile_filters
from pipelines.inputs import WindowInput, batch_range, cut_shards, folder_of, grid_of, list_inputs
from pipelines.manifest import FORMAT_VERSION, Manifest, list_generations, read_manifest
from pipelines.reshape import compile_rules
from pipelines.scans import BatchRange, ShardWork, check_queries
from pipelines.sources.batches import (
    Batch,
    list_batches,
    open_source,
    read_batches,
    read_columns,
)
from pipelines.sources.mapping import EventMapping, check_same_contract, resolve_mapping
from pipelines.storage import Store, open_store
from pipelines.windows import ALL, UNDATED, TimeWindow, Window, microseconds

Status = Literal[
    "missing",
    "late batch",
    "changed batch",
    "changed config",
    "forced",
    "up to date",
    "source expired",
    "blocked",
]
TO_DO: tuple[Status, ...] = ("missing", "late batch", "changed batch", "changed config", "forced")
SHARD_BYTES = 256 * 1024**2  # of compressed row groups: about 1 GB of JSON
_MANIFEST_READERS = 16


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """One window: what it would read, and why it is or is not to be written.

    Attributes:
        detail: the batches or the problem behind the status, in words.
        batches: the window's inputs by path.
        shards: ranges of rows, cut from batch bytes and row groups alone.
        committed: the newest generation, None when there is none.
        unreadable: batches left out because they cannot be read (on_unreadable_batch: skip).
        events: rows of the row groups to read, at least the window's events.
        bytes: compressed bytes of those row groups.
    """

    window: Window
    status: Status
    detail: str
    batches: tuple[Batch, ...]
    shards: tuple[tuple[BatchRange, ...], ...]
    input_digest: str
    committed: Manifest | None = None
    unreadable: tuple[Batch, ...] = ()
    lost_events: int = 0

    @property
    def generation(self) -> int:
        """The generation that a commit would write."""
        return self.committed.generation + 1 if self.committed else 1

    @property
    def events(self) -> int:
        """Rows of the row groups to read, at least the window's events."""
        return sum(entry.rows[1] - entry.rows[0] for shard in self.shards for entry in shard)

    @property
    def bytes(self) -> int:
        """Compressed bytes of the row groups to read."""
        return sum(entry.bytes for shard in self.shards for entry in shard)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of one export would do at one moment.

    Attributes:
        mapping: None when the source has no readable batch.
        batches: how many were found.
        rows: events in all of them.
        windows: in order of time, `undated` last.
        unreadable: batches that block windows.
    """

    config: ExportConfig
    now: datetime
    mapping: EventMapping | None = None
    config_digest: str = ""
    batches: int = 0
    rows: int = 0
    windows: tuple[WindowPlan, ...] = ()
    unreadable: tuple[Batch, ...] = field(default=())

    @property
    def to_do(self) -> tuple[WindowPlan, ...]:
        """The windows that a run would write."""
        return tuple(window for window in self.windows if window.status in TO_DO)

    def shard_works(self, window: WindowPlan) -> list[ShardWork]:
        """Return the work of each shard of a window."""
        if self.mapping is None:
            return []
        start, end = _bounds(self.config, window.window)
        return [
            ShardWork(
                config=self.config,
                mapping=self.mapping,
                now=self.now,
                window=window.window,
                start=start,
                end=end,
                digest=window.input_digest[:16],
                shard=number,
                ranges=ranges,
            )
            for number, ranges in enumerate(window.shards)
        ]


def plan_export(
    config: ExportConfig,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
) -> Plan:
    """Find what a run at `now` would export and why; writes nothing.

    Args:
        config: the export.
        now: the moment, aware UTC; decides which windows are due and what `last` means.
        start: with `end`, chooses whole windows of the grid; both or neither.
        end: the end of the last of them.
        force: plan windows that are up to date too.
        rebuild_from_remaining: plan windows too of which a batch is gone, and lose its events.

    Raises:
        ConfigError: the config does not fit the source.
        ContractError: batches do not fit the mapping.
        StorageError: source or destination cannot be read.
    """
    check_places(config)
    _check_range(config, start, end)
    files = open_source(config.source)
    found = list(list_batches(config.source, files, start, end))
    if not found:
        return Plan(config, now)
    columns = read_columns(files, found)
    if columns is None:
        unreadable = tuple(
            Batch(e.path, e.etag, e.size, unreadable="no readable Parquet footer") for e in found
        )
        return Plan(config, now, batches=len(found), unreadable=unreadable)
    mapping = resolve_mapping(config.source, columns)
    if config.window is not None and "requested_at" not in mapping.fields:
        raise ConfigError("window: the source maps no field 'requested_at'")
    compile_rules(config, mapping, now=now)
    batches = []
    for batch in read_batches(config.source, files, mapping, found):
        if not batch.unreadable:
            check_same_contract(mapping, columns, batch.columns, batch=batch.path)
        batches.append(batch)
    _check_queries(config, mapping, batches, now=now)
    planner = _Planner(
        config=config,
        now=now,
        mapping=mapping,
        listed={batch.path: batch.etag for batch in batches},
        config_digest=config_meaning(config, mapping, now=now),
        store=open_store(config.destination.url, config.destination.storage_options),
        force=force,
        rebuild=rebuild_from_remaining,
        unreadable=tuple(batch for batch in batches if batch.unreadable),
    )
    newest = list_generations(planner.store)
    inputs = list_inputs(config, batches, now=now, start=start, end=end, committed=newest)
    return Plan(
        config=config,
        now=now,
        mapping=mapping,
        config_digest=planner.config_digest,
        batches=len(batches),
        rows=sum(batch.rows for batch in batches),
        windows=tuple(planner.plan(inputs, newest)),
        unreadable=planner.unreadable,
    )


def _check_queries(
    config: ExportConfig, mapping: EventMapping, batches: Sequence[Batch], *, now: datetime
) -> None:
    """Let the engine check the config's expressions against the first readable batch's columns."""
    batch = next(batch for batch in batches if not batch.unreadable)
    start, end = _bounds(config, ALL)
    nothing = batch_range(0, batch, (0, 0), 0)
    check_queries(ShardWork(config, mapping, now, ALL, start, end, "", 0, (nothing,)))


def check_places(config: ExportConfig) -> None:
    """Refuse a destination inside its source, or a source inside its destination.

    Raises:
        ConfigError: they overlap.
    """
    source = open_source(config.source).store.url.rstrip("/") + "/"
    options = config.destination.storage_options
    destination = open_store(config.destination.url, options).url.rstrip("/") + "/"
    if source.startswith(destination) or destination.startswith(source):
        raise ConfigError(
            f"destination.url: {destination[:-1]} and the source {source[:-1]} overlap; "
            f"an export must not read what it writes"
        )


def config_meaning(config: ExportConfig, mapping: EventMapping, *, now: datetime) -> str:
    """Return the sha256 of all in a config that changes records or the ledger."""
    chosen = {"where", "exclude_errors", "sample", "remove_duplicates", "order_by",
              "partition_by", "extra_fields", "compression", "target_part_bytes"}  # fmt: skip
    meaning: dict[str, Any] = config.model_dump(mode="json", include=chosen)
    level = config.compression_level
    meaning["compression_level"] = DEFAULT_LEVELS[config.compression] if level is None else level
    meaning["mapping"] = mapping.meaning()
    meaning["valid_times"] = [microseconds(instant) for instant in config.source.valid_times]
    meaning["filters"] = [
        [predicate.sql, {name: str(value) for name, value in predicate.params.items()}]
        for predicate in compile_filters(config.filters, now=now)
    ]
    return meaning_digest(meaning)


@dataclass(frozen=True, slots=True)
class _Planner:
    """What is the same for every window of one plan."""

    config: ExportConfig
    now: datetime
    mapping: EventMapping
    listed: Mapping[str, str]  # ETags by path
    config_digest: str
    store: Store
    force: bool
    rebuild: bool
    unreadable: tuple[Batch, ...]

    def plan(
        self, inputs: Sequence[WindowInput], newest: Mapping[str, int]
    ) -> Iterator[WindowPlan]:
        """Yield the plan of every window; `newest` has the generation that each has committed."""

        def committed(entry: WindowInput) -> Manifest | None:
            generation = newest.get(entry.window.name)
            return read_manifest(self.store, entry.window.name, generation) if generation else None

        with ThreadPoolExecutor(_MANIFEST_READERS) as pool:
            for entry, manifest in zip(inputs, pool.map(committed, inputs), strict=True):
                if entry.batches or entry.window != UNDATED or manifest is not None:
                    yield self._plan_window(entry, manifest)

    def _plan_window(self, entry: WindowInput, committed: Manifest | None) -> WindowPlan:
        batches = tuple(batch for batch, _ in entry.batches)
        blocking = [b for b in self.unreadable if self._may_feed(b, entry.window)]
        ordered = self.config.order_by is not None
        status, detail, lost = self._status(entry, batches, committed)
        strict = self.config.source.on_unreadable_batch == "fail"
        if blocking and strict and status != "source expired":
            status, detail = "blocked", f"{blocking[0].path}: {blocking[0].unreadable}"
        return WindowPlan(
            window=entry.window,
            status=status,
            detail=detail,
            batches=batches,
            shards=tuple(cut_shards(entry.batches, SHARD_BYTES, whole=ordered)),
            input_digest=self._digest(entry.window, batches),
            committed=committed,
            unreadable=tuple(blocking),
            lost_events=lost,
        )

    def _status(
        self, entry: WindowInput, batches: Sequence[Batch], committed: Manifest | None
    ) -> tuple[Status, str, int]:
        """Status, the reason in words, and events that a rebuild would lose."""
        if committed is None:
            return "missing", "no generation is committed", 0
        was = {batch.path: batch for batch in committed.batches if not batch.unreadable}
        late = [batch.path for batch in batches if batch.path not in was]
        # Also those that no longer overlap the window, or can no longer be read.
        changed = [
            path for path, batch in was.items() if self.listed.get(path, batch.etag) != batch.etag
        ]
        gone = [batch for batch in was.values() if batch.path not in self.listed]
        lost = sum(batch.ledger.read for batch in gone)
        status: Status = "up to date"
        detail = f"generation {committed.generation}"
        if committed.config_digest != self.config_digest:
            status, detail = "changed config", "the config means something else now"
        elif committed.format_version != FORMAT_VERSION:
            status, detail = "changed config", "the package writes another format now"
        elif changed:
            status, detail = "changed batch", _named(changed)
        elif late:
            status, detail = "late batch", _named(late)
        elif not gone and committed.input_digest != self._digest(entry.window, batches):
            status, detail = "changed config", "other inputs or another codec version"
        elif self.force:
            status, detail = "forced", f"generation {committed.generation} is up to date"
        if status != "up to date" and gone and not self.rebuild:
            paths = _named([batch.path for batch in gone])
            return "source expired", f"{status}, but gone from the source: {paths}", lost
        return status, detail, lost

    def _digest(self, window: Window, batches: Sequence[Batch]) -> str:
        """sha256 of all that decides the window's bytes."""
        inputs = {
            "window": window.name,
            "config": self.config_digest,
            "format": FORMAT_VERSION,
            "codec": codec_version(self.config.compression),
            "shard_bytes": SHARD_BYTES,
            "batches": [[batch.path, batch.etag, batch.size] for batch in batches],
        }
        return meaning_digest(inputs)

    def _may_feed(self, batch: Batch, window: Window) -> bool:
        """Whether a batch that cannot be read may hold events of a window, by its date path."""
        folder = folder_of(self.config, batch)
        if folder is None or not isinstance(window, TimeWindow):
            return True
        return folder[0] < window.end and window.start < folder[1]


def _bounds(config: ExportConfig, window: Window) -> tuple[datetime, datetime]:
    """Half-open range of event times of a window, naive UTC; for `undated` the valid times."""
    low, high = config.source.valid_times
    if isinstance(window, TimeWindow):
        low, high = max(low, window.start), min(high, window.end)
    return low.replace(tzinfo=None), high.replace(tzinfo=None)


def _check_range(config: ExportConfig, start: datetime | None, end: datetime | None) -> None:
    if (start is None) != (end is None):
        raise ConfigError("start and end go together: give both or neither")
    if start is not None and config.window is None:
        raise ConfigError("start and end choose windows, and this config has no `window`")
    if config.window is not None and start is not None and end is not None:
        grid = grid_of(config)
        if grid is not None:
            grid.covering(start, end)


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}"
