"""What the commands share: their options, and how they load, print and fail.

Heavy imports stand inside the functions, so that `--help` is instant.
"""

import json
import logging
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperCommand, TyperOption

if TYPE_CHECKING:
    from pipelines.config import ExportConfig
    from pipelines.plan import Plan
    from pipelines.shard import Progress

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of one export.")]
Start = Annotated[
    str | None, typer.Option(help="First instant, on the window grid: 2026-04-01 or ISO 8601, UTC.")
]
End = Annotated[str | None, typer.Option(help="Instant after the last, on the window grid.")]
Force = Annotated[bool, typer.Option("--force", help="Write windows that are up to date again.")]
Rebuild = Annotated[
    bool,
    typer.Option(
        "--rebuild-from-remaining",
        help="Write windows again whose batches are gone; the events of those are lost.",
    ),
]
To = Annotated[str | None, typer.Option(metavar="URL", help="Another destination.")]
Where = Annotated[
    str | None, typer.Option(help="SQL condition over an event's fields; needs --to.")
]
Place = Annotated[
    Literal["threads", "processes", "dask"] | None,
    typer.Option("--executor", help="Where shards run; by default what the config says."),
]
Processes = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=512, help="Local processes, instead of the config's."),
]
Address = Annotated[
    str | None, typer.Option(metavar="URL", help="Dask scheduler, tcp://host:8786.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")]
_PACKAGE = "request-log-export"
_INTERRUPTED, _TERMINATED = 130, 143  # 128 and the number of the signal, as shells count
_STOPPED = "stopped; what was committed before stays, and nothing that was begun"


_is_terminated = threading.Event()


def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End the process at SIGTERM, by an error: what is begun is cleared on the way out."""
    _is_terminated.set()  # DuckDB tells a statement's error from an interruption's, not which
    raise SystemExit(_TERMINATED)


class Command(TyperCommand):
    """A command that refuses an option twice where it takes one value, and would drop the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line."""
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, count in Counter(given).items():
            if count == 1 or not isinstance(option, TyperOption):
                continue
            if not (option.is_flag or option.multiple):
                said = f"it is given {count} times; give it once"
                raise typer.BadParameter(said, ctx=ctx, param=option)
        return super().parse_args(ctx, args)


def load(
    path: Path,
    *,
    to: str | None = None,
    where: str | None = None,
    slice_only: bool = False,
    strict_commit: bool = False,
) -> "ExportConfig":
    """Return the config of a file, with a command's overrides."""
    from pipelines.config import load_config
    from pipelines.overrides import with_overrides

    return with_overrides(
        load_config(path),
        to=to,
        where=where,
        base=Path.cwd(),
        strict_commit=strict_commit,
        looks_only=slice_only,
    )


def duration_option(option: str, text: str | None) -> timedelta | None:
    """Return an option's duration, None when it was not given."""
    from pipelines.errors import ConfigError
    from pipelines.windows import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ConfigError(f"{option}: {exc}") from exc


def instant_option(option: str, text: str | None) -> datetime | None:
    """Return an option's instant in UTC, None when it was not given."""
    from pipelines.errors import ConfigError

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"{option}: {text!r} is no date or ISO 8601 time") from exc
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


@contextmanager
def shown_errors(*, debug: bool) -> Iterator[None]:
    """Print a deliberate error as one paragraph on stderr and exit with its code."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr)
    if debug:  # of this package alone: botocore's messages hold session tokens
        logging.getLogger("pipelines").setLevel(logging.DEBUG)
    from pipelines.errors import PipelineError

    try:
        yield
    except PipelineError as exc:
        if debug:
            traceback.print_exc()
        complain(str(exc))
        raise typer.Exit(exc.exit_code) from exc
    except (KeyboardInterrupt, SystemExit) as exc:
        if isinstance(exc, SystemExit) and exc.code != _TERMINATED:
            raise
        complain(_STOPPED)
        raise typer.Exit(_TERMINATED if _is_terminated.is_set() else _INTERRUPTED) from None


@contextmanager
def shown_progress() -> "Iterator[tuple[Any, Progress]]":
    """A bar on a terminal; otherwise plain lines, a few a minute at most."""
    from pipelines.progress import Bar, Lines

    with Bar() if sys.stderr.isatty() else Lines(sys.stderr) as shown:

        def on_plan(found: "Plan") -> None:
            shown.start(found.events_at_most, len(found.to_do))

        yield on_plan, shown.add


@contextmanager
def shown_count(noun: str) -> "Iterator[Callable[[int], None]]":
    """A plain line on stderr every ten seconds."""
    from pipelines.progress import Count

    yield Count(sys.stderr, noun).add


def versions() -> Iterator[str]:
    """Yield a line for this package and each engine that its bytes depend on; imports none."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (_PACKAGE, "duckdb", "pyarrow"):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} 0+source"  # it is not installed, and runs all the same


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout."""
    for line in lines:
        print(line)


def print_json(value: Any) -> None:
    """Print one JSON object to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def complain(message: str) -> None:
    """Print a message to stderr."""
    print(f"request-logs: {message}", file=sys.stderr)
