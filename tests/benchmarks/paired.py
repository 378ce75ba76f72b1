"""Paired runs of the package against a plain DuckDB recipe, each in a fresh process.

    python -m tests.benchmarks.paired --gb 0.5 --compression gzip zstd none --runs 3
    python -m tests.benchmarks.paired --quick

A is `request-logs export`, B is `tests/benchmarks/recipe.py`. They take turns (A B A B …), so a
noisy neighbour hits both alike; figures are medians, the ratio is the median of the pairs'. What
they wrote is compared too: records per partition, and parsed JSON in a sample of the partitions.
Peak memory is `ru_maxrss` as Linux counts it.
"""

import argparse
import collections
import gzip
import importlib.metadata
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import yaml
import zstandard

from tests.benchmarks.generate import generate

Compression = Literal["gzip", "zstd", "none"]
Side = Literal["package", "recipe"]
SIDES: tuple[Side, ...] = ("package", "recipe")
SAMPLED_PARTITIONS = 3
_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a disk would be the brake, not the code


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Output:
    """What one side wrote: bytes as stored and as text, and records per partition."""

    stored_bytes: int
    text_bytes: int
    records: dict[str, int]


@dataclass(frozen=True, slots=True)
class Setup:
    """The parameters every run shares."""

    directory: Path
    source: Path
    threads: int
    memory_limit: str

    def destination(self, side: Side) -> Path:
        """Return where a side writes; emptied before each of its runs."""
        return self.directory / "out" / side

    def command(self, side: Side, compression: Compression) -> list[str]:
        """Return the command of one side; writes the config that the package reads."""
        destination = self.destination(side)
        if side == "recipe":
            recipe = [sys.executable, "-m", "tests.benchmarks.recipe"]
            arguments = [str(self.source), str(destination)]
            return [*recipe, *arguments, "--compression", compression, f"--threads={self.threads}"]
        config = self.directory / f"paired-{compression}.yaml"
        settings = {
            "name": "paired",
            "source": {"url": self.source.as_uri(), "preset": "openpipe"},
            "destination": {"url": destination.as_uri()},
            "partition_by": ["date", "model"],
            "compression": compression,
            "threads": self.threads,
            "memory_limit": self.memory_limit,
        }
        config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        return [sys.executable, "-m", "pipelines", "export", str(config), "--json"]


