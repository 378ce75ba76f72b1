"""What a person sees of a run in Prefect: artifacts, events, the asset, and word of a failure.

Nothing here holds a payload or a credential, and nothing here decides whether a run succeeds: an
artifact that the server refuses is a line in the log.
"""

import inspect
import logging
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
from prefect import Flow
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from prefect.exceptions import PrefectException
from prefect.types.names import MAX_ASSET_KEY_LENGTH

from pipelines.config import ExportConfig
from pipelines.errors import PipelineError
from pipelines.manifest import LEDGER_COLUMNS, Ledger
from pipelines.rejects import read_examples
from pipelines.report import count_partitions, size
from pipelines.storage import open_store
from pipelines.summary import ExportSummary, WindowSummary
from pipelines.verification import Verification
from pipelines.windows import TimeWindow, parse_window
from pipelines.words import say_count

logger = logging.getLogger("prefect.flow_runs.request_logs")

_T = TypeVar("_T")
COMMITTED = "request-logs.window.committed"
_COUNTS = ("read", *LEDGER_COLUMNS)
_SECONDS_BETWEEN_UPDATES = 2.0
_SHOWN_WINDOWS = 200
_SHOWN_PROBLEMS = 50
_MARKUP = re.compile(r"[\\`*|\[\]<>]|_(?=_)|(?<=_)_")
_UNKNOWN_TO_ASSETS = re.compile(r"[\s#?&%\"'<>\[\]{}|\\^`*]")


class LiveProgress:
    """A progress artifact of the flow run, brought up to date every two seconds at most."""

    def __init__(self, config: ExportConfig, events_at_most: int) -> None:
        self._events_at_most = events_at_most
        self._done: dict[str, tuple[int, int]] = {}  # events and bytes by window
        self._lock = threading.Lock()
        self._began = self._told = time.monotonic()
        self._artifact: UUID | None = None
        if events_at_most:
            key = artifact_key(config.name, "progress")
            self._artifact = told(
                lambda: cast("UUID", create_progress_artifact(0.0, key, description="planned"))
            )

    def add(self, window: str, events: int, line_bytes: int) -> None:
        """Take in what was written of a window since the last call; called by any thread."""
        with self._lock:
            events_before, bytes_before = self._done.get(window, (0, 0))
            self._done[window] = (events_before + events, bytes_before + line_bytes)
            if time.monotonic() - self._told < _SECONDS_BETWEEN_UPDATES:
                return
            self._told = time.monotonic()
        self._tell(complete=False)

    def settle(self, window: str, events: int, line_bytes: int) -> None:
        """Say what came of a window in the end, whatever was added: none where it failed."""
        with self._lock:
            self._done[window] = (events, line_bytes)

    def finish(self, *, complete: bool) -> None:
        """Show the end; all of it only where no window failed."""
        self._tell(complete=complete)

    def _tell(self, *, complete: bool) -> None:
        if self._artifact is None:
            return
        with self._lock:
            events = sum(events for events, _ in self._done.values())
            written = sum(line_bytes for _, line_bytes in self._done.values())
        percent = 100.0 if complete else min(99.0, 100 * events / self._events_at_most)
        artifact, rate = self._artifact, written / max(1e-3, time.monotonic() - self._began)
        text = (
            f"{events:,} of up to {say_count(self._events_at_most, 'event')}, {size(written)}, "
            f"{rate / 1e6:,.0f} MB/s"
        )
        told(lambda: update_progress_artifact(artifact, percent, text))


def told(tell: Callable[[], _T]) -> _T | None:
    """Call the server; when it does not take it, say so in the log and return None."""
    try:
        return tell()
    except (PrefectException, httpx.HTTPError) as exc:
        logger.warning("the server did not take a report: %s: %s", type(exc).__name__, exc)
        return None


def artifact_key(*words: str) -> str:
    """Return words as the key of an artifact: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def tell_commit(config: ExportConfig, window: WindowSummary) -> None:
    """Emit the event of a committed window, for automations."""
    ledger, found = asdict(window.ledger), parse_window(window.window)
    emit_event(
        COMMITTED,
        resource={
            "prefect.resource.id": f"request-logs.export.{config.name}",
            "prefect.resource.name": config.name,
            "request-logs.destination": config.destination.url,
            "request-logs.window": window.window,
        },
        payload={
            "export": config.name,
            "destination": config.destination.url,
            "window": window.window,
            "start": found.start.isoformat() if isinstance(found, TimeWindow) else None,
            "end": found.end.isoformat() if isinstance(found, TimeWindow) else None,
            "generation": window.generation,
            "manifest": window.manifest,
            "parts": len(window.data_files),
            "bytes": window.bytes,
            "counts": {name: ledger[name] for name in _COUNTS},
            "rejected_by": ledger["rejected_by"],
        },
    )


def report_run(config: ExportConfig, summary: ExportSummary, sentence: str, seconds: float) -> None:
    """Leave the run's artifacts, and the asset when something was committed."""
    text = "\n".join(markdown(config, summary, seconds))
    told(
        lambda: create_markdown_artifact(
            text, key=artifact_key(config.name, "export"), description=sentence
        )
    )
    rows = [window_row(window) for window in summary.windows[:_SHOWN_WINDOWS]]
    if rows:
        told(
            lambda: create_table_artifact(
                rows, key=artifact_key(config.name, "windows"), description=sentence
            )
        )
    if summary.written:
        materialize_dataset(config, summary)


