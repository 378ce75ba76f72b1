"""Find the newest copy of each of very many ids, as a run over many shards does.

    python -m tests.benchmarks.copies --ids 100000000 --losing 0.01

Batches hold ids and times; their payloads are two characters. Every shard's ids are listed, one
shard after the other, and merged in one DuckDB with a `memory_limit`, which spills.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

import pipelines.plan
from pipelines.config import parse_config
from pipelines.copies import with_losers
from pipelines.plan import plan_export
from pipelines.values import parse_bytes
from tests.benchmarks.measure import describe_versions

_IDS_IN_BATCH = 1_000_000
_SHARD_BYTES = 256 * 1024**2 // 8  # payloads are most of a real shard


def write_batches(folder: Path, ids: int, losing: float) -> None:
    """Write batches in which a share of the ids stands twice, far from each other."""
    folder.mkdir()
    distinct = int(ids * (1 - losing))
    with duckdb.connect() as con:
        for number, first in enumerate(range(0, ids, _IDS_IN_BATCH)):
            last = min(ids, first + _IDS_IN_BATCH)
            found = con.sql(
                "select md5((n % $distinct)::varchar) as id, "
                "timestamp '2024-06-01' + to_microseconds(n) as requested_at, "
                "'{}' as request, '{}' as response from range($first, $last) t(n)",
                params={"distinct": distinct, "first": first, "last": last},
            )
            found.write_parquet(f"{folder}/{number:05}.parquet", compression="zstd")


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=10_000_000)
    parser.add_argument("--losing", type=float, default=0.01)
    parser.add_argument("--memory-limit", default="1GiB")
    options = parser.parse_args()
    pipelines.plan.SHARD_BYTES = _SHARD_BYTES
    folder = Path(tempfile.mkdtemp(prefix="request-logs-copies-"))
    try:
        write_batches(folder / "raw", options.ids, options.losing)
        document = {
            "name": "copies",
            "source": {"url": f"{folder}/raw", "preset": "generic"},
            "destination": {"url": f"{folder}/out"},
            "memory_limit": parse_bytes(options.memory_limit),
        }
        config = parse_config(document, origin="copies", base=folder)
        plan = plan_export(config, now=datetime.now(UTC))
        works = plan.shard_works(plan.to_do[0])
        began = time.perf_counter()
        works = with_losers(works, lambda function, each: (function(work) for work in each))
        seconds = time.perf_counter() - began
        losers = sum(len(work.losers.superseded) // 8 for work in works)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 * 1024
        sys.stdout.write(f"{describe_versions(2)}, memory_limit {options.memory_limit}\n\n")
        sys.stdout.write("| ids | superseded | shards | s | peak MB |\n")
        sys.stdout.write("| ---: | ---: | ---: | ---: | ---: |\n")
        row = f"| {options.ids:,} | {losers:,} | {len(works)} | {seconds:.0f} | {peak:,.0f} |\n"
        sys.stdout.write(row)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
