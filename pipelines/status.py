"""A calendar of windows: what is committed, stale, missing, failed, or no more to be had."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal

from rich.text import Text

from pipelines.plan import Plan, Status, WindowPlan
from pipelines.windows import TimeWindow

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


def state_of(window: WindowPlan) -> State:
    """Return what a window's place in the calendar shows; `failed` is one that is blocked."""
    return _STATES[window.status]


def describe_status(plan: Plan) -> Iterator[Text]:
    """Yield the lines of the calendar: a row a day, a month or a year, and a legend with counts."""
    states = [state_of(window) for window in plan.windows]
    for label, windows in _rows(plan.windows):
        yield Text.assemble(f"{label:<10} ", *(_MARKS[state_of(window)] for window in windows))
    counts = Counter(states)
    shown = [state for state in _MARKS if counts[state]]
    for place, state in enumerate(shown):
        more = ", ".join(_details(plan.windows, state))
        end = f": {more}" if more else ""
        indent = "" if place or not plan.windows else "\n"
        yield Text.assemble(indent, _MARKS[state], f" {counts[state]:,} {state}{end}")
    if not plan.windows:
        yield Text(f"No window: no batch at {plan.config.source.url}.")


def status_as_dict(plan: Plan) -> dict[str, Any]:
    """Return the calendar as plain data for `--json`."""
    return {
        "export": plan.config.name,
        "counts": dict(Counter(state_of(window) for window in plan.windows)),
        "windows": [
            {
                "window": window.window.name,
                "state": state_of(window),
                "detail": window.detail,
                "generation": window.committed.generation if window.committed else 0,
            }
            for window in plan.windows
        ],
    }


def _rows(windows: Sequence[WindowPlan]) -> Iterator[tuple[str, list[WindowPlan]]]:
    """Windows by day, month or year of their start, with the fixed windows by name."""
    rows: dict[str, list[WindowPlan]] = {}
    for window in windows:
        rows.setdefault(_label(window), []).append(window)
    yield from rows.items()


def _label(planned: WindowPlan) -> str:
    window = planned.window
    if not isinstance(window, TimeWindow):
        return window.name
    length = window.end - window.start
    if length < _DAY:
        return f"{window.start:%Y-%m-%d}"
    return f"{window.start:%Y-%m}" if length < 7 * _DAY else f"{window.start:%Y}"


def _details(windows: Iterable[WindowPlan], state: State) -> list[str]:
    """What stands behind a state that needs a look, for the first two windows."""
    if state in ("committed", "missing"):
        return []
    found = [f"{w.window.name} ({w.detail})" for w in windows if state_of(w) == state]
    return [*found[:2], *(["…"] if len(found) > 2 else [])]  # noqa: PLR2004 - as the docstring says
