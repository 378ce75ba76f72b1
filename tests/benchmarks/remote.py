"""Exports over S3, SeaweedFS on the loopback: against local files, against Polars, and in bytes.

    python -m tests.benchmarks.remote --gb 1
    python -m tests.benchmarks.remote --gb 0.05 --runs 1

Pairs take turns (A B A B …); figures are medians, the ratio is the median of the pairs' and above 1
where the first is faster. Polars joins strings and checks nothing; it needs `make peers`. What a
slice reads is counted on the way from the server, against the payload columns' bytes in the row
groups that hold the slice's events.
"""

import argparse
import os
import shutil
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import yaml

from tests.benchmarks.generate import FIRST_AT, Generated, generate
from tests.benchmarks.measure import Usage, describe_versions, measure
from tests.s3_server import S3Server, serve_s3

_BATCH_BYTES = 22_000_000
_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a disk would be the brake, not the code
_PEERS_PYTHON = Path(".venv-peers/bin/python")
_SLICE = (FIRST_AT + timedelta(hours=30), FIRST_AT + timedelta(hours=33))
_NEXT_SLICE = (_SLICE[0] + timedelta(hours=30), _SLICE[1] + timedelta(hours=30))
_PAYLOADS = ("reqPayload", "respPayload")
_COPY_BYTES = 1024 * 1024


@dataclass(slots=True)
class Relay:
    """Passes connections on to a server, and counts what comes back."""

    target: tuple[str, int]
    listener: socket.socket
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        host, port = self.listener.getsockname()
        return f"http://{host}:{port}"

    def serve(self) -> None:
        """Pass connections on until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
                for source, sink, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._copy, args=(source, sink, counts), daemon=True
                    ).start()

    def _copy(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(_COPY_BYTES):
                if counts:
                    with self._lock:
                        self.received += len(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(endpoint: str) -> Iterator[Relay]:
    """Yield a relay in front of an endpoint."""
    parts = urlsplit(endpoint)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Relay((parts.hostname or "", parts.port or 0), listener)
        threading.Thread(target=running.serve, daemon=True).start()
        yield running


@dataclass(frozen=True, slots=True)
class Job:
    """Exports of one set of events, on disk and on S3."""

    folder: Path
    server: S3Server
    made: Generated
    threads: int

    def package(self, source: str, destination: str, codec: str, **changes: Any) -> list[str]:
        """Return the package's command; its config is written."""
        settings: Mapping[str, Any] = {
            "name": "remote",
            "source": {"url": source, "preset": "openpipe"},
            "destination": {"url": destination},
            "partition_by": ["date", "model"],
            "compression": codec,
            "threads": self.threads,
            **changes.pop("config", {}),
        }
        config = self.folder / f"{len(list(self.folder.glob('*.yaml')))}.yaml"
        config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        span = [f"--{name}={value}" for name, value in changes.items()]
        return [sys.executable, "-m", "pipelines", "export", str(config), "--json", *span]

    def polars(self, destination: str, *arguments: str) -> list[str]:
        """Return the command of Polars from S3 to S3."""
        script = [str(_PEERS_PYTHON), "-m", "tests.benchmarks.peers.polars_s3"]
        return [*script, "s3://raw/logs", destination, *arguments, f"--threads={self.threads}"]

    def upload(self) -> None:
        """Put the batches into the bucket."""
        client = self.server.client()
        for path in self.made.batches:
            with path.open("rb") as body:
                client.put_object(Bucket="raw", Key=f"logs/{path.name}", Body=body)


def run_turns(
    name: str, sides: Mapping[str, Callable[[int], list[str]]], runs: int, raw_bytes: int
) -> list[str]:
    """Run the commands of two sides in turns; return their rows of the table."""
    found: dict[str, list[Usage]] = {side: [] for side in sides}
    for number in range(runs):
        for side, command in sides.items():
            found[side].append(measure(command(number)))
    first, second = found.values()
    ratio = statistics.median(
        b.wall_seconds / a.wall_seconds for a, b in zip(first, second, strict=True)
    )
    return [
        _row(name, side, usages, raw_bytes, ratio if usages is first else 1.0)
        for side, usages in found.items()
    ]


