"""A floor, not a peer: DuckDB reads and joins the strings of the lines, and writes nothing.

python -m tests.benchmarks.peers.scan SOURCE DESTINATION --threads 2
"""

import duckdb

from tests.benchmarks.peers.command import Options, parse_options

LINE = """
    concat(
        '{"input":', reqPayload,
        ',"output":', coalesce(respPayload, 'null'),
        ',"tags":', to_json(tags), '}', chr(10)
    )
"""


def run(options: Options) -> None:
    """Count the bytes of all lines."""
    with duckdb.connect() as con:
        con.execute("set threads = $threads", {"threads": options.threads})
        con.execute(
            f"select sum(strlen({LINE})) from read_parquet($source)",  # noqa: S608 - text above
            {"source": str(options.source / "*.parquet")},
        )


if __name__ == "__main__":
    run(parse_options(__doc__))
