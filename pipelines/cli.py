"""`request-logs`: parses, calls the library, prints; decides nothing.

Heavy imports stand inside the commands, so that `--help` is instant.
"""

# Commands are functions of many options with defaults: that is how typer reads them.
# ruff: noqa: FBT002, PLR0917

import json
import logging
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pipelines.config import ExportConfig
    from pipelines.plan import Plan
    from pipelines.shard import Progress

app = typer.Typer(
    help="Export raw LLM request logs from Parquet batches to committed, partitioned JSONL.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")]


def main() -> None:
    """Run the command line; the console script's entry."""
    signal.signal(signal.SIGTERM, _exit)  # temporary files are cleared on the way out
    app()


@app.command()
def export(
    config: ConfigPath,
    start: Start = None,
    end: End = None,
    force: Force = False,
    rebuild_from_remaining: Rebuild = False,
    to: To = None,
    where: Where = None,
    require_data: Annotated[
        bool, typer.Option("--require-data", help="Fail when the source holds no batch.")
    ] = False,
    strict_commit: Annotated[
        bool,
        typer.Option(
            "--strict-commit", help="Refuse a store that writes over objects (no If-None-Match)."
        ),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write every due window that is missing or whose inputs changed."""
    with _errors(debug=debug):
        from pipelines.export import run_export
        from pipelines.report import describe_run

        chosen = _load(config, to=to, where=where, strict_commit=strict_commit)
        with _progress() as (on_plan, progress):
            summary = run_export(
                chosen,
                now=datetime.now(UTC),
                start=_instant("--start", start),
                end=_instant("--end", end),
                force=force,
                rebuild_from_remaining=rebuild_from_remaining,
                on_plan=on_plan,
                progress=progress,
            )
        if as_json:
            _print_json(summary.as_dict())
        else:
            _print_lines(describe_run(summary))
        if summary.failed:
            for window in summary.failed:
                _complain(f"{window.window}: {window.error}")
            raise typer.Exit(1)
        if require_data and not summary.batches:
            _complain(f"{chosen.source.url} holds no batch, and --require-data was given")
            raise typer.Exit(1)


@app.command()
def plan(
    config: ConfigPath,
    start: Start = None,
    end: End = None,
    force: Force = False,
    rebuild_from_remaining: Rebuild = False,
    to: To = None,
    where: Where = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what an export would read and write, and why; write nothing."""
    with _errors(debug=debug):
        from pipelines.plan import plan_export
        from pipelines.report import describe_plan, plan_as_dict

        found = plan_export(
            _load(config, to=to, where=where),
            now=datetime.now(UTC),
            start=_instant("--start", start),
            end=_instant("--end", end),
            force=force,
            rebuild_from_remaining=rebuild_from_remaining,
        )
        if as_json:
            _print_json(plan_as_dict(found))
        else:
            _print_lines(describe_plan(found))


@app.command()
def preview(
    config: ConfigPath,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many records.")] = 3,
    where: Annotated[str | None, typer.Option(help="SQL condition over an event's fields.")] = None,
    debug: Debug = False,
) -> None:
    """Print the first records, pretty; write nothing."""
    with _errors(debug=debug):
        from pipelines.report import pretty_record
        from pipelines.upkeep import preview_export

        found, lines = preview_export(
            _load(config, where=where, slice_only=True), limit, now=datetime.now(UTC)
        )
        _print_lines(pretty_record(line) for line in lines)
        if not lines:
            _complain(f"no record: {found.batches} batches at {found.config.source.url}")


@app.command()
def check(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML file of one export.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a config, for editors.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Check the config, the source and its columns, and that the destination can be written."""
    with _errors(debug=debug):
        from pipelines.config import ExportConfig
        from pipelines.report import describe_findings
        from pipelines.upkeep import check_export

        if schema:
            _print_json(ExportConfig.model_json_schema())
            return
        if config is None:
            raise typer.BadParameter("give a CONFIG, or --schema", param_hint="CONFIG")
        loaded = _load(config)
        sys.stdout.write(f"ok      {'config':<12} {config}\n")
        ok = True
        for finding in check_export(loaded, now=datetime.now(UTC)):
            _print_lines(describe_findings([finding]))
            ok = ok and finding.ok
        if not ok:
            raise typer.Exit(1)


@app.command()
def verify(
    config: ConfigPath,
    to: To = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every part again and compare its digest.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare what is committed with its manifests."""
    with _errors(debug=debug):
        from dataclasses import asdict

        from pipelines.report import describe_verification
        from pipelines.upkeep import verify_export

        found = verify_export(_load(config, to=to), deep=deep)
        if as_json:
            _print_json(asdict(found))
        else:
            _print_lines(describe_verification(found))
        if found.problems:
            raise typer.Exit(1)


@app.command()
def gc(
    config: ConfigPath,
    to: To = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove it; without, only say what would be removed.")
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Instead of destination.grace; shorter only while no run is under way.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what no kept generation names any more and dead runs left, or remove it."""
    with _errors(debug=debug):
        from pipelines.report import describe_garbage, garbage_as_dict
        from pipelines.upkeep import sweep_export

        found = sweep_export(_load(config, to=to), delete=delete, grace=_duration("--grace", grace))
        if as_json:
            _print_json(garbage_as_dict(found, deleted=delete))
        else:
            _print_lines(describe_garbage(found, deleted=delete))


@app.command()
def demo(
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the export.")] = Path(
        "request-logs-demo"
    ),
    debug: Debug = False,
) -> None:
    """Export the bundled sample of 300 real calls, and print the first record."""
    with _errors(debug=debug):
        from pipelines.export import run_export
        from pipelines.report import describe_run, first_record, pretty_record
        from pipelines.sample import sample_config

        chosen = sample_config(str(to.resolve()))
        with _progress() as (on_plan, progress):
            summary = run_export(chosen, now=datetime.now(UTC), on_plan=on_plan, progress=progress)
        _print_lines(describe_run(summary))
        line = first_record(summary, {})
        if line is not None:
            _print_lines(["", "The first record:", pretty_record(line)])


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def _load(
    path: Path,
    *,
    to: str | None = None,
    where: str | None = None,
    slice_only: bool = False,
    strict_commit: bool = False,
) -> "ExportConfig":
    from pipelines.config import load_config, with_overrides
    from pipelines.errors import ConfigError

    if where is not None and to is None and not slice_only:
        raise ConfigError("--where needs --to: a slice never replaces the full export")
    loaded = load_config(path)
    return with_overrides(loaded, to=to, where=where, base=Path.cwd(), strict_commit=strict_commit)


def _duration(option: str, text: str | None) -> timedelta | None:
    from pipelines.errors import ConfigError
    from pipelines.windows import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ConfigError(f"{option}: {exc}") from exc


def _instant(option: str, text: str | None) -> datetime | None:
    from pipelines.errors import ConfigError

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"{option}: {text!r} is no date or ISO 8601 time") from exc
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


@contextmanager
def _errors(*, debug: bool) -> Iterator[None]:
    """Print a deliberate error as one paragraph on stderr and exit with its code."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    from pipelines.errors import PipelineError

    try:
        yield
    except PipelineError as exc:
        if debug:
            traceback.print_exc()
        _complain(str(exc))
        raise typer.Exit(exc.exit_code) from exc
    except KeyboardInterrupt:
        _complain("stopped; windows that were committed stay, nothing else was")
        raise typer.Exit(130) from None


@contextmanager
def _progress() -> "Iterator[tuple[Any, Progress]]":
    """A bar on a terminal; otherwise plain lines, a few a minute at most."""
    from pipelines.progress import Bar, Lines

    with Bar() if sys.stderr.isatty() else Lines(sys.stderr) as shown:

        def on_plan(found: "Plan") -> None:
            shown.start(found.events_at_most, len(found.to_do))

        yield on_plan, shown.add


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _complain(message: str) -> None:
    print(f"request-logs: {message}", file=sys.stderr)
