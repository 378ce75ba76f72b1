"""The export by PySpark in local mode; the start of its JVM is part of it.

    python -m tests.benchmarks.peers.spark SOURCE DESTINATION --compression gzip --threads 2

Payloads become variants, which hold any JSON but duplicate keys; keys come out sorted.
"""

from pyspark.sql import SparkSession

from tests.benchmarks.peers.command import Options, parse_options

_DRIVER_MEMORY = "2g"  # as much as the package's engine gets


def run(options: Options) -> None:
    """Write Hive partitions of JSONL, or files in one folder."""
    session = (
        SparkSession.builder.master(f"local[{options.threads}]")
        .config("spark.driver.memory", _DRIVER_MEMORY)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    columns = ["parse_json(reqPayload) as input", "parse_json(respPayload) as output", "tags"]
    keys = [] if options.flat else ["date", "model"]
    if keys:
        columns += ["to_date(requestedAt) as date", "model"]
    records = session.read.parquet(str(options.source)).selectExpr(*columns)
    records.write.mode("overwrite").partitionBy(*keys).option("ignoreNullFields", "false").json(
        str(options.destination), compression=options.compression
    )
    gateway = session.sparkContext._gateway  # noqa: SLF001 - nothing public leads to the JVM
    session.stop()
    # The time and memory of the JVM count as this process's only if it waits for its end.
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    run(parse_options(__doc__))
