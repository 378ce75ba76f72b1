"""A pull against what people do without it, in paired runs over one export.

    python -m tests.benchmarks.pull --gb 0.2 --runs 3

A is `pull --format openai`; B is `zcat parts | jq -c`, which picks messages and answer of each line
and checks nothing; C is a `map` of Hugging Face `datasets` that does the same, where `make
consumers` has installed it. Rates are MB of decompressed records a second; peak memory is that of
the pull, at the size given and at a quarter of it.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.committed import open_export
from pipelines.config import parse_config
from pipelines.export import run_export
from tests.benchmarks.generate import generate

_JQ = "{messages: (.input.messages + [.output.choices[0].message]), tools: .input.tools}"
_MAP = """
import sys
from datasets import load_dataset
rows = load_dataset("json", data_files=sys.argv[2:], split="train", cache_dir=sys.argv[1])
def pick(row):
    return {"messages": row["input"]["messages"] + [row["output"]["choices"][0]["message"]]}
rows.map(pick, remove_columns=rows.column_names).to_json(sys.argv[1] + "/train.jsonl")
"""
_CONSUMERS = Path(".venv-consumers/bin/python")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    seconds: float
    peak_mb: float


def prepare(folder: Path, gb: float) -> tuple[list[str], float]:
    """Export generated logs; return the committed parts and the MB of their lines."""
    generate(folder / "raw", raw_bytes=int(gb * 1e9), batches=8)
    document = {
        "name": "pulled",
        "source": {"url": str(folder / "raw"), "preset": "openpipe"},
        "destination": {"url": str(folder / "exported")},
        "exclude_errors": True,
    }
    summary = run_export(
        parse_config(document, origin="benchmark", base=folder), now=datetime.now(UTC)
    )
    export = open_export(folder / "exported")
    return list(export.data_files), summary.windows[0].raw_bytes / 1e6


def measure(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Usage:
    """Return what a command took."""
    began = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [*map(str, command)], stdout=nowhere, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {process.returncode}")
    return Usage(time.perf_counter() - began, usage.ru_maxrss / 1024)


def pull_once(folder: Path) -> Usage:
    """Return what one pull took, start of Python included."""
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    places: list[str | Path] = [folder / "exported", "--to", folder / "bundle"]
    options = ["--format", "openai", "--duplicates", "keep"]
    return measure([sys.executable, "-m", "pipelines", "pull", *places, *options])


def jq_once(folder: Path, files: Sequence[str]) -> Usage:
    """Return what it took: zcat and jq over the same parts."""
    script = f'zcat "$@" | jq -c "$JQ" > {folder / "jq.jsonl"}'
    return measure(["sh", "-c", script, "sh", *files], {"JQ": _JQ})


def map_once(folder: Path, files: Sequence[str]) -> Usage:
    """Return what it took: load_dataset and map over the same parts."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    return measure([_CONSUMERS, "-c", _MAP, cache, *files], environment)


def main() -> None:
    """Print rates, ratios and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for gb in (options.gb / 4, options.gb):
            folder = Path(name) / f"{gb:g}"
            # Elsewhere: a process that is started counts the memory of the one that starts it.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                files, megabytes = pool.apply(prepare, (folder, gb))
            sides = {"pull": lambda: pull_once(folder)}  # noqa: B023 - used before the next turn
            if shutil.which("jq"):
                sides["zcat | jq -c"] = lambda: jq_once(folder, files)  # noqa: B023
            if _CONSUMERS.exists():
                sides["datasets map"] = lambda: map_once(folder, files)  # noqa: B023
            taken: dict[str, list[Usage]] = {side: [] for side in sides}
            for _ in range(options.runs):
                for side, run in sides.items():
                    taken[side].append(run())
            for side, usages in taken.items():
                ratio = statistics.median(
                    other.seconds / own.seconds
                    for own, other in zip(taken["pull"], usages, strict=True)
                )
                rate = megabytes / statistics.median(usage.seconds for usage in usages)
                peak = max(usage.peak_mb for usage in usages)
                sys.stdout.write(
                    f"{gb:g} GB  {side:<13} {rate:5.0f} MB/s  peak {peak:5.0f} MB  "
                    f"pull is {ratio:.2f}x as fast\n"
                )


if __name__ == "__main__":
    main()
