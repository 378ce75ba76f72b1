"""What a run would do and why: windows, their inputs, and what is committed already."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pipelines.codecs import codec_version
from pipelines.config import ExportConfig, meaning_digest
from pipelines.engine import Engine
from pipelines.errors import ConfigError, ContractError
from pipelines.inputs import (
    Difference,
    Inputs,
    WindowInput,
    batch_range,
    cut_shards,
    find_differences,
    find_inputs,
    grid_of,
    number_of,
    row_ranges,
)
from pipelines.manifest import FORMAT_VERSION
from pipelines.meaning import window_meanings
from pipelines.owner import check_owner, check_places, open_destination
from pipelines.reshape import compile_rules
from pipelines.scans import check_queries, open_source_engine
from pipelines.sources.batches import Batch
from pipelines.sources.index import open_index
from pipelines.sources.mapping import EventMapping
from pipelines.spans import bounds_of, check_span, folder_of, may_feed
from pipelines.states import Committed, load_states, paths_read
from pipelines.survey import survey_source
from pipelines.windows import (
    ALL,
    UNDATED,
    TimeWindow,
    Window,
    format_duration,
    parse_window,
)
from pipelines.work import ShardWork

Status = Literal[
    "missing", "late batch", "changed batch", "changed config", "forced",
    "up to date", "source expired", "blocked",
]  # fmt: skip
TO_DO: tuple[Status, ...] = ("missing", "late batch", "changed batch", "changed config", "forced")
MAX_WINDOWS = 200_000  # hourly for 22 years
SHARD_BYTES = 256 * 1024**2  # of compressed row groups: about 1 GB of JSON
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """One window: what it would read, and why it is or is not to be written.

    Attributes:
        detail: the batches or the problem behind the status, in words.
        input: how many batches, and their rows and bytes; `Plan.batches_of` names them.
        config_digest: sha256 of what in the config changes this window's records.
        input_digest: sha256 of all that decides the window's bytes.
        committed: the newest generation, None when there is none.
        unreadable: batches left out because they cannot be read (on_unreadable_batch: skip).
        lost_events: events of the newest generation whose batches are gone.
    """

    window: Window
    status: Status
    detail: str
    input: WindowInput
    config_digest: str
    input_digest: str
    committed: Committed | None = None
    unreadable: tuple[Batch, ...] = ()
    lost_events: int = 0

    @property
    def generation(self) -> int:
        """The generation that a commit would write."""
        return self.committed.generation + 1 if self.committed else 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of one export would do at one moment.

    Attributes:
        force, rebuild_from_remaining: as `plan_export` got them.
        mapping: None when the source has no readable batch.
        batches: how many were found.
        windows: in order of time, `undated` last.
        unreadable: batches that block windows.
    """

    config: ExportConfig
    now: datetime
    force: bool = False
    rebuild_from_remaining: bool = False
    mapping: EventMapping | None = None
    batches: int = 0
    windows: tuple[WindowPlan, ...] = ()
    unreadable: tuple[Batch, ...] = ()
    inputs: Inputs = field(default_factory=Inputs, repr=False)

    @property
    def to_do(self) -> tuple[WindowPlan, ...]:
        """The windows that a run would write."""
        return tuple(window for window in self.windows if window.status in TO_DO)

    @property
    def rows(self) -> int:
        """Events in all readable batches."""
        return self.inputs.rows

    @property
    def events_at_most(self) -> int:
        """A bound of the events that a run would read; a batch may feed several windows."""
        return min(self.rows, sum(window.input.rows for window in self.to_do))

    @property
    def shards(self) -> int:
        """About how many shards a run would have."""
        sizes = [1 if self.config.order_by else window.input.bytes for window in self.to_do]
        return sum(max(1, -(-size // SHARD_BYTES)) for size in sizes)

    def batches_of(self, window: WindowPlan) -> tuple[Batch, ...]:
        """Return the window's inputs by path."""
        return self.inputs.batches_of(window.window)

    def shard_works(self, window: WindowPlan) -> list[ShardWork]:
        """Return the work of each shard of a window; cut from bytes and row groups alone."""
        if self.mapping is None:
            return []
        start, end = bounds_of(self.config, window.window)
        ranges = row_ranges(self.batches_of(window), window.window)
        ordered = self.config.order_by is not None
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
                ranges=shard,
            )
            for number, shard in enumerate(cut_shards(ranges, SHARD_BYTES, whole=ordered))
        ]


def plan_export(
    config: ExportConfig,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
    remember: bool = False,
) -> Plan:
    """Find what a run at `now` would export and why.

    Args:
        config: the export.
        now: the moment, aware UTC; decides which windows are due and what `last` means.
        start: with `end`, chooses whole windows of the grid; both or neither.
        end: the end of the last of them.
        force: plan windows that are up to date too.
        rebuild_from_remaining: plan windows too of which a batch is gone, and lose its events.
        remember: add to the caches at the destination what had to be read; otherwise nothing is
            written.

    Raises:
        ConfigError: the config does not fit the source.
        ContractError: batches do not fit the mapping.
        StorageError: source or destination cannot be read.
    """
    check_places(config)
    span = check_span(config, start, end)
    check_owner(config)
    store = open_destination(config)
    plan = Plan(config, now, force, rebuild_from_remaining)
    with (
        open_source_engine(config) as engine,
        TemporaryDirectory(dir=engine.folder) as temporary,
    ):
        con, folder = engine.con, Path(temporary)
        states = load_states(con, store, folder / "windows", remember=remember)
        survey = survey_source(
            con,
            config,
            open_index(store).copy_to(folder / "index", remember=remember),
            span=span,
            also=paths_read(con, states, _windows_read(config, span)),
            check=partial(_check_config, engine, config, now),
        )
        plan = replace(plan, batches=survey.listed, unreadable=survey.unreadable)
        if survey.mapping is None or survey.first is None:
            return replace(plan, windows=tuple(_without_batches(plan, states.committed, span)))
        inputs = find_inputs(con, grid_of(config), folder)
        plan = replace(plan, mapping=survey.mapping, inputs=inputs)
        meaning = window_meanings(config, survey.mapping, now=now)
        planner = _Planner(plan, states.committed, meaning)
        windows = tuple(planner.due_windows(span))
        stale = {number_of(inputs.grid, w): w.name for w in windows if planner.is_stale(w)}
        differences = find_differences(con, stale, states.files, survey.unreadable)
        plan = replace(plan, windows=tuple(planner.plan_window(w, differences) for w in windows))
        if plan.to_do and not survey.fresh:
            _check_config(engine, config, now, survey.mapping, survey.first)
    return plan


def plan_again(plan: Plan, window: WindowPlan) -> tuple[Plan, WindowPlan]:
    """Return the plan of one window made again, after a batch changed under the first one."""
    chosen = window.window
    start, end = (chosen.start, chosen.end) if isinstance(chosen, TimeWindow) else (None, None)
    again = plan_export(
        plan.config,
        now=plan.now,
        start=start,
        end=end,
        force=plan.force,
        rebuild_from_remaining=plan.rebuild_from_remaining,
    )
    found = next((w for w in again.windows if w.window == window.window), None)
    if found is None:
        name = window.window.name
        raise ContractError(f"window {name}: its batches went away while the run read them")
    return again, found


def _check_config(
    engine: Engine, config: ExportConfig, now: datetime, mapping: EventMapping, batch: Batch
) -> None:
    """Check the config against the mapping, and by the engine against one batch's columns."""
    if config.window is not None and "requested_at" not in mapping.fields:
        raise ConfigError("window: the source maps no field 'requested_at'")
    compile_rules(config, mapping, now=now)
    nothing = (batch_range(0, batch, (0, 0), 0),)
    work = ShardWork(config, mapping, now, ALL, *bounds_of(config, ALL), "", 0, nothing)
    check_queries(work, engine)


@dataclass(frozen=True, slots=True)
class _Planner:
    """What is the same for every window of one plan."""

    found: Plan
    committed: Mapping[str, Committed]
    meaning: Callable[[Window], str]
    digests: dict[Window, str] = field(default_factory=dict)

    def due_windows(self, span: tuple[datetime, datetime] | None) -> Iterator[Window]:
        """Yield the windows of a run: those of a span, or all that are due; `undated` last."""
        config, now = self.found.config, self.found.now
        grid = self.found.inputs.grid
        if grid is None or config.window is None:
            yield ALL
        elif span is not None:
            due = grid.last_due(now=now, lag=config.window.lag)
            yield from (w for w in grid.covering(*span) if due is not None and w.end <= due.end)
            # A run over chosen windows may not have listed every batch: it leaves undated alone.
            return
        elif (first := config.window.start or self._first_instant()) is not None:
            due = grid.last_due(now=now, lag=config.window.lag)
            count = 0 if due is None else (due.end - first) // grid.every
            if count > MAX_WINDOWS:
                raise ConfigError(
                    f"window.every {format_duration(grid.every)}: {count:,} windows from "
                    f"{first:%Y-%m-%d} on, and {MAX_WINDOWS:,} are allowed; set window.start or "
                    f"source.valid_times later, or take longer windows"
                )
            yield from grid.due(first, now=now, lag=config.window.lag)
        if self.found.inputs.of(UNDATED).batches or UNDATED.name in self.committed:
            yield UNDATED

    def is_stale(self, window: Window) -> bool:
        """Whether a committed window would be written otherwise now."""
        committed = self.committed.get(window.name)
        return committed is not None and committed.input_digest != self._digest(window)

    def plan_window(self, window: Window, differences: Mapping[int, Difference]) -> WindowPlan:
        """Return the plan of one window."""
        config, committed = self.found.config, self.committed.get(window.name)
        difference = differences.get(number_of(self.found.inputs.grid, window), Difference())
        status, detail = self._status(window, committed, difference)
        blocking = [batch for batch in self.found.unreadable if may_feed(config, batch, window)]
        strict = config.source.on_unreadable_batch == "fail"
        if blocking and strict and status != "source expired":
            status, detail = "blocked", f"{blocking[0].path}: {blocking[0].unreadable}"
        return WindowPlan(
            window=window,
            status=status,
            detail=detail,
            input=self.found.inputs.of(window),
            config_digest=self.meaning(window),
            input_digest=self._digest(window),
            committed=committed,
            unreadable=tuple(blocking),
            lost_events=difference.lost_events,
        )

    def _status(
        self, window: Window, committed: Committed | None, found: Difference
    ) -> tuple[Status, str]:
        """Status, and the reason in words."""
        if committed is None:
            return "missing", "no generation is committed"
        status: Status = "up to date"
        detail = f"generation {committed.generation}"
        if committed.config_digest != self.meaning(window):
            status, detail = "changed config", "the config means something else now"
            if any(item.comparator == "last" for item in self.found.config.filters):
                detail += " (`last` moves with the clock)"
        elif committed.format_version != FORMAT_VERSION:
            status, detail = "changed config", "the package writes another format now"
        elif found.changed:
            status, detail = "changed batch", _named(found.first_changed, found.changed)
        elif found.late:
            status, detail = "late batch", _named(found.first_late, found.late)
        elif not found.gone and committed.input_digest != self._digest(window):
            status, detail = "changed config", "other inputs or another codec version"
        elif self.found.force:
            status, detail = "forced", f"generation {committed.generation} is up to date"
        if status != "up to date" and found.gone and not self.found.rebuild_from_remaining:
            paths = _named(found.first_gone, found.gone)
            return "source expired", f"{status}, but gone from the source: {paths}"
        return status, detail

    def _digest(self, window: Window) -> str:
        """sha256 of all that decides the window's bytes."""
        if window not in self.digests:
            inputs = {
                "window": window.name,
                "config": self.meaning(window),
                "format": FORMAT_VERSION,
                "codec": codec_version(self.found.config.compression),
                "shard_bytes": SHARD_BYTES,
                "batches": self.found.inputs.of(window).digest,
            }
            if self.found.inputs.of(window).bytes > SHARD_BYTES and not self.found.config.order_by:
                inputs["cut"] = "even"
            self.digests[window] = meaning_digest(inputs)
        return self.digests[window]

    def _first_instant(self) -> datetime | None:
        """The first event time, start of a committed window, or of an unreadable batch's folder."""
        first_us = self.found.inputs.first_us
        firsts = [] if first_us is None else [_EPOCH + timedelta(microseconds=first_us)]
        folders = (folder_of(self.found.config, batch) for batch in self.found.unreadable)
        firsts += [folder[0] for folder in folders if folder is not None]
        # Committed windows stay in even where the batch that held their events holds them no more.
        known = (parse_window(name) for name in self.committed)
        firsts += [window.start for window in known if isinstance(window, TimeWindow)]
        return min(firsts, default=None)


def _windows_read(config: ExportConfig, span: tuple[datetime, datetime] | None) -> list[str]:
    """Names of the windows whose batches a listing of the span may leave out."""
    grid = grid_of(config)
    if span is None or grid is None or config.source.date_path is None:
        return []
    return [window.name for window in grid.covering(*span)]


def _without_batches(
    plan: Plan, found: Mapping[str, Committed], span: tuple[datetime, datetime] | None
) -> Iterator[WindowPlan]:
    """Yield the committed windows of a source of which no batch is found any more."""
    if plan.unreadable:
        return
    wants_more = plan.force or plan.rebuild_from_remaining
    status: Status = "source expired" if wants_more else "up to date"
    for name, committed in sorted(found.items()):
        window = parse_window(name)
        outside = span is not None and (
            not isinstance(window, TimeWindow)
            or not span[0] <= window.start < window.end <= span[1]
        )
        if not outside:
            yield WindowPlan(
                window=window,
                status=status,
                detail=f"generation {committed.generation}; the source holds no batch",
                input=WindowInput(),
                config_digest=committed.config_digest,
                input_digest=committed.input_digest,
                committed=committed,
            )


def _named(first: str, count: int) -> str:
    return f"{first} and {count - 1} more" if count > 1 else first
