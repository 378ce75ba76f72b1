"""`request-logs`: parses, calls the library, prints; decides nothing.

Heavy imports stand inside the commands, so that `--help` is instant.
"""

# Commands are functions of many options with defaults: that is how typer reads them.
# ruff: noqa: FBT002, PLR0917

import io
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines import cli_pull, cli_upkeep
from pipelines.terminal import (
    Address,
    AsJson,
    Command,
    ConfigPath,
    Debug,
    End,
    Force,
    Place,
    Processes,
    Rebuild,
    Start,
    To,
    Where,
    complain,
    instant_option,
    load,
    print_json,
    print_lines,
    shown_errors,
    shown_progress,
    terminate,
    versions,
)
from pipelines.words import say_count

app = typer.Typer(
    help="Export raw LLM request logs from Parquet batches to committed, partitioned JSONL.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # 0.12 s to import, for frames around the help
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _NoPandas:
    """Hides pandas, which pyarrow looks for when a list becomes an array: 0.35 s, for nothing."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Find nothing, and end the search where it is pandas that is looked for."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is of no use to the command line", name=name)


def main() -> None:
    """Run the command line; the console script's entry."""
    sys.meta_path.insert(0, _NoPandas)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know few characters
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, terminate)  # temporary files are cleared on the way out
    app()


def _print_versions(is_asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if is_asked:
        print_lines(versions())
        raise typer.Exit


@app.callback()
def before_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_versions,
            is_eager=True,
            help="Print the versions of this package and its engines.",
        ),
    ] = False,
) -> None:
    """Take what stands before a command."""


@app.command(cls=Command)
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
    executor: Place = None,
    workers: Processes = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write every due window that is missing or whose inputs changed."""
    with shown_errors(debug=debug):
        from pipelines.export import run_export
        from pipelines.overrides import with_executor
        from pipelines.report import describe_failures, describe_run

        loaded = load(config, to=to, where=where, strict_commit=strict_commit)
        chosen = with_executor(loaded, executor=executor, workers=workers, address=address)
        with shown_progress() as (on_plan, progress):
            summary = run_export(
                chosen,
                now=datetime.now(UTC),
                start=instant_option("--start", start),
                end=instant_option("--end", end),
                force=force,
                rebuild_from_remaining=rebuild_from_remaining,
                on_plan=on_plan,
                progress=progress,
            )
        if as_json:
            print_json(summary.as_dict())
        else:
            print_lines(describe_run(summary))
        if summary.failed:
            for line in describe_failures(summary.failed):
                complain(line)
            raise typer.Exit(1)
        if require_data and not summary.batches:
            place = f"{chosen.source.url} holds no batch, as {summary.why_empty}"
            complain(f"{place}, and --require-data was given")
            raise typer.Exit(1)


@app.command(cls=Command)
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
    with shown_errors(debug=debug):
        from pipelines.plan import plan_export
        from pipelines.report import describe_plan, plan_as_dict

        found = plan_export(
            load(config, to=to, where=where),
            now=datetime.now(UTC),
            start=instant_option("--start", start),
            end=instant_option("--end", end),
            force=force,
            rebuild_from_remaining=rebuild_from_remaining,
        )
        if as_json:
            print_json(plan_as_dict(found))
        else:
            print_lines(describe_plan(found))


@app.command(cls=Command)
def preview(
    config: ConfigPath,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many records.")] = 3,
    where: Annotated[str | None, typer.Option(help="SQL condition over an event's fields.")] = None,
    debug: Debug = False,
) -> None:
    """Print the first records, pretty; write nothing."""
    with shown_errors(debug=debug):
        from pipelines.report import pretty_record
        from pipelines.upkeep import preview_export

        found, lines = preview_export(
            load(config, where=where, slice_only=True), limit, now=datetime.now(UTC)
        )
        print_lines(pretty_record(line) for line in lines)
        if not lines:
            batches = say_count(found.batches, "batch", "batches")
            complain(f"no record: {batches} at {found.config.source.url}")


@app.command(cls=Command)
def check(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML file of one export.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a config, for editors.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Check the config, the source, its columns and the destination."""
    with shown_errors(debug=debug):
        from pipelines.config import ExportConfig
        from pipelines.report import describe_findings
        from pipelines.upkeep import check_export

        if schema:
            print_json(ExportConfig.model_json_schema())
            return
        if config is None:
            raise typer.BadParameter("give a CONFIG, or --schema", param_hint="CONFIG")
        loaded = load(config)
        sys.stdout.write(f"ok      {'config':<12} {config}\n")
        ok = True
        for finding in check_export(loaded, now=datetime.now(UTC)):
            print_lines(describe_findings([finding]))
            ok = ok and finding.ok
        if not ok:
            raise typer.Exit(1)


@app.command(cls=Command)
def demo(
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the export.")] = Path(
        "request-logs-demo"
    ),
    debug: Debug = False,
) -> None:
    """Export the bundled 300 real calls, and print the first record."""
    with shown_errors(debug=debug):
        from pipelines.export import run_export
        from pipelines.report import describe_run, first_record, pretty_record
        from pipelines.sample import check_demo_folder, sample_config

        check_demo_folder(to)
        chosen = sample_config(str(to.resolve()))
        with shown_progress() as (on_plan, progress):
            summary = run_export(chosen, now=datetime.now(UTC), on_plan=on_plan, progress=progress)
        print_lines(describe_run(summary))
        line = first_record(summary, {})
        if line is not None:
            print_lines(["", "The first record:", pretty_record(line)])


for command in (
    cli_pull.pull,
    cli_upkeep.status,
    cli_upkeep.verify,
    cli_upkeep.repair,
    cli_upkeep.gc,
    cli_upkeep.index,
):
    app.command(cls=Command)(command)
