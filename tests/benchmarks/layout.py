"""Layouts of one export on this machine: DuckDB threads, writer threads, worker processes.

    python -m tests.benchmarks.layout --gb 1 --compression gzip zstd none

All layouts take turns; a ratio is the median of each turn's, against the layout that `auto` takes,
and above 1 where that one is faster. What they wrote is compared byte for byte.
"""

import argparse
import hashlib
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.benchmarks.generate import generate
from tests.benchmarks.measure import Usage, describe_versions, measure

_BATCH_BYTES = 22_000_000
_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a disk would be the brake, not the code
_COMMAND = (
    "import pipelines.shard; pipelines.shard._LOCAL_WRITERS = {writers}; "
    "from pipelines.cli import main; main()"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one export is spread: processes, and threads in each."""

    workers: int
    threads: int
    writers: int


LAYOUTS = (
    Layout(1, 2, 2),  # what `auto` takes on two cores
    Layout(1, 1, 2),
    Layout(1, 4, 2),
    Layout(1, 2, 1),
    Layout(1, 2, 4),
    Layout(2, 1, 1),
    Layout(2, 1, 2),
    Layout(2, 2, 2),
)


def export_once(folder: Path, layout: Layout, codec: str) -> tuple[Usage, str]:
    """Export everything anew; return what it took, and a digest of all parts."""
    destination = folder / "out"
    shutil.rmtree(destination, ignore_errors=True)
    settings = {
        "name": "layout",
        "source": {"url": (folder / "raw").as_uri(), "preset": "openpipe"},
        "destination": {"url": destination.as_uri()},
        "partition_by": ["date", "model"],
        "compression": codec,
        "threads": layout.threads,
        "workers": layout.workers,
    }
    config = folder / "layout.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    script = _COMMAND.format(writers=layout.writers)
    usage = measure([sys.executable, "-c", script, "export", str(config)])
    digest = hashlib.sha256()
    for path in sorted((destination / "data").rglob("*.jsonl*")):
        digest.update(path.name.encode() + path.read_bytes())
    return usage, digest.hexdigest()


def compare(folder: Path, codec: str, runs: int, raw_bytes: int) -> list[str]:
    """Return a row for each layout with one codec."""
    taken: dict[Layout, list[Usage]] = {layout: [] for layout in LAYOUTS}
    digests = set()
    for _ in range(runs):
        for layout, usages in taken.items():
            usage, digest = export_once(folder, layout, codec)
            usages.append(usage)
            digests.add(digest)
    if len(digests) > 1:
        raise SystemExit("layouts wrote other bytes")
    first = taken[LAYOUTS[0]]
    rows = []
    for layout, usages in taken.items():
        wall = statistics.median(usage.wall_seconds for usage in usages)
        ratio = statistics.median(
            usage.wall_seconds / base.wall_seconds
            for usage, base in zip(usages, first, strict=True)
        )
        rows.append(
            f"| {codec} | {layout.workers} | {layout.threads} | {layout.writers} | "
            f"{raw_bytes / 1e6 / wall:,.0f} | "
            f"{statistics.median(usage.cpu_seconds for usage in usages):.1f} | "
            f"{max(usage.peak_bytes for usage in usages) / 1e6:,.0f} | {ratio:.2f} |"
        )
    return rows


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--compression", nargs="+", default=["gzip", "zstd"])
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    base = _MEMORY_FILE_SYSTEM if _MEMORY_FILE_SYSTEM.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="request-logs-layout-", dir=base))
    try:
        raw = int(options.gb * 1e9)
        made = generate(folder / "raw", raw_bytes=raw, batches=max(1, raw // _BATCH_BYTES))
        sys.stdout.write(f"{describe_versions(2)}\n\n")
        sys.stdout.write(
            "| codec | processes | DuckDB threads | writers | MB/s | CPU s | peak MB of one | "
            "auto is faster by |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        )
        for codec in options.compression:
            for row in compare(folder, codec, options.runs, made.raw_bytes):
                sys.stdout.write(row + "\n")
                sys.stdout.flush()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
