"""Paired runs of the package against its peers, each in a fresh process.

    python -m tests.benchmarks.paired --gb 0.5 --compression gzip zstd none --runs 3
    python -m tests.benchmarks.paired --quick
    python -m tests.benchmarks.paired --peers duckdb polars-concat --clean

A is `request-logs export`, B is a script of `tests/benchmarks/peers`. They take turns (A B A B …),
so a noisy neighbour hits both alike; figures are medians, the ratio is the median of the pairs':
above 1 the package is faster. MB are the package's lines, whatever the peer makes of them. What
both wrote is compared too, in every partition; where a peer that promises the same content writes
another one, the exit code is 1. Two rows are floors: `scan-concat` reads and joins the strings of
the lines, `compressor` is the package's codec alone; neither writes anything.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import yaml

from tests.benchmarks.catalog import PEERS, Found, Peer, find_peers
from tests.benchmarks.compare import compare_outputs
from tests.benchmarks.generate import Generated, generate
from tests.benchmarks.measure import (
    CommandError,
    Usage,
    describe_versions,
    list_versions,
    measure,
)
from tests.benchmarks.peers.command import COMPRESSIONS, Compression
from tests.benchmarks.table import HEADER, Pairs, format_floors, format_note, format_row

PEERS_PYTHON = Path(".venv-peers/bin/python")
_BATCH_BYTES = 22_000_000
_SAMPLE_BYTES = 50_000_000  # of payloads, at least; parsing all of a gigabyte would take minutes
_REASON = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception): .+)", re.MULTILINE)
_REASON_CHARS = 160
_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a disk would be the brake, not the code


class PeerError(Exception):
    """A peer failed; the text is one line."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The parameters every run shares; `elsewhere` keeps generating and comparing out of here."""

    directory: Path
    elsewhere: Executor
    made: Generated
    found: Found
    runs: int
    threads: int
    memory_limit: str
    is_flat: bool

    @property
    def source(self) -> Path:
        """The folder of the batches."""
        return self.directory / "raw"

    def is_flat_for(self, peer: Peer) -> bool:
        """Return whether both sides write no partitions."""
        return self.is_flat or peer.always_flat

    def destination(self, side: str) -> Path:
        """Return where a side writes, emptied."""
        path = self.directory / "out" / side
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def package_command(
        self, destination: Path, compression: Compression, *, flat: bool
    ) -> list[str]:
        """Return the command of the package; writes the config that it reads."""
        config = self.directory / "paired.yaml"
        settings = {
            "name": "paired",
            "source": {"url": self.source.as_uri(), "preset": "openpipe"},
            "destination": {"url": destination.as_uri()},
            "partition_by": [] if flat else ["date", "model"],
            "compression": compression,
            "threads": self.threads,
            "memory_limit": self.memory_limit,
        }
        config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        return [sys.executable, "-m", "pipelines", "export", str(config), "--json"]

    def peer_command(self, peer: Peer, destination: Path, compression: Compression) -> list[str]:
        """Return the command of a peer."""
        options = [f"--compression={compression}", f"--threads={self.threads}"]
        if self.is_flat_for(peer):
            options.append("--flat")
        return peer.command(self.found.python_of(peer), self.source, destination, *options)


