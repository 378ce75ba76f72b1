"""The export by Polars: `scan_parquet` to partitions of NDJSON.

    python -m tests.benchmarks.peers.polars SOURCE DESTINATION --route concat --threads 2

Route `json` parses the payloads into structs and writes these as NDJSON. A struct has one schema
for all: it is inferred from the whole first batch, absent keys come out as nulls, and keys that
this batch does not have are lost. Route `concat` joins the strings of a line and writes them as a
CSV column without quotes: nothing is checked, and a pretty-printed payload stays many lines.
"""

import os
from typing import Literal

from tests.benchmarks.peers.command import SUFFIXES, Compression, Options, parse_options

_CODECS: dict[Compression, Literal["gzip", "zstd", "uncompressed"]] = {
    "gzip": "gzip",
    "zstd": "zstd",
    "none": "uncompressed",
}


def run(options: Options) -> None:
    """Write Hive partitions of JSONL, or one file."""
    os.environ["POLARS_MAX_THREADS"] = str(options.threads)
    import polars as pl  # noqa: PLC0415 - reads the number of its threads when it is imported

    if options.route == "concat":
        line = pl.concat_str(
            pl.lit('{"input":'),
            pl.col("reqPayload"),
            pl.lit(',"output":'),
            pl.col("respPayload").fill_null("null"),
            pl.lit(","),
            pl.struct("tags").struct.json_encode().str.slice(1),
        )
        columns = {"line": line}
    else:
        first = pl.read_parquet(options.batches[0], columns=["reqPayload", "respPayload"])
        columns = {
            name: pl.col(payload).str.json_decode(
                first[payload].str.json_decode(infer_schema_length=None).dtype
            )
            for name, payload in (("input", "reqPayload"), ("output", "respPayload"))
        }
        columns["tags"] = pl.col("tags")
    keys = {"date": pl.col("requestedAt").dt.date(), "model": pl.col("model")}
    lines = pl.scan_parquet(options.batches).select(**columns, **({} if options.flat else keys))
    target = (
        options.destination / f"lines{SUFFIXES[options.compression]}"
        if options.flat
        else pl.PartitionBy(options.destination, key=["date", "model"], include_key=False)
    )
    codec = _CODECS[options.compression]
    if options.route == "json":
        lines.sink_ndjson(target, compression=codec, mkdir=True)
    else:
        lines.sink_csv(
            target, include_header=False, quote_style="never", compression=codec, mkdir=True
        )


if __name__ == "__main__":
    run(parse_options(__doc__, ("json", "concat")))
