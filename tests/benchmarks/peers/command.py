"""The command line that all peers share; the standard library alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Compression = Literal["gzip", "zstd", "none"]
COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd", "none")
SUFFIXES: dict[Compression, str] = {"gzip": ".jsonl.gz", "zstd": ".jsonl.zst", "none": ".jsonl"}


class Options(argparse.Namespace):
    """What a peer is told to do.

    Attributes:
        source: folder of the batches, `*.parquet`.
        destination: an empty folder; Hive partitions by date and model go below it.
        compression: codec of the files.
        threads: as many as the tool may use.
        flat: write into one folder, not into partitions.
        route: one of the tool's ways, where it has several.
    """

    source: Path
    destination: Path
    compression: Compression
    threads: int
    flat: bool
    route: str

    @property
    def batches(self) -> list[Path]:
        """The batches in order of their names."""
        return sorted(self.source.glob("*.parquet"))


def parse_options(doc: str, routes: Sequence[str] = ("json",)) -> Options:
    """Return the options of this process; `doc` is the script's, `routes` has its ways."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--compression", choices=COMPRESSIONS, default="gzip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flat", action="store_true", help="write no partitions")
    parser.add_argument("--route", choices=routes, default=routes[0])
    return parser.parse_args(namespace=Options())
