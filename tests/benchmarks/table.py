"""The table of the paired runs, in Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.compare import Comparison
from tests.benchmarks.measure import Usage
from tests.benchmarks.peers.command import Compression

HEADER = (
    "| codec | peer | layout | MB/s, package : peer | speed ratio | CPU s | peak MB | stored MB"
    " | records equal |\n"
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n"
)
_COLUMNS = 9


@dataclass(frozen=True, slots=True)
class Pairs:
    """The runs of the package and of one peer, in turns, and what they wrote.

    `text_bytes` is the package's lines; `comparison` is None for floors, which write nothing.
    """

    package: Sequence[Usage]
    peer: Sequence[Usage]
    text_bytes: int
    comparison: Comparison | None

    @property
    def speed_ratio(self) -> float:
        """Median over the pairs of how many times as fast the package is."""
        return statistics.median(
            peer.wall_seconds / package.wall_seconds
            for package, peer in zip(self.package, self.peer, strict=True)
        )


def format_row(compression: Compression, name: str, layout: str, pairs: Pairs) -> str:
    """Return the row of one peer: the package's figure first, then the peer's."""

    def both(value: Callable[[Usage], float], form: str) -> str:
        medians = (statistics.median(map(value, runs)) for runs in (pairs.package, pairs.peer))
        return " : ".join(format(median, form) for median in medians)

    found = pairs.comparison
    return _format_cells(
        compression,
        name,
        layout,
        both(lambda usage: pairs.text_bytes / 1e6 / usage.wall_seconds, ",.0f"),
        f"{pairs.speed_ratio:.2f}",
        both(lambda usage: usage.cpu_seconds, ".2f"),
        both(lambda usage: usage.peak_bytes / 1e6, ",.0f"),
        " : ".join(f"{size / 1e6:,.1f}" for size in found.stored_bytes) if found else "-",
        _format_content(found) if found else "writes nothing",
    )


def format_note(compression: Compression, name: str, layout: str, note: str) -> str:
    """Return the row of a peer without figures: why there are none."""
    cells = [compression, name, layout, note.replace("|", "/")]
    return _format_cells(*cells, *[""] * (_COLUMNS - len(cells)))


def format_floors(measured: Mapping[tuple[Compression, str], Pairs]) -> list[str]:
    """Return a sentence for each codec on how near the package comes to what nobody can skip."""
    lines = []
    for (compression, name), scan in measured.items():
        if name != "scan-concat":
            continue
        compressor = measured.get((compression, "compressor"))
        what, least = "scan-concat", 0.6
        floor = statistics.median(usage.wall_seconds for usage in scan.peer)
        if compressor:
            what, least = "scan-concat and then compressor", 0.85
            floor += statistics.median(usage.wall_seconds for usage in compressor.peer)
        elif compression != "none":
            continue
        taken = statistics.median(usage.wall_seconds for usage in scan.package)
        lines.append(
            f"{compression}: {scan.text_bytes / 1e6 / taken:,.0f} MB/s, {floor / taken:.2f} of"
            f" {what} ({scan.text_bytes / 1e6 / floor:,.0f} MB/s); the aim is {least}"
        )
    return lines


def _format_content(found: Comparison) -> str:
    share = f"{found.share_equal:.1%}"
    if share == "100.0%" and found.share_equal < 1:
        share = "99.9%"
    ours, theirs = found.records
    if ours != theirs:
        return f"{share}; {theirs:,} lines for {ours:,}"
    return share if found.same_counts else f"{share}; other partitions"


def _format_cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"
