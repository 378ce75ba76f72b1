"""The export by chDB, which is ClickHouse in a process: one flat file.

    python -m tests.benchmarks.peers.chdb SOURCE DESTINATION --flat --route concat --threads 2

Route `json` makes JSON columns of the payloads and writes `JSONEachRow`: keys come out sorted, and
those that are null do not come out. Route `concat` joins the strings of a line and writes them as
`TSVRaw`: nothing is checked, and a pretty-printed payload stays many lines.
"""

import sys

import chdb

from tests.benchmarks.peers.command import SUFFIXES, Options, parse_options

_SELECTS = {
    "json": """
        select reqPayload::JSON as input, respPayload::Nullable(JSON) as output, tags
        from file('{source}', Parquet)
    """,
    "concat": """
        select concat(
            '{{"input":', reqPayload,
            ',"output":', coalesce(respPayload, 'null'),
            ',"tags":', toJSONString(tags), '}}'
        )
        from file('{source}', Parquet)
    """,
}
_FORMATS = {"json": "JSONEachRow", "concat": "TSVRaw"}


def run(options: Options) -> None:
    """Write one file."""
    if not options.flat:
        sys.exit("chDB writes one flat file: --flat is missing")
    select = _SELECTS[options.route].format(source=options.source / "*.parquet")
    path = options.destination / f"lines{SUFFIXES[options.compression]}"
    chdb.query(
        f"{select} into outfile '{path}' compression '{options.compression}'"
        f" format {_FORMATS[options.route]} settings max_threads = {options.threads}"
    )


if __name__ == "__main__":
    run(parse_options(__doc__, ("json", "concat")))
