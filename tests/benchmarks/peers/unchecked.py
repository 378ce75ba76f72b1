"""A floor, not a peer: the package without its strict check of payloads, to see what that costs.

    python -m tests.benchmarks.peers.unchecked SOURCE DESTINATION --compression gzip --threads 2

Whatever a payload holds goes out as it is; everything else is the package's whole job.
"""

from datetime import UTC, datetime

from pipelines import engine
from pipelines.config import parse_config
from pipelines.export import run_export
from tests.benchmarks.peers.command import Options, parse_options

_UNCHECKED = "create macro strict_json(x) as x is not null"
_statement = engine.statement


def _without_check(name: str) -> str:
    return _UNCHECKED if name == "strict_json" else _statement(name)


def run(options: Options) -> None:
    """Export with DuckDB's macro replaced in this process."""
    vars(engine)["statement"] = _without_check
    document = {
        "name": "paired",
        "source": {"url": options.source.as_uri(), "preset": "openpipe"},
        "destination": {"url": options.destination.as_uri()},
        "partition_by": [] if options.flat else ["date", "model"],
        "compression": options.compression,
        "threads": options.threads,
        "memory_limit": "2GB",
    }
    run_export(
        parse_config(document, origin="unchecked", base=options.source), now=datetime.now(UTC)
    )


if __name__ == "__main__":
    run(parse_options(__doc__))