def _row(name: str, side: str, usages: list[Usage], raw_bytes: int, ratio: float) -> str:
    wall = statistics.median(usage.wall_seconds for usage in usages)
    cells = (
        name,
        side,
        f"{wall:.2f}",
        f"{raw_bytes / 1e6 / wall:,.0f}",
        f"{statistics.median(usage.cpu_seconds for usage in usages):.1f}",
        f"{statistics.median(usage.peak_bytes for usage in usages) / 1e6:,.0f}",
        f"{ratio:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def needed_bytes(made: Generated, start: datetime, end: datetime) -> int:
    """Return the compressed bytes of payloads in the row groups with events of a time range."""
    total = 0
    for path in made.batches:
        footer = pq.read_metadata(path)
        names = footer.schema.names
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            times = group.column(names.index("requestedAt")).statistics
            if times.min < end and times.max >= start:
                columns = (group.column(names.index(name)) for name in _PAYLOADS)
                total += sum(column.total_compressed_size for column in columns)
    return total


def count_slices(job: Job) -> Iterator[str]:
    """Export two slices through a relay; yield sentences on what was read of the server."""
    local = (job.folder / "sliced").as_uri()
    every = {"window": {"every": "3h", "start": FIRST_AT.isoformat()}}
    whole = sum(path.stat().st_size for path in job.made.batches)
    for name, (start, end) in (("all footers", _SLICE), ("an index of them", _NEXT_SLICE)):
        with relay(job.server.endpoint) as counted:
            os.environ["AWS_ENDPOINT_URL"] = counted.endpoint
            span = {"start": start.isoformat(), "end": end.isoformat()}
            measure(job.package("s3://raw/logs", local, "zstd", config=every, **span))
            os.environ["AWS_ENDPOINT_URL"] = job.server.endpoint
        needed = needed_bytes(job.made, start, end)
        yield (
            f"A slice of {(end - start).seconds // 3600} hours with {name} read "
            f"{counted.received / 1e6:.2f} MB of {whole / 1e6:.0f} MB, answers' headers included: "
            f"{counted.received / needed:.2f} x the payloads of its row groups"
        )


def _span() -> dict[str, str]:
    start, end = _SLICE
    return {"start": start.isoformat(), "end": end.isoformat()}


def main(arguments: list[str] | None = None) -> None:
    """Generate, upload, export in turns, print a table and what a slice reads."""
    options = _parse(arguments)
    write = sys.stdout.write
    parent = options.dir or (_MEMORY_FILE_SYSTEM if _MEMORY_FILE_SYSTEM.is_dir() else None)
    tempfile.tempdir = str(parent) if parent else None  # the server's data too
    with tempfile.TemporaryDirectory(prefix="remote-") as name, serve_s3() as server:
        os.environ.update(server.environment())
        raw_bytes = int(options.gb * 1e9)
        made = generate(
            Path(name) / "raw", raw_bytes=raw_bytes, batches=max(raw_bytes // _BATCH_BYTES, 1)
        )
        job = Job(Path(name), server, made, options.threads)
        job.upload()
        local, out = made.batches[0].parent.as_uri(), Path(name) / "out"
        every = {"window": {"every": "3h", "start": FIRST_AT.isoformat()}}

        def read(source: str) -> Callable[[int], list[str]]:
            def command(_: int) -> list[str]:
                shutil.rmtree(out, ignore_errors=True)
                return job.package(source, out.as_uri(), options.compression)

            return command

        write(f"{describe_versions(options.threads)}; {options.compression}\n")
        write(f"{made.events:,} events, {made.raw_bytes / 1e6:,.0f} MB of payloads\n\n")
        write("| job | side | wall s | raw MB/s | CPU s | peak MB | ratio |\n")
        write("| --- | --- | ---: | ---: | ---: | ---: | ---: |\n")
        rows = [
            *run_turns(
                "read",
                {"from S3": read("s3://raw/logs"), "from a disk": read(local)},
                options.runs,
                made.raw_bytes,
            )
        ]
        if _PEERS_PYTHON.exists():
            rows += run_turns(
                "S3 to S3, zstd",
                {
                    "package": lambda n: job.package("s3://raw/logs", f"s3://exports/a{n}", "zstd"),
                    "polars": lambda n: job.polars(f"s3://exports/b{n}"),
                },
                options.runs,
                made.raw_bytes,
            )
            rows += run_turns(
                "3 hours of it",
                {
                    "package": lambda n: job.package(
                        "s3://raw/logs", f"s3://exports/c{n}", "zstd", config=every, **_span()
                    ),
                    "polars": lambda n: job.polars(
                        f"s3://exports/d{n}", *(f"--{k}={v}" for k, v in _span().items())
                    ),
                },
                options.runs,
                made.raw_bytes,
            )
        write("\n".join([*rows, "", *count_slices(job)]) + "\n")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=1.0, help="gigabytes of payload text")
    parser.add_argument("--compression", default="gzip", choices=("gzip", "zstd", "none"))
    parser.add_argument("--runs", type=int, default=3, help="pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, help="where data goes; default is memory, if there is")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
