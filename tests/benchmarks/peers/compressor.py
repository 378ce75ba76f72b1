"""A floor, not a peer: the package's codec alone, over lines that are in memory already.

    python -m tests.benchmarks.peers.compressor SOURCE DESTINATION --compression gzip --threads 2

Each thread compresses its share of the lines as one stream. Prints one JSON object, seconds by the
clock and of the processors; how the lines came into memory does not count.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import duckdb

from pipelines.codecs import open_codec
from pipelines.config import Compression
from tests.benchmarks.peers.command import Options, parse_options
from tests.benchmarks.peers.scan import LINE

_CHUNK_BYTES = 1 << 20  # what the package hands to a codec at once
_ROWS_PER_BATCH = 4_096


def run(options: Options) -> None:
    """Compress on as many threads as given, and print what that took."""
    chunks = _read_chunks(options)
    share = -(-len(chunks) // options.threads)
    shares = [chunks[start : start + share] for start in range(0, len(chunks), share)]
    with ThreadPoolExecutor(options.threads) as pool:
        began, began_cpu = time.perf_counter(), time.process_time()
        list(pool.map(lambda given: _compress(given, options.compression), shares))
        used = {
            "wall_seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - began_cpu,
        }
    sys.stdout.write(json.dumps(used) + "\n")


def _read_chunks(options: Options) -> list[bytes]:
    with duckdb.connect() as con:
        con.execute("set threads = $threads", {"threads": options.threads})
        batches = con.sql(
            f"select {LINE} as line from read_parquet($source)",  # noqa: S608 - text of ours
            params={"source": str(options.source / "*.parquet")},
        ).to_arrow_reader(_ROWS_PER_BATCH)
        text = b"".join(line.as_buffer() for batch in batches for line in batch.column(0))
    return [text[start : start + _CHUNK_BYTES] for start in range(0, len(text), _CHUNK_BYTES)]


def _compress(chunks: list[bytes], compression: Compression) -> None:
    codec = open_codec(compression, None)
    for chunk in chunks:
        codec.compress(chunk)
    codec.flush()


if __name__ == "__main__":
    run(parse_options(__doc__))
