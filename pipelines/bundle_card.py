"""The dataset card of a bundle, as Hugging Face shows it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from pipelines.pull_options import PullOptions
from pipelines.targets.columns import FEATURES, TRL_PAIR_FEATURES
from pipelines.words import say_count


def describe_bundle(description: Mapping[str, Any], features: Sequence[Mapping[str, str]]) -> str:
    """Return README.md: data files by split for `load_dataset`, and what was taken and left out.

    Args:
        description: what `bundle.json` says.
        features: the columns, as `dataset_info` names them; empty where they are not known.
    """
    splits: dict[str, list[str]] = {}
    for file in description["files"]:
        splits.setdefault(file["split"], []).append(file["path"])
    files = [{"split": split, "path": paths} for split, paths in splits.items()]
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": files}]}
    if features:
        head["dataset_info"] = {"features": [dict(feature) for feature in features]}
    rows = sum(description["rows"].values())
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {say_count(rows, 'row')} for `{description['format']}`",
        "",
        _origin(description),
        "",
        "| split | rows |",
        "| --- | ---: |",
        *(f"| {split} | {count:,} |" for split, count in description["rows"].items()),
        "",
        f"About {say_count(description['tokens_estimate'], 'token')}, at four bytes each.",
        "",
    ]
    lines += describe_counts(description)
    return "\n".join(lines)


def _origin(description: Mapping[str, Any]) -> str:
    return (
        f"Pulled from `{description['export']}`: "
        f"{say_count(description['read'], 'committed record')} in "
        f"{say_count(len(description['windows']), 'window')}. `bundle.json` names each "
        "window's manifest and generation, and the sha256 of each file."
    )


def describe_counts(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield tables of what was left out and what was repaired, in Markdown."""
    for title, counts in (
        ("Records left out", description["dropped"]),
        ("Repaired rows", description["repairs"]),
    ):
        if counts:
            yield from (f"## {title}", "", "| reason | count |", "| --- | ---: |")
            yield from (f"| {name} | {count:,} |" for name, count in counts.items())
            yield ""


def features_of(options: PullOptions, *, has_extras: bool) -> Sequence[Mapping[str, str]]:
    """Return the columns of a bundle; none where they are not those that the format has."""
    if has_extras and options.format == "records":
        return ()
    is_trl = options.format == "preference" and options.pair_style == "trl"
    return TRL_PAIR_FEATURES if is_trl else FEATURES[options.format]