def run_pairs(setup: Setup, peer: Peer, compression: Compression) -> Pairs:
    """Run the package and a peer in turns, and compare what they wrote last.

    Raises:
        PeerError: the peer failed; all else that fails is the package's or the benchmark's fault.
    """
    flat = setup.is_flat_for(peer)
    package_runs: list[Usage] = []
    peer_runs: list[Usage] = []
    package_output = peer_output = setup.directory
    for _ in range(setup.runs):
        package_output = setup.destination("package")
        command = setup.package_command(package_output, compression, flat=flat)
        package_runs.append(measure(command))
        peer_output = setup.destination("peer")
        peer_runs.append(measure_peer(setup.peer_command(peer, peer_output, compression)))
    one_in = max(setup.made.raw_bytes // _SAMPLE_BYTES, 1)
    comparison = None
    if not peer.is_floor:
        compared = setup.elsewhere.submit(compare_outputs, package_output, peer_output, one_in)
        comparison = compared.result()
    windows = json.loads(package_runs[-1].printed)["windows"]
    text_bytes = sum(window["raw_bytes"] for window in windows)
    return Pairs(package_runs, peer_runs, text_bytes, comparison)


def measure_peer(command: list[str]) -> Usage:
    """Run a peer; a floor says itself what counts, if it prints anything."""
    try:
        usage = measure(command)
    except CommandError as exc:
        reasons = _REASON.findall(str(exc)) or str(exc).splitlines()
        raise PeerError(reasons[-1][:_REASON_CHARS]) from exc
    return replace(usage, **json.loads(usage.printed)) if usage.printed else usage


def run_all(setup: Setup, compressions: list[Compression]) -> list[str]:
    """Print a row for each codec and peer, and the floors; return what broke a promise."""
    write = sys.stdout.write
    write(HEADER)
    measured: dict[tuple[Compression, str], Pairs] = {}
    broken: list[str] = []
    for compression in compressions:
        for name, peer in setup.found.peers.items():
            layout = "flat" if setup.is_flat_for(peer) else "partitioned"
            if compression not in peer.compressions:
                if not peer.is_floor:
                    write(format_note(compression, name, layout, f"has no {compression}"))
                continue
            try:
                pairs = run_pairs(setup, peer, compression)
            except PeerError as exc:
                write(format_note(compression, name, layout, f"fails: {exc}"))
                if not peer.package:  # the others' venv, or Java, may be what is wrong
                    broken.append(f"{compression}, {name}: {exc}")
                continue
            measured[compression, name] = pairs
            write(format_row(compression, name, layout, pairs))
            sys.stdout.flush()
            if peer.keeps_content and pairs.comparison and not pairs.comparison.is_same:
                broken.append(f"{compression}, {name}: another content than the package's")
    write("\n" + "".join(f"- {line}\n" for line in format_floors(measured)))
    return broken


def main(arguments: list[str] | None = None) -> None:
    """Generate the batches, run the pairs, print a table; exit 1 where a promise is broken."""
    options = _parse(arguments)
    write = sys.stdout.write
    raw_bytes, runs = (50_000_000, 1) if options.quick else (int(options.gb * 1e9), options.runs)
    parent = options.dir or (_MEMORY_FILE_SYSTEM if _MEMORY_FILE_SYSTEM.is_dir() else None)
    found = find_peers(options.peers, options.peers_python)
    with (
        tempfile.TemporaryDirectory(prefix="paired-", dir=parent) as name,
        ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as elsewhere,
    ):
        directory = Path(name)
        made = elsewhere.submit(
            generate,
            directory / "raw",
            raw_bytes=raw_bytes,
            batches=max(raw_bytes // _BATCH_BYTES, 1),
            one_line=options.clean,
        ).result()
        limit, flat = options.memory_limit, options.flat
        setup = Setup(directory, elsewhere, made, found, runs, options.threads, limit, flat)
        write(f"{describe_versions(options.threads)}\n")
        write(
            f"peers: {list_versions(found.versions) or 'none installed'}; pairs of each: {runs}\n"
        )
        write(f"{made.events:,} events, {made.raw_bytes / 1e6:,.0f} MB of payloads in")
        write(f" {len(made.batches)} batches{', none pretty-printed' if options.clean else ''}\n\n")
        broken = run_all(setup, options.compression)
        write("".join(f"- left out: {peer}, {why}\n" for peer, why in found.left_out.items()))
    if broken:
        sys.exit("\n".join(broken))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=0.5, help="gigabytes of payload text")
    codecs = list(COMPRESSIONS)
    parser.add_argument("--compression", nargs="+", choices=codecs, default=codecs)
    parser.add_argument("--runs", type=int, default=3, help="pairs for each codec and peer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", default="2GB", help="of the package's engine")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help="of their venv")
    parser.add_argument("--flat", action="store_true", help="write no partitions")
    parser.add_argument("--clean", action="store_true", help="no payload is pretty-printed")
    parser.add_argument("--dir", type=Path, help="where data goes; default is memory, if there is")
    parser.add_argument(
        "--quick", action="store_true", help="50 MB, one pair: mostly starts of processes"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
