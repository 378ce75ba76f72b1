"""The export by Polars from S3 to S3, strings joined and nothing checked; credentials from AWS_*.

python -m tests.benchmarks.peers.polars_s3 s3://raw/logs s3://exports/out --start … --end …
"""

import argparse
import os
from datetime import datetime

_OPTIONS = {"aws_allow_http": "true"}


def run(options: argparse.Namespace) -> None:
    """Write zstd partitions by date and model."""
    os.environ["POLARS_MAX_THREADS"] = str(options.threads)
    import polars as pl  # noqa: PLC0415 - reads the number of its threads when it is imported

    line = pl.concat_str(
        pl.lit('{"input":'),
        pl.col("reqPayload"),
        pl.lit(',"output":'),
        pl.col("respPayload").fill_null("null"),
        pl.lit(","),
        pl.struct("tags").struct.json_encode().str.slice(1),
    )
    lines = pl.scan_parquet(f"{options.source}/*.parquet", storage_options=_OPTIONS)
    if options.start is not None:
        times = pl.col("requestedAt")
        lines = lines.filter(times >= options.start, times < options.end)
    lines.select(line=line, date=pl.col("requestedAt").dt.date(), model=pl.col("model")).sink_csv(
        pl.PartitionBy(options.destination, key=["date", "model"], include_key=False),
        include_header=False,
        quote_style="never",
        compression="zstd",
        storage_options=_OPTIONS,
    )


def main() -> None:
    """Run once, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--start", type=datetime.fromisoformat)
    parser.add_argument("--end", type=datetime.fromisoformat)
    parser.add_argument("--threads", type=int, default=2)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