def markdown(config: ExportConfig, summary: ExportSummary, seconds: float) -> Iterator[str]:
    """Yield the lines of a run's report."""
    written, ledger = summary.written, summary.ledger
    yield f"# {summary.export}\n"
    yield f"`{summary.source}` → `{summary.destination}`\n"
    yield (
        f"{len(written)} of {say_count(len(summary.windows), 'window')} committed, "
        f"{len(summary.failed)} failed, from {say_count(summary.batches, 'batch', 'batches')} "
        f"in {seconds:,.1f} s\n"
    )
    yield from _ledger_table(ledger)
    if ledger.rejected_by:
        yield from _rejects_table(config, summary, ledger)
    if written:
        stored, raw = (sum(getattr(w, kind) for w in written) for kind in ("bytes", "raw_bytes"))
        yield "\n## Written\n"
        yield "| parts | partitions | stored | before compression | rate |"
        yield "| ---: | ---: | ---: | ---: | ---: |"
        yield (
            f"| {sum(len(w.data_files) for w in written):,} |"
            f" {count_partitions(written):,} | {size(stored)} |"
            f" {size(raw)} | {raw / 1e6 / max(seconds, 1e-3):,.1f} MB/s |"
        )
        yield "\n## Manifests\n"
        yield from (f"- [{w.window}]({w.manifest})" for w in written[:_SHOWN_WINDOWS])
    if summary.failed:
        yield "\n## Failed\n"
        yield from (f"- `{w.window}`: {_cell(w.error)}" for w in summary.failed[:_SHOWN_WINDOWS])


def _ledger_table(ledger: Ledger) -> Iterator[str]:
    counts = asdict(ledger)
    yield "## Ledger\n"
    yield f"| {' | '.join(_COUNTS)} |"
    yield f"| {' | '.join('---:' for _ in _COUNTS)} |"
    yield f"| {' | '.join(f'{counts[name]:,}' for name in _COUNTS)} |"


def _rejects_table(config: ExportConfig, summary: ExportSummary, ledger: Ledger) -> Iterator[str]:
    try:
        examples = read_examples(summary, config.destination.storage_options)
    except (PipelineError, ValueError, zlib.error) as exc:
        logger.warning("no examples of rejects: %s", type(exc).__name__)
        examples = {}
    yield "\n## Rejected\n"
    yield "| reason | events | for example in batch | row |"
    yield "| --- | ---: | --- | ---: |"
    for reason, events in sorted(ledger.rejected_by.items(), key=lambda found: -found[1]):
        counted = f"{_cell(reason)} | {events:,}"
        for batch, row in examples.get(reason, [("", "")]):
            yield f"| {counted} | {_cell(batch)} | {row} |"
            counted = " | "


def _cell(text: str) -> str:
    """Text as it is, in a cell of a table: no mark-up, one line."""
    return _MARKUP.sub(r"\\\g<0>", text.replace("\n", " "))


def window_row(window: WindowSummary) -> dict[str, Any]:
    """Return what the table of a run says of a window."""
    return {
        "window": window.window,
        "status": window.status,
        "generation": window.generation,
        "read": window.ledger.read,
        "exported": window.ledger.exported,
        "rejected": window.ledger.rejected,
        "parts": len(window.data_files),
        "bytes": window.bytes,
        "manifest": window.manifest,
        "detail": window.error or window.detail,
    }


def materialize_dataset(config: ExportConfig, summary: ExportSummary) -> None:
    """Say that the run made a new state of the dataset, so that the lineage shows it."""
    dataset = Asset(
        key=asset_key(config.destination.url),
        properties=AssetProperties(
            name=config.name, description="Committed request logs, one JSON object a line"
        ),
    )

    @materialize(
        dataset,
        asset_deps=[asset_key(config.source.url)],
        by="request-log-export",
        name="materialize-dataset",
        task_run_name=f"materialize {config.name}",
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def commit_dataset() -> None:
        written = summary.written
        add_asset_metadata(
            dataset,
            {
                "windows": [window.window for window in written[:_SHOWN_WINDOWS]],
                "exported": summary.ledger.exported,
                "bytes": sum(window.bytes for window in written),
            },
        )

    commit_dataset(return_state=True)


def asset_key(url: str) -> str:
    """Return a URL as the key of an asset, which holds fewer characters than a URL may."""
    return _UNKNOWN_TO_ASSETS.sub("_", open_store(url).url)[:MAX_ASSET_KEY_LENGTH]


def report_verification(name: str, found: Verification) -> None:
    """Leave what a verification found as an artifact."""
    state = "all as committed" if not found.problems else say_count(len(found.problems), "problem")
    counts = (
        f"{found.windows:,}",
        f"{found.parts:,}",
        f"{found.records:,}",
        size(found.bytes),
        "yes" if found.deep else "no",
    )
    lines = [
        f"# {name}: {state}\n",
        "| windows | parts | records | bytes | read and hashed |",
        "| ---: | ---: | ---: | ---: | --- |",
        f"| {' | '.join(counts)} |\n",
        *(f"- {_cell(problem)}" for problem in found.problems[:_SHOWN_PROBLEMS]),
    ]
    if more := len(found.problems) - _SHOWN_PROBLEMS:
        lines += [f"- and {more} more"] if more > 0 else []
    told(
        lambda: create_markdown_artifact(
            "\n".join(lines), key=artifact_key(name, "verify"), description=state
        )
    )


async def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of a flow run that failed or crashed: a line in the log, and the parameter `notify`."""
    message = f"{flow.name} {flow_run.name}: {state.name}: {state.message}"
    logger.error("%s", message)
    slug = (flow_run.parameters or {}).get("notify")
    if not slug:
        return
    block = await Block.aload(slug)
    if not isinstance(block, NotificationBlock):
        logger.error("%s is no notification block", slug)
        return
    notification: Any = block
    sent = notification.notify(message, subject=f"{flow.name} {state.name}")
    if inspect.isawaitable(sent):
        await sent
