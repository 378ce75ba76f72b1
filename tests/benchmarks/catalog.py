"""The peers of the paired runs: what each is, and which of them this machine can run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.peers.command import COMPRESSIONS, Compression

_MODULES = "tests.benchmarks.peers"
_LOOK_UP = """
import importlib.metadata, json, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(versions))
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One tool and one way of using it.

    Attributes:
        script: module of `tests.benchmarks.peers`.
        package: what must be installed where it runs; empty runs with the package's own Python.
        route: which of the script's ways, where it has several.
        always_flat: it writes no partitions.
        keeps_content: it promises every record, equal as parsed JSON.
        is_floor: it writes nothing; what it does is part of what every export has to do.
        compressions: the codecs that it has.
    """

    script: str
    package: str = ""
    route: str = ""
    always_flat: bool = False
    keeps_content: bool = False
    is_floor: bool = False
    compressions: tuple[Compression, ...] = COMPRESSIONS

    def command(self, python: str, source: Path, destination: Path, *options: str) -> list[str]:
        """Return the command of one run."""
        route = ("--route", self.route) if self.route else ()
        start = [python, "-m", f"{_MODULES}.{self.script}", str(source), str(destination)]
        return [*start, *route, *options]


PEERS = {
    "scan-concat": Peer("scan", is_floor=True),
    "compressor": Peer("compressor", is_floor=True, compressions=("gzip", "zstd")),
    "unchecked": Peer("unchecked"),
    "duckdb": Peer("duckdb", keeps_content=True),
    "polars-json": Peer("polars", "polars", "json"),
    "polars-concat": Peer("polars", "polars", "concat"),
    "chdb-json": Peer("chdb", "chdb", "json", always_flat=True),
    "chdb-concat": Peer("chdb", "chdb", "concat", always_flat=True),
    "orjson": Peer("orjson", "orjson", keeps_content=True),
    # What pip installs lacks Hadoop's native library, which alone writes zstd.
    "spark": Peer("spark", "pyspark", keeps_content=True, compressions=("gzip", "none")),
}


@dataclass(frozen=True, slots=True)
class Found:
    """The peers that can run, versions of their packages, and why the others cannot."""

    python: Path
    peers: dict[str, Peer]
    versions: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)

    def python_of(self, peer: Peer) -> str:
        """Return the interpreter that runs a peer."""
        return str(self.python) if peer.package else sys.executable


def find_peers(names: Collection[str], python: Path) -> Found:
    """Return which of the named peers can run; `python` is the interpreter of their venv."""
    versions = _list_installed(python)
    peers: dict[str, Peer] = {}
    left_out: dict[str, str] = {}
    for name in names:
        peer = PEERS[name]
        if peer.package and peer.package not in versions:
            left_out[name] = f"{python} has no {peer.package}: `make peers` installs it"
        elif peer.package == "pyspark" and not _has_java():
            left_out[name] = "no java on the PATH nor at JAVA_HOME"
        else:
            peers[name] = peer
    used = {peer.package for peer in peers.values()}
    shown = {name: version for name, version in versions.items() if name in used}
    return Found(python, peers, shown, left_out)


def _list_installed(python: Path) -> dict[str, str]:
    """Return the versions of the peers' packages that an interpreter has."""
    if not python.exists():
        return {}
    packages = sorted({peer.package for peer in PEERS.values()} - {""})
    looked_up = subprocess.run(  # noqa: S603 - a program of ours
        [python, "-c", _LOOK_UP, *packages], stdout=subprocess.PIPE, text=True, check=True
    )
    versions: dict[str, str] = json.loads(looked_up.stdout)
    return versions


def _has_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return bool(shutil.which("java") or (home and shutil.which("java", path=f"{home}/bin")))
