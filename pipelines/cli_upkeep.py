"""The commands that look after an export: status, verify, repair, gc, index."""

# Commands are functions of many options with defaults: that is how typer reads them.
# ruff: noqa: FBT002, PLR0917

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines.terminal import (
    AsJson,
    ConfigPath,
    Debug,
    End,
    Start,
    To,
    Where,
    duration_option,
    instant_option,
    load,
    print_json,
    print_lines,
    shown_errors,
)
from pipelines.words import say_count

Deep = Annotated[bool, typer.Option("--deep", help="Read every part again and compare its digest.")]


def status(
    config: ConfigPath,
    start: Start = None,
    end: End = None,
    to: To = None,
    where: Where = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show each window: committed, stale, missing, failed or expired."""
    with shown_errors(debug=debug):
        from rich.console import Console

        from pipelines.failures import read_failures
        from pipelines.owner import open_destination
        from pipelines.plan import plan_export
        from pipelines.report import describe_unreadable
        from pipelines.status import describe_status, find_states, status_as_dict

        plan = plan_export(
            load(config, to=to, where=where),
            now=datetime.now(UTC),
            start=instant_option("--start", start),
            end=instant_option("--end", end),
        )
        states = find_states(plan, read_failures(open_destination(plan.config)))
        if as_json:
            print_json(status_as_dict(plan, states))
            return
        print_lines(describe_unreadable([f"{b.path}: {b.unreadable}" for b in plan.unreadable]))
        console = Console(highlight=False)
        for line in describe_status(plan, states):
            console.print(line, soft_wrap=True)


def verify(
    config: ConfigPath,
    to: To = None,
    where: Where = None,
    deep: Deep = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare what is committed with its manifests."""
    with shown_errors(debug=debug):
        from dataclasses import asdict

        from pipelines.report import describe_verification
        from pipelines.verification import verify_export

        found = verify_export(load(config, to=to, where=where), deep=deep)
        if as_json:
            print_json(asdict(found))
        else:
            print_lines(describe_verification(found))
        if found.problems:
            raise typer.Exit(1)


def repair(
    config: ConfigPath,
    to: To = None,
    where: Where = None,
    deep: Deep = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Export windows again whose parts are not as committed.

    Where the source still has their batches.
    """
    with shown_errors(debug=debug):
        from dataclasses import asdict

        from pipelines.report import describe_repair
        from pipelines.verification import repair_export

        found, repaired = repair_export(
            load(config, to=to, where=where), now=datetime.now(UTC), deep=deep
        )
        if as_json:
            print_json({"found": asdict(found), "repaired": [asdict(one) for one in repaired]})
        else:
            print_lines(describe_repair(found, repaired))
        mended = {window.window for window in repaired if not window.error}
        if (found.problems and mended != set(found.broken)) or (
            found.problems and not found.broken
        ):
            raise typer.Exit(1)


def gc(
    config: ConfigPath,
    to: To = None,
    where: Where = None,
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
    """Show, or remove, what superseded and dead runs left."""
    with shown_errors(debug=debug):
        from pipelines.report import describe_garbage, garbage_as_dict
        from pipelines.upkeep import sweep_export

        found = sweep_export(
            load(config, to=to, where=where), delete=delete, grace=duration_option("--grace", grace)
        )
        if as_json:
            print_json(garbage_as_dict(found, deleted=delete))
        else:
            print_lines(describe_garbage(found, deleted=delete))


def index(
    config: ConfigPath,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Remove it first, and read every footer again.")
    ] = False,
    to: To = None,
    where: Where = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring the batch index and the cache of states up to date."""
    with shown_errors(debug=debug):
        from dataclasses import asdict

        from pipelines.upkeep import rebuild_index

        found = rebuild_index(
            load(config, to=to, where=where), now=datetime.now(UTC), rebuild=rebuild
        )
        if as_json:
            print_json(asdict(found))
        else:
            skipped = f", {found.unreadable:,} not readable" if found.unreadable else ""
            batches = say_count(found.batches, "batch", "batches")
            print_lines([f"{batches}{skipped}, {say_count(found.windows, 'window')} known"])
