"""The export as a plain DuckDB recipe: what one would write without this package.

    python -m tests.benchmarks.recipe SOURCE DESTINATION --compression gzip --threads 2

It checks nothing on its own behalf: one payload that is not JSON fails the whole statement, and
the JSON comes out re-serialised.
"""

import argparse
from pathlib import Path
from typing import Literal

import duckdb

Compression = Literal["gzip", "zstd", "none"]

_COPY: dict[Compression, str] = {
    "gzip": "format json, partition_by (date, model), compression gzip",
    "zstd": "format json, partition_by (date, model), compression zstd",
    "none": "format json, partition_by (date, model), compression none",
}


def run_recipe(source: Path, destination: Path, compression: Compression, threads: int) -> None:
    """Write `source/*.parquet` to Hive partitions of JSONL below `destination`."""
    with duckdb.connect() as con:
        con.execute("set threads = $threads", {"threads": threads})
        con.execute("set TimeZone = 'UTC'")
        con.execute(
            f"""
            copy (
                select
                    reqPayload::json as input,
                    respPayload::json as output,
                    tags,
                    requestedAt::date as date,
                    model
                from read_parquet($source)
            ) to $destination ({_COPY[compression]})
            """,  # noqa: S608 - the one varying piece comes from the table above
            {"source": str(source / "*.parquet"), "destination": str(destination)},
        )


def main() -> None:
    """Run the recipe once, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--compression", choices=tuple(_COPY), default="gzip")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    run_recipe(options.source, options.destination, options.compression, options.threads)


if __name__ == "__main__":
    main()
