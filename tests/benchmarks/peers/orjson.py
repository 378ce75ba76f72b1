"""The export as a loop over events: pyarrow reads, orjson parses and writes.

python -m tests.benchmarks.peers.orjson SOURCE DESTINATION --compression gzip --threads 2
"""

import gzip
import urllib.parse
from contextlib import ExitStack
from typing import BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.benchmarks.peers.command import SUFFIXES, Options, parse_options

_COLUMNS = ["reqPayload", "respPayload", "tags", "requestedAt", "model"]
_GZIP_LEVEL = 6  # of the gzip command and of DuckDB; Python's own default is 9
_ROWS_PER_BATCH = 2_048


def run(options: Options) -> None:
    """Write Hive partitions of JSONL, or one file."""
    pa.set_cpu_count(options.threads)
    files: dict[tuple[str, ...], BinaryIO] = {}
    with ExitStack() as stack:
        for path in options.batches:
            with pq.ParquetFile(path) as batch:
                for events in batch.iter_batches(_ROWS_PER_BATCH, columns=_COLUMNS):
                    for event in events.to_pylist():
                        key = () if options.flat else _partition(event)
                        if key not in files:
                            files[key] = stack.enter_context(_create(options, key))
                        files[key].write(_to_line(event))


def _partition(event: dict) -> tuple[str, ...]:
    model = urllib.parse.quote(event["model"], safe="")
    return (f"date={event['requestedAt']:%Y-%m-%d}", f"model={model}")


def _to_line(event: dict) -> bytes:
    response = event["respPayload"]
    record = {
        "input": orjson.loads(event["reqPayload"]),
        "output": None if response is None else orjson.loads(response),
        "tags": dict(event["tags"]),
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _create(options: Options, key: tuple[str, ...]) -> BinaryIO:
    folder = options.destination.joinpath(*key)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lines{SUFFIXES[options.compression]}"
    if options.compression == "gzip":
        return cast("BinaryIO", gzip.open(path, "wb", compresslevel=_GZIP_LEVEL))
    if options.compression == "zstd":
        return cast("BinaryIO", zstandard.open(path, "wb"))
    return path.open("wb")


if __name__ == "__main__":
    run(parse_options(__doc__))
