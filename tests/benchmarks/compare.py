"""What two runs wrote, compared: records per partition, and their parsed JSON.

Every line is counted. Parsed are those of a sample: the records whose completion id falls into it,
and all without one. Spelling and order of keys do not matter, nor do 1 and 1.0.
"""

import collections
import gzip
import io
import json
import re
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

_COMPLETION_ID = re.compile(
    rb'"(chatcmpl-[0-9A-Za-z]+)"'
)  # as tests.benchmarks.generate makes them


@dataclass(frozen=True, slots=True)
class Output:
    """What one side wrote.

    Attributes:
        stored_bytes: of the files.
        records: lines by partition.
        sample: parsed records by partition and completion id; True by partition and canonical text
            for a record without an id.
    """

    stored_bytes: int
    records: dict[str, int]
    sample: dict[tuple[str, str], Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the package wrote against what a peer wrote.

    Attributes:
        stored_bytes: of the package's files, and of the peer's.
        records: of the package, and lines of the peer.
        share_equal: of the package's sampled records, those that the peer wrote to the same
            partition with the same parsed JSON.
        same_counts: every partition has as many lines.
    """

    stored_bytes: tuple[int, int]
    records: tuple[int, int]
    share_equal: float
    same_counts: bool

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return self.same_counts and self.share_equal == 1


def compare_outputs(package: Path, peer: Path, one_in: int) -> Comparison:
    """Compare what lies in two destinations; of the completion ids one in `one_in` is looked at."""
    ours, theirs = (describe_output(path, one_in) for path in (package, peer))
    equal = sum(
        key in theirs.sample and theirs.sample[key] == record for key, record in ours.sample.items()
    )
    return Comparison(
        (ours.stored_bytes, theirs.stored_bytes),
        (sum(ours.records.values()), sum(theirs.records.values())),
        equal / max(len(ours.sample), 1),
        same_counts=ours.records == theirs.records,
    )


def describe_output(destination: Path, one_in: int) -> Output:
    """Count what one side wrote, and parse the sample."""
    stored_bytes = 0
    records: collections.Counter[str] = collections.Counter()
    sample: dict[tuple[str, str], Any] = {}
    for name, paths in list_partitions(destination).items():
        for path in paths:
            stored_bytes += path.stat().st_size
            with open_text(path) as lines:
                for line in lines:
                    records[name] += 1
                    found = _COMPLETION_ID.search(line)
                    if not found:
                        sample[name, _canonical(line)] = True
                    elif zlib.crc32(found[1]) % one_in == 0:
                        sample[name, found[1].decode()] = _parse(line)
    return Output(stored_bytes, dict(records), sample)


def list_partitions(destination: Path) -> dict[str, list[Path]]:
    """Return the files of each `date=…/model=…`, with the escapes of the names undone."""
    data = destination / "data"  # where the package keeps its parts; peers keep nothing else
    root = data if data.is_dir() else destination
    partitions: dict[str, list[Path]] = collections.defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name[0] not in "._":  # Spark's checksums and its _SUCCESS
            name = path.parent.relative_to(root).as_posix()
            partitions[urllib.parse.unquote(name)].append(path)
    return dict(partitions)


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


def _parse(line: bytes) -> Any:
    """Return what a line says, or None where it is no JSON."""
    with suppress(ValueError):
        return json.loads(line)
    return None


def _canonical(line: bytes) -> str:
    """Return one text for all spellings of a record."""
    with suppress(ValueError):
        return json.dumps(json.loads(line, parse_int=float), sort_keys=True)
    return line.decode(errors="replace")