def measure(command: list[str]) -> Usage:
    """Run a command to its end; stop the benchmark with its messages if it fails."""
    with tempfile.TemporaryFile() as messages:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - commands are built above
            command, stdout=subprocess.DEVNULL, stderr=messages
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            messages.seek(0)
            text = messages.read().decode(errors="replace")
            sys.exit(f"exit code {process.returncode} from {' '.join(command)}\n{text}")
    return Usage(wall_seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def run_pairs(
    setup: Setup, compression: Compression, runs: int, sides: tuple[Side, ...]
) -> dict[Side, list[Usage]]:
    """Run the sides in turns, `runs` times each; the last output of each stays on disk."""
    usages: dict[Side, list[Usage]] = {side: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            destination = setup.destination(side)
            shutil.rmtree(destination, ignore_errors=True)
            destination.mkdir(parents=True)
            usages[side].append(measure(setup.command(side, compression)))
    return usages


def list_partitions(destination: Path) -> dict[str, list[Path]]:
    """Return the files of each `date=…/model=…`, with the escapes of the names undone."""
    partitions: dict[str, list[Path]] = collections.defaultdict(list)
    for path in sorted(destination.rglob("date=*/model=*/*")):
        name = "/".join(path.parts[-3:-1])
        partitions[urllib.parse.unquote(name)].append(path)
    return dict(partitions)


def describe_output(destination: Path) -> Output:
    """Count what a side wrote, decompressing all of it."""
    stored_bytes = text_bytes = 0
    records: dict[str, int] = {}
    for name, paths in list_partitions(destination).items():
        records[name] = 0
        for path in paths:
            stored_bytes += path.stat().st_size
            with open_text(path) as lines:
                for line in lines:
                    text_bytes += len(line)
                    records[name] += 1
    return Output(stored_bytes, text_bytes, records)


@contextmanager
def open_text(path: Path) -> Iterator[Iterable[bytes]]:
    """Open a JSONL file for reading by lines, whatever its codec."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(file) as lines:
                yield lines
        elif magic == zstandard.FRAME_HEADER:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            with io.BufferedReader(reader, 1 << 20) as lines:
                yield lines
        else:
            yield file


def compare_outputs(setup: Setup, outputs: dict[Side, Output]) -> list[str]:
    """Return what differs between the two sides, a sentence each; empty when nothing does."""
    package, recipe = outputs["package"].records, outputs["recipe"].records
    differences = [
        f"{name}: {package.get(name, 0):,} records here, {recipe.get(name, 0):,} in the recipe's"
        for name in sorted(package.keys() | recipe.keys())
        if package.get(name) != recipe.get(name)
    ]
    step = max(len(recipe) // SAMPLED_PARTITIONS, 1)
    for name in sorted(package.keys() & recipe.keys())[::step]:
        ours, theirs = (
            count_parsed(list_partitions(setup.destination(side))[name]) for side in SIDES
        )
        if ours != theirs:
            only_here, only_there = ours - theirs, theirs - ours
            differences.append(
                f"{name}: {only_here.total():,} records only here,"
                f" {only_there.total():,} only in the recipe's"
            )
    return differences


def count_parsed(paths: list[Path]) -> collections.Counter[int]:
    """Count records by what they parse to: spelling and key order do not matter."""
    counts: collections.Counter[int] = collections.Counter()
    for path in paths:
        with open_text(path) as lines:
            counts.update(hash(json.dumps(json.loads(line), sort_keys=True)) for line in lines)
    return counts


def format_rows(
    compression: Compression, usages: dict[Side, list[Usage]], outputs: dict[Side, Output]
) -> list[str]:
    """Return one Markdown row a side."""
    ratio = "-"
    if len(usages) > 1:
        ratio = f"{wall_ratio(usages):.2f}"
    rows: list[str] = []
    for side, runs in usages.items():
        wall_seconds = statistics.median(run.wall_seconds for run in runs)
        cpu_seconds = statistics.median(run.cpu_seconds for run in runs)
        peak_bytes = statistics.median(run.peak_bytes for run in runs)
        output = outputs[side]
        cells = (
            compression,
            side,
            f"{wall_seconds:.2f}",
            f"{output.text_bytes / 1e6 / wall_seconds:,.0f}",
            f"{cpu_seconds:.2f}",
            f"{peak_bytes / 1e6:,.0f}",
            f"{output.stored_bytes / 1e6:,.1f}",
            f"{sum(output.records.values()):,}",
            ratio if side == "package" else "1",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def wall_ratio(usages: dict[Side, list[Usage]]) -> float:
    """Return the median over the pairs of the package's wall time by the recipe's."""
    pairs = zip(usages["package"], usages["recipe"], strict=True)
    return statistics.median(ours.wall_seconds / theirs.wall_seconds for ours, theirs in pairs)


def describe_versions(threads: int) -> str:
    """Return date, versions and machine on one line."""
    packages = ("duckdb", "pyarrow", "zstandard")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {', '.join(versions)},"
        f" {platform.machine()}, {os.cpu_count()} CPUs, {threads} threads"
    )


def main(arguments: list[str] | None = None) -> None:
    """Generate the batches, run the pairs, print a table; exit 1 where the contents differ."""
    options = _parse(arguments)
    write: Callable[[str], object] = sys.stdout.write
    raw_bytes, runs = (50_000_000, 1) if options.quick else (int(options.gb * 1e9), options.runs)
    parent = options.dir or (_MEMORY_FILE_SYSTEM if _MEMORY_FILE_SYSTEM.is_dir() else None)
    sides: tuple[Side, ...] = (options.only,) if options.only else SIDES
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="paired-", dir=parent) as name:
        source = Path(name) / "raw"
        made = generate(source, raw_bytes=raw_bytes, batches=max(raw_bytes // 22_000_000, 1))
        setup = Setup(Path(name), source, options.threads, options.memory_limit)
        write(f"{describe_versions(options.threads)}; medians of {runs}, ratio of wall times\n")
        write(
            f"{made.events:,} events, {made.raw_bytes / 1e6:,.0f} MB of payloads in"
            f" {len(made.batches)} batches\n\n"
        )
        write("| codec | side | wall s | MB/s | CPU s | peak MB | stored MB | records | ratio |\n")
        write("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
        for compression in options.compression:
            usages = run_pairs(setup, compression, runs, sides)
            outputs = {side: describe_output(setup.destination(side)) for side in sides}
            write("\n".join(format_rows(compression, usages, outputs)) + "\n")
            sys.stdout.flush()
            if len(sides) > 1:
                failures += compare_outputs(setup, outputs)
                too_slow = options.max_ratio and wall_ratio(usages) > options.max_ratio
                if too_slow and not options.quick:
                    failures.append(f"{compression}: slower than {options.max_ratio} x the recipe")
    if failures:
        sys.exit("\n".join(failures))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=0.5, help="gigabytes of payload text")
    codecs = ("gzip", "zstd", "none")
    parser.add_argument("--compression", nargs="+", choices=codecs, default=list(codecs))
    parser.add_argument("--runs", type=int, default=3, help="pairs for each codec")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", default="2GB", help="of the package's engine")
    parser.add_argument("--max-ratio", type=float, help="fail when the package is slower than this")
    parser.add_argument("--only", choices=SIDES, help="run one side, compare nothing")
    parser.add_argument("--dir", type=Path, help="where data goes; default is memory, if there is")
    parser.add_argument("--quick", action="store_true", help="50 MB, one pair, no speed limit")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
