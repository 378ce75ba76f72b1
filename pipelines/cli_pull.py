"""The command `pull`: committed records into a bundle for fine-tuning."""

# Commands are functions of many options with defaults: that is how typer reads them.
# ruff: noqa: FBT002, PLR0917

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.terminal import (
    AsJson,
    Debug,
    complain,
    instant_option,
    print_json,
    print_lines,
    shown_count,
    shown_errors,
)


def pull(
    source: Annotated[
        str, typer.Argument(metavar="CONFIG|URL", help="An export: its YAML file or destination.")
    ],
    to: Annotated[str, typer.Option(metavar="URL", help="New folder or prefix for the bundle.")],
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            "--format",
            help="records, openai, openpipe, together, fireworks, mistral, trl, trl-completion, "
            "axolotl, llamafactory, preference.",
        ),
    ] = "records",
    start: Annotated[str | None, typer.Option(help="Windows that end after this, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Windows that start before this, UTC.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="What was committed at this time, while it is kept.")
    ] = None,
    generation: Annotated[
        int | None, typer.Option(help="This generation of each window, while it is kept.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="SQL condition over input, output, tags (JSON text): tags ->> 'k' = 'v'."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag that records must have.")
    ] = None,
    partition: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A partition to read.")
    ] = None,
    conversations: Annotated[
        str | None, typer.Option(help="longest: without logs that a longer one repeats; or all.")
    ] = None,
    duplicates: Annotated[
        str | None,
        typer.Option(help="Of answers to one input: last (the default), first, or keep all."),
    ] = None,
    allow_finish: Annotated[
        list[str] | None, typer.Option(help="Take answers that ended so: length, content_filter.")
    ] = None,
    prune: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Remove a text from inputs.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FRACTION", help="test=0.1, validation=0.1")
    ] = None,
    split_by_tag: Annotated[
        str | None,
        typer.Option(help="Tag that keeps records in one split; who has none goes by opening."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, and of the choice of rows.")] = 0,
    max_rows: Annotated[int | None, typer.Option(help="Rows of the bundle at most.")] = None,
    chosen: Annotated[
        str | None, typer.Option(metavar="TAG=VALUE", help="preference: the better answer.")
    ] = None,
    rejected: Annotated[
        str | None, typer.Option(metavar="TAG=VALUE", help="preference: the worse answer.")
    ] = None,
    pair_style: Annotated[
        str, typer.Option(help="preference: openai, together, fireworks or trl.")
    ] = "openai",
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSONL of what a gate left out, with reasons; not what --tag and --where did.",
        ),
    ] = None,
    require_data: Annotated[
        bool, typer.Option("--require-data", help="Fail when no row comes out.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write committed records as a bundle for a fine-tuning service."""
    with shown_errors(debug=debug):
        from pipelines.config import load_config
        from pipelines.pull import pull as run_pull
        from pipelines.pull_options import parse_options
        from pipelines.report import describe_pull

        given = {
            "format": format,
            "start": instant_option("--start", start),
            "end": instant_option("--end", end),
            "as_of": instant_option("--as-of", as_of),
            "generation": generation,
            "where": where,
            "tags": _pairs("--tag", tag),
            "partitions": _pairs("--partition", partition),
            "conversations": conversations,
            "duplicates": duplicates,
            "allow_finish": tuple(allow_finish) if allow_finish else None,
            "prune": tuple(prune) if prune else None,
            "split": _pairs("--split", [one for each in split or () for one in each.split(",")]),
            "split_by_tag": split_by_tag,
            "seed": seed,
            "max_rows": max_rows,
            "chosen": _pair("--chosen", chosen),
            "rejected": _pair("--rejected", rejected),
            "pair_style": pair_style,
        }
        options = parse_options({k: value for k, value in given.items() if value is not None})
        is_config = source.endswith((".yaml", ".yml"))
        with shown_count("record") as progress:
            summary = run_pull(
                load_config(Path(source)) if is_config else source,
                to,
                options,
                rejects=rejects,
                progress=progress,
            )
        if as_json:
            print_json(summary.as_dict())
        else:
            print_lines(describe_pull(summary))
        if require_data and not summary.total_rows:
            complain("no row came out, and --require-data was given")
            raise typer.Exit(1)


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, Any]:
    from pipelines.errors import ConfigError

    pairs = [found for text in given or () if (found := _pair(option, text))]
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ConfigError(f"{option}: {name} is given {count} times; give it once")
    return dict(pairs)


def _pair(option: str, text: str | None) -> tuple[str, str] | None:
    from pipelines.errors import ConfigError

    if text is None:
        return None
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise ConfigError(f"{option}: {text!r} is not of the form NAME=VALUE")
    return name, value
