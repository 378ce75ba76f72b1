"""Peak memory of whole exports, by the size of the source and the number of partitions.

    python -m tests.benchmarks.memory --gb 1 4 16
    python -m tests.benchmarks.memory --gb 1 --partitions 1 24 1000 10000 --compression zstd

Each export is a process of its own with the command line's defaults but for `memory_limit`; peak
memory is `ru_maxrss`. The promise is `memory_limit` and 512 MB, whatever the size of the source.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipelines.values import parse_bytes
from tests.benchmarks.generate import Generated, generate
from tests.benchmarks.measure import Usage, describe_versions, measure

BATCH_BYTES = 22_000_000
ALLOWANCE_BYTES = 512_000_000


def partition_keys(count: int) -> Sequence[str | dict[str, str]]:
    """Return `partition_by` of a config that makes about `count` partitions."""
    if count == 1:
        return ()
    if count <= 24:
        return ("date", "model")
    bucket = f"('0x' || substr(md5(id), 1, 8))::bigint % {count}"
    return ({"name": "bucket", "expression": bucket},)


def export_once(
    folder: Path, made: Generated, partitions: int, codec: str, options: argparse.Namespace
) -> tuple[str, Usage]:
    """Export the batches of a folder; return the table's row, and what the process took."""
    destination = folder / f"{partitions}-{codec}"
    config = destination.with_suffix(".yaml")
    settings = {
        "name": "memory",
        "source": {"url": (folder / "raw").as_uri(), "preset": "openpipe"},
        "destination": {"url": destination.as_uri()},
        "partition_by": list(partition_keys(partitions)),
        "compression": codec,
        "threads": options.threads,
        "memory_limit": options.memory_limit,
    }
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    usage = measure([sys.executable, "-m", "pipelines", "export", str(config)])
    parts = [path for path in (destination / "data").rglob("*") if path.is_file()]
    cells = (
        f"{made.raw_bytes / 1e9:.1f}",
        f"{len({part.parent for part in parts}):,}",
        codec,
        f"{len(parts):,}",
        f"{usage.wall_seconds:.1f}",
        f"{made.raw_bytes / 1e6 / usage.wall_seconds:,.0f}",
        f"{usage.cpu_seconds:.1f}",
        f"{usage.peak_bytes / 1e6:,.0f}",
    )
    shutil.rmtree(destination)
    return f"| {' | '.join(cells)} |", usage


def main(arguments: list[str] | None = None) -> None:
    """Export every combination once and print a table; exit 1 where one takes too much."""
    options = _parse(arguments)
    allowed = parse_bytes(options.memory_limit) + ALLOWANCE_BYTES
    write = sys.stdout.write
    write(f"{describe_versions(options.threads)}; memory_limit {options.memory_limit}\n\n")
    write("| raw GB | partitions | codec | parts | wall s | raw MB/s | CPU s | peak MB |\n")
    write("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n")
    above = False
    for gigabytes in options.gb:
        with tempfile.TemporaryDirectory(prefix="memory-", dir=options.dir) as name:
            raw_bytes = int(gigabytes * 1e9)
            batches = max(raw_bytes // BATCH_BYTES, 1)
            made = generate(Path(name) / "raw", raw_bytes=raw_bytes, batches=batches)
            for partitions, codec in itertools.product(options.partitions, options.compression):
                row, usage = export_once(Path(name), made, partitions, codec, options)
                write(f"{row}\n")
                sys.stdout.flush()
                above |= usage.peak_bytes > allowed
    if above:
        sys.exit("an export took more than its memory_limit and 512 MB")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", nargs="+", type=float, default=[1.0], help="payload text")
    parser.add_argument("--partitions", nargs="+", type=int, default=[24])
    codecs = ("gzip", "zstd", "none")
    parser.add_argument("--compression", nargs="+", choices=codecs, default=["gzip"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", default="512MB", help="of the package's engine")
    parser.add_argument("--dir", type=Path, help="where data goes; default is the temporary folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
