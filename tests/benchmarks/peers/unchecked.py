"""A floor, not a peer: the package without its strict check of payloads, to see what that costs.

    python -m tests.benchmarks.peers.unchecked SOURCE DESTINATION --compression gzip --threads 2

Whatever a payload holds goes out as it is; everything else is the package's whole job, from its
command line on.
"""

import sys
import tempfile
from contextlib import redirect_stdout

import yaml

from pipelines import engine
from pipelines.cli import main
from tests.benchmarks.peers.command import Options, parse_options

_UNCHECKED = "create macro strict_json(x) as x is not null"
_statement = engine.statement


def _without_check(name: str) -> str:
    return _UNCHECKED if name == "strict_json" else _statement(name)


def run(options: Options) -> None:
    """Export with DuckDB's macro replaced in this process."""
    vars(engine)["statement"] = _without_check
    settings = {
        "name": "paired",
        "source": {"url": options.source.as_uri(), "preset": "openpipe"},
        "destination": {"url": options.destination.as_uri()},
        "partition_by": [] if options.flat else ["date", "model"],
        "compression": options.compression,
        "threads": options.threads,
        "memory_limit": "2GB",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        yaml.safe_dump(settings, config, sort_keys=False)
        config.flush()
        sys.argv[1:] = ["export", config.name]
        with redirect_stdout(None):
            main()


if __name__ == "__main__":
    run(parse_options(__doc__))
