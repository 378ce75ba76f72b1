"""What came of a run: window by window, and in total."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.manifest import Ledger, Manifest, add_ledgers
from pipelines.owner import open_destination
from pipelines.plan import Plan, WindowPlan
from pipelines.sources.listing import why_no_batch
from pipelines.states import describe_manifest
from pipelines.storage import Store

NOT_TRIED = "not tried: "


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """What came of one window.

    Attributes:
        status: the plan's, or `committed`, or `committed by another run`.
        data_files: the committed parts as readers open them, paths on a disk and URLs on S3.
        manifest: URL of the manifest that is the newest now, "" when there is none.
        bytes: of the committed parts; raw_bytes before compression.
        error: why the window was not committed, "" when it was or need not be.
    """

    window: str
    status: str
    detail: str = ""
    generation: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    bytes: int = 0
    raw_bytes: int = 0
    partitions: int = 0
    data_files: tuple[str, ...] = ()
    manifest: str = ""
    rejects: tuple[str, ...] = ()
    error: str = ""

    @property
    def tried(self) -> bool:
        """Whether the run got as far as this window."""
        return not self.error.startswith(NOT_TRIED)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What came of a run.

    Attributes:
        written: summaries of the windows that this run committed.
        windows: summaries of all windows of the run.
        source: the source's url.
        batches: batches found there.
        unreadable: batches that cannot be read, each with the reason.
        why_empty: why there is no batch, where there is none.
    """

    export: str
    destination: str
    source: str
    batches: int
    windows: tuple[WindowSummary, ...]
    unreadable: tuple[str, ...] = ()
    why_empty: str = ""

    @property
    def written(self) -> tuple[WindowSummary, ...]:
        """The windows that this run committed."""
        return tuple(window for window in self.windows if window.status == "committed")

    @property
    def failed(self) -> tuple[WindowSummary, ...]:
        """The windows that should have been committed and were not."""
        return tuple(window for window in self.windows if window.error)

    @property
    def ledger(self) -> Ledger:
        """The sum over the windows that this run committed."""
        return add_ledgers(window.ledger for window in self.written)

    @property
    def data_files(self) -> tuple[str, ...]:
        """All committed parts of the run's windows, written now or before."""
        return tuple(url for window in self.windows for url in window.data_files)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json` and for Prefect."""
        return {
            "export": self.export,
            "destination": self.destination,
            "source": self.source,
            "batches": self.batches,
            "unreadable": list(self.unreadable),
            "why_empty": self.why_empty,
            "committed": len(self.written),
            "failed": [window.window for window in self.failed],
            "ledger": asdict(self.ledger),
            "windows": [asdict(window) for window in self.windows],
            "data_files": list(self.data_files),
        }


def summarise_run(plan: Plan, windows: Sequence[WindowSummary]) -> ExportSummary:
    """Return the summary of a run over the windows of a plan."""
    config = plan.config
    unreadable = tuple(f"{batch.path}: {batch.unreadable}" for batch in plan.unreadable)
    return ExportSummary(
        config.name,
        config.destination.url,
        config.source.url,
        plan.batches,
        tuple(windows),
        unreadable,
        "" if plan.batches else why_no_batch(config.source),
    )


def summarise(plan: Plan, window: WindowPlan) -> WindowSummary:
    """Return the summary of a window as it is committed now, without writing it."""
    name, status, detail = window.window.name, window.status, window.detail
    if window.committed is None:
        return WindowSummary(name, status, detail)
    store = open_destination(plan.config)
    generation, found = window.committed.generation, window.committed.describe()
    return WindowSummary(name, status, detail, generation, **_committed(store, found))


def summarise_manifest(store: Store, manifest: Manifest, status: str, detail: str) -> WindowSummary:
    """Return the summary of a window from the manifest that commits it."""
    found = _committed(store, describe_manifest(manifest))
    return WindowSummary(manifest.window, status, detail, manifest.generation, **found)


def _committed(store: Store, found: dict[str, Any]) -> dict[str, Any]:
    """What a summary says of a generation, from what `describe_manifest` said."""
    return {
        "ledger": Ledger(**found["ledger"]),
        "bytes": found["bytes"],
        "raw_bytes": found["raw_bytes"],
        "partitions": found["partitions"],
        "data_files": tuple(store.location(path) for path in found["parts"]),
        "manifest": f"{store.url}/{found['manifest']}",
        "rejects": tuple(f"{store.url}/{path}" for path in found["rejects"]),
    }
