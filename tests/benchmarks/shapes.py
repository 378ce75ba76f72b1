"""The same events in other shapes: many small batches and few large ones, many partitions and few.

    python -m tests.benchmarks.shapes --batches 10000 --partitions 10000
    python -m tests.benchmarks.shapes --batches 200 --partitions 200 --runs 1

Two exports of the same events take turns (A B A B …); a ratio is the median of the pairs' and above
1 where the second shape is slower. Events are the generator's, about fifty to a small batch.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.benchmarks.generate import Generated, generate
from tests.benchmarks.measure import Usage, describe_versions, measure
from tests.benchmarks.memory import partition_keys

_SMALL_BATCH_BYTES = 550_000  # of payloads: about fifty events
_LARGE_BATCHES = 45
_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a disk would be the brake, not the code


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to hold and to cut the same events."""

    name: str
    source: Path
    partitions: int


def join_batches(made: Generated, folder: Path, count: int) -> None:
    """Write the events of small batches as `count` large ones, in order."""
    folder.mkdir()
    size = -(-len(made.batches) // count)
    for number, start in enumerate(range(0, len(made.batches), size)):
        paths = made.batches[start : start + size]
        first = pq.ParquetFile(paths[0])
        with pq.ParquetWriter(
            folder / f"{number:05}.parquet", first.schema_arrow, compression="zstd"
        ) as writer:
            for path in paths:
                writer.write_table(pq.read_table(path))


def export_shape(shape: Shape, folder: Path, options: argparse.Namespace) -> Usage:
    """Export one shape in a process of its own."""
    destination, config = folder / "out", folder / "shape.yaml"
    shutil.rmtree(destination, ignore_errors=True)
    settings: Mapping[str, Any] = {
        "name": "shapes",
        "source": {"url": shape.source.as_uri(), "preset": "openpipe"},
        "destination": {"url": destination.as_uri()},
        "partition_by": list(partition_keys(shape.partitions)),
        "compression": options.compression,
        "threads": options.threads,
    }
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return measure([sys.executable, "-m", "pipelines", "export", str(config), "--json"])


def compare(
    first: Shape, second: Shape, folder: Path, options: argparse.Namespace, raw_bytes: int
) -> list[str]:
    """Export two shapes in turns; return their rows of the table."""
    pairs = [
        (export_shape(first, folder, options), export_shape(second, folder, options))
        for _ in range(options.runs)
    ]
    ratio = statistics.median(b.wall_seconds / a.wall_seconds for a, b in pairs)
    ours = zip(*pairs, strict=True)
    return [
        _row(shape, usages, raw_bytes, ratio if shape is second else 1.0)
        for shape, usages in zip((first, second), ours, strict=True)
    ]


def _row(shape: Shape, usages: Sequence[Usage], raw_bytes: int, ratio: float) -> str:
    wall = statistics.median(usage.wall_seconds for usage in usages)
    cells = (
        shape.name,
        f"{wall:.1f}",
        f"{raw_bytes / 1e6 / wall:,.0f}",
        f"{statistics.median(usage.cpu_seconds for usage in usages):.1f}",
        f"{statistics.median(usage.peak_bytes for usage in usages) / 1e6:,.0f}",
        f"{ratio:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    """Generate, export in turns, print a table."""
    options = _parse(arguments)
    write = sys.stdout.write
    parent = options.dir or (_MEMORY_FILE_SYSTEM if _MEMORY_FILE_SYSTEM.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="shapes-", dir=parent) as name:
        folder = Path(name)
        small, large = folder / "small", folder / "large"
        raw_bytes = options.batches * _SMALL_BATCH_BYTES
        made = generate(small, raw_bytes=raw_bytes, batches=options.batches)
        join_batches(made, large, _LARGE_BATCHES)
        few = Shape(f"{len(list(large.iterdir()))} batches, 24 partitions", large, 24)
        write(f"{describe_versions(options.threads)}; {options.compression}\n")
        write(
            f"{made.events:,} events, {made.raw_bytes / 1e9:.1f} GB of payloads,"
            f" {made.events / len(made.batches):.0f} to a small batch\n\n"
        )
        write("| shape | wall s | raw MB/s | CPU s | peak MB | wall ratio |\n")
        write("| --- | ---: | ---: | ---: | ---: | ---: |\n")
        for other in (
            Shape(f"{len(made.batches):,} batches, 24 partitions", small, 24),
            Shape(f"{options.partitions:,} partitions", large, options.partitions),
        ):
            write("\n".join(compare(few, other, folder, options, made.raw_bytes)) + "\n")
            sys.stdout.flush()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=10_000, help="small batches")
    parser.add_argument("--partitions", type=int, default=10_000, help="of the finest cut")
    parser.add_argument("--compression", default="gzip", choices=("gzip", "zstd", "none"))
    parser.add_argument("--runs", type=int, default=2, help="pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, help="where data goes; default is memory, if there is")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
