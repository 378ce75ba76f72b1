"""A calendar of windows: what is committed, stale, missing, failed, or no more to be had."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from rich.text import Text

from pipelines.failures import Failure
from pipelines.plan import TO_DO, Plan, Status, WindowPlan
from pipelines.sources.listing import why_no_batch
from pipelines.windows import TimeWindow, Window

State = Literal["committed", "stale", "missing", "failed", "source expired"]
_STATES: dict[Status, State] = {
    "up to date": "committed",
    "forced": "committed",
    "missing": "missing",
    "late batch": "stale",
    "changed batch": "stale",
    "changed config": "stale",
    "blocked": "failed",
    "source expired": "source expired",
}
_MARKS: dict[State, tuple[str, str]] = {
    "committed": ("■", "green"),
    "stale": ("◪", "yellow"),
    "missing": ("□", "cyan"),
    "failed": ("✗", "red"),
    "source expired": ("▨", "magenta"),
}
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class WindowState:
    """What the calendar shows of one window."""

    window: Window
    state: State
    detail: str
    generation: int


def find_states(plan: Plan, failures: Mapping[str, Failure]) -> list[WindowState]:
    """Return the state of each window of a plan; `failed` are blocked ones and failed tries."""

    def state_of(window: WindowPlan) -> WindowState:
        state, detail = _STATES[window.status], window.detail
        generation = window.committed.generation if window.committed else 0
        failure = failures.get(window.window.name)
        if failure and window.status in TO_DO and failure.input_digest == window.input_digest:
            state, detail = "failed", f"{failure.failed_at}: {failure.error}"
        return WindowState(window.window, state, detail, generation)

    return [state_of(window) for window in plan.windows]


def describe_status(plan: Plan, states: Sequence[WindowState]) -> Iterator[Text]:
    """Yield the lines of the calendar: a row a day, a month or a year, and a legend with counts."""
    for label, row in _rows(states):
        yield Text.assemble(f"{label:<10} ", *(_MARKS[found.state] for found in row))
    counts = Counter(found.state for found in states)
    shown = [state for state in _MARKS if counts[state]]
    for place, state in enumerate(shown):
        more = ", ".join(_details(states, state))
        end = f": {more}" if more else ""
        indent = "" if place else "\n"
        yield Text.assemble(indent, _MARKS[state], f" {counts[state]:,} {state}{end}")
    if not states:
        source = plan.config.source
        why = "" if plan.batches else f", as {why_no_batch(source)}"
        yield Text(f"No window: no batch at {source.url}{why}.")


def status_as_dict(plan: Plan, states: Sequence[WindowState]) -> dict[str, Any]:
    """Return the calendar as plain data for `--json`."""
    return {
        "export": plan.config.name,
        "unreadable": [f"{batch.path}: {batch.unreadable}" for batch in plan.unreadable],
        "counts": dict(Counter(found.state for found in states)),
        "windows": [
            {
                "window": found.window.name,
                "state": found.state,
                "detail": found.detail,
                "generation": found.generation,
            }
            for found in states
        ],
    }


def _rows(states: Sequence[WindowState]) -> Iterator[tuple[str, list[WindowState]]]:
    """Windows by day, month or year of their start, with the fixed windows by name."""
    rows: dict[str, list[WindowState]] = {}
    for found in states:
        rows.setdefault(_label(found.window), []).append(found)
    yield from rows.items()


def _label(window: Window) -> str:
    if not isinstance(window, TimeWindow):
        return window.name
    length = window.end - window.start
    if length < _DAY:
        return f"{window.start:%Y-%m-%d}"
    return f"{window.start:%Y-%m}" if length < 7 * _DAY else f"{window.start:%Y}"


def _details(states: Iterable[WindowState], state: State) -> list[str]:
    """What stands behind a state that needs a look, for the first two windows."""
    if state in ("committed", "missing"):
        return []
    found = [f"{one.window.name} ({one.detail})" for one in states if one.state == state]
    return [*found[:2], *(["…"] if len(found) > 2 else [])]  # noqa: PLR2004 - as the docstring says
