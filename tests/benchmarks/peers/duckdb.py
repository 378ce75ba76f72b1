"""The export as a plain DuckDB recipe: what one would write without this package.

    python -m tests.benchmarks.peers.duckdb SOURCE DESTINATION --compression gzip --threads 2

It checks nothing on its own behalf: one payload that is not JSON fails the whole statement, and
the JSON comes out re-serialised.
"""

import duckdb

from tests.benchmarks.peers.command import SUFFIXES, Options, parse_options

_SELECT = """
    select
        reqPayload::json as input,
        respPayload::json as output,
        tags
        {keys}
    from read_parquet($source)
"""
_KEYS = ", requestedAt::date as date, model"


def run(options: Options) -> None:
    """Write Hive partitions of JSONL, or one file."""
    copy = f"format json, compression {options.compression}"
    destination = options.destination
    if options.flat:
        destination /= "lines" + SUFFIXES[options.compression]
    else:
        copy += ", partition_by (date, model)"
    select = _SELECT.format(keys="" if options.flat else _KEYS)
    with duckdb.connect() as con:
        con.execute("set threads = $threads", {"threads": options.threads})
        con.execute("set TimeZone = 'UTC'")
        con.execute(
            f"copy ({select}) to $destination ({copy})",
            {"source": str(options.source / "*.parquet"), "destination": str(destination)},
        )


if __name__ == "__main__":
    run(parse_options(__doc__))
