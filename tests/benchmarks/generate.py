"""Raw request logs for the benchmarks: deterministic, quick to make, shaped like real traffic.

    python -m tests.benchmarks.generate DIRECTORY --gb 1 --batches 25

Columns are OpenPipe's `LoggedCall`. The largest tenth of the calls is scaled down where a batch
could not hold it. Text is sliced out of pools of random paragraphs, so making it costs little more
than writing it.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.traffic import Traffic

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("requestedAt", pa.timestamp("us", tz="UTC")),
        ("receivedAt", pa.timestamp("us", tz="UTC")),
        ("cacheHit", pa.bool_()),
        ("reqPayload", pa.string()),
        ("respPayload", pa.string()),
        ("statusCode", pa.int32()),
        ("errorMessage", pa.string()),
        ("durationMs", pa.int32()),
        ("inputTokens", pa.int32()),
        ("outputTokens", pa.int32()),
        ("finishReason", pa.string()),
        ("completionId", pa.string()),
        ("model", pa.string()),
        ("cost", pa.float64()),
        ("projectId", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("createdAt", pa.timestamp("us", tz="UTC")),
        ("updatedAt", pa.timestamp("us", tz="UTC")),
    ]
)
FIRST_AT = datetime(2023, 12, 15, tzinfo=UTC)
DAYS = 4
ROW_GROUP_EVENTS = 20_000
ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Generated:
    """What one call of `generate` wrote; `raw_bytes` counts both payload columns."""

    batches: tuple[Path, ...]
    events: int
    raw_bytes: int


def generate(
    directory: Path,
    *,
    raw_bytes: int,
    batches: int,
    seed: int = 7,
    hostile: float = 0.0,
    one_line: bool = False,
) -> Generated:
    """Write `batches` Parquet files of about `raw_bytes` of payloads in all, sorted by time.

    Args:
        directory: made if missing; files are `batch-00000.parquet` and so on.
        raw_bytes: JSON text of both payload columns, before Parquet's compression.
        batches: number of files.
        seed: same seed and sizes, same events.
        hostile: share of the payloads that are spoilt so that they are not strict JSON.
        one_line: no payload is pretty-printed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)  # noqa: S311 - test data, not secrets
    largest_bytes = max(raw_bytes // batches // 8, 4_000)
    traffic = Traffic(rng, largest_bytes=largest_bytes, one_line=one_line)
    span = timedelta(days=DAYS) / batches
    paths: list[Path] = []
    events = written_bytes = 0
    for number in range(batches):
        path = directory / f"batch-{number:05}.parquet"
        budget = (raw_bytes - written_bytes) // (batches - number)
        batch_events, batch_bytes = _write_batch(
            path,
            traffic,
            rng,
            budget_bytes=budget,
            start=FIRST_AT + span * number,
            span=span,
            hostile=hostile,
        )
        paths.append(path)
        events += batch_events
        written_bytes += batch_bytes
    return Generated(tuple(paths), events, written_bytes)


def spoil(text: str, way: int) -> str:
    """Return `text`, an object, made into something that is not strict JSON; `way` picks how."""
    return _SPOILERS[way % len(_SPOILERS)](text)


_SPOILERS: tuple[Callable[[str], str], ...] = (
    lambda text: text[:-1].rstrip() + ",}",
    lambda text: text[:-1].rstrip() + ", \n}",
    lambda text: text[:-1] + ', "score": NaN}',
    lambda text: text[:-1] + ', "score": -Infinity}',
    lambda text: text[:-1] + ', "half": "\\ud83d"}',
    lambda text: text[:-1] + ', "control": "\x01"}',
    lambda text: "\ufeff" + text,
    lambda text: "/* logged */ " + text,
    lambda text: text[: len(text) * 2 // 3],
    lambda text: text.replace('"', "'"),
    lambda text: "{" + text,
    lambda text: text + "\n" + text,
)


def _write_batch(
    path: Path,
    traffic: Traffic,
    rng: random.Random,
    *,
    budget_bytes: int,
    start: datetime,
    span: timedelta,
    hostile: float,
) -> tuple[int, int]:
    """Write one batch; return its number of events and bytes of payloads."""
    bodies: list[dict[str, Any]] = []
    group_bytes = written_bytes = events = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while written_bytes < budget_bytes:
            sent_at = start + span * (written_bytes / budget_bytes)
            event = traffic.call(sent_at.replace(microsecond=rng.randrange(1_000_000)))
            for column in ("reqPayload", "respPayload"):
                if hostile and event[column] and rng.random() < hostile:
                    event[column] = spoil(event[column], rng.randrange(len(_SPOILERS)))
            size_bytes = len((event["reqPayload"] + (event["respPayload"] or "")).encode())
            bodies.append(event)
            events += 1
            written_bytes += size_bytes
            group_bytes += size_bytes
            if len(bodies) == ROW_GROUP_EVENTS or group_bytes >= ROW_GROUP_BYTES:
                _write_row_group(writer, bodies)
                bodies, group_bytes = [], 0
        if bodies:
            _write_row_group(writer, bodies)
    return events, written_bytes


def _write_row_group(writer: pq.ParquetWriter, events: list[dict[str, Any]]) -> None:
    events.sort(key=lambda event: event["requestedAt"])
    writer.write_table(pa.Table.from_pylist(events, schema=SCHEMA))


def main(arguments: list[str] | None = None) -> None:
    """Write batches from the command line and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gb", type=float, default=1.0, help="gigabytes of payload text")
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--hostile", type=float, default=0.0, help="share of payloads to spoil")
    parser.add_argument("--one-line", action="store_true", help="pretty-print no payload")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    made = generate(
        options.directory,
        raw_bytes=int(options.gb * 1e9),
        batches=options.batches,
        seed=options.seed,
        hostile=options.hostile,
        one_line=options.one_line,
    )
    seconds = time.perf_counter() - start
    stored_bytes = sum(path.stat().st_size for path in made.batches)
    sys.stdout.write(
        f"{len(made.batches)} batches, {made.events:,} events, {made.raw_bytes / 1e6:,.0f} MB of"
        f" payloads in {stored_bytes / 1e6:,.0f} MB of Parquet,"
        f" {made.raw_bytes / 1e6 / seconds:,.0f} MB/s\n"
    )


if __name__ == "__main__":
    main()
