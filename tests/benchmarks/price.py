"""What an export from S3 to S3 costs: requests by kind, CPU and bytes, and 100 TB at that rate.

    python -m tests.benchmarks.price --gb 1

Requests are counted in front of the server (SeaweedFS on the loopback), over a first export of
hourly windows. Prices are arguments, in dollars: a core's hour, and 1,000 requests that write or
list, and that read.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from tests.benchmarks.generate import FIRST_AT, generate
from tests.benchmarks.measure import describe_versions, measure
from tests.benchmarks.remote import Job
from tests.fault_proxy import Request, fault_proxy
from tests.s3_server import serve_s3

_BATCH_BYTES = 22_000_000
_GOAL_BYTES = 100e12
_DAYS = timedelta(days=3)  # that the generator's events are spread over


def count_requests(log: Iterable[Request]) -> Counter[str]:
    """Return how many requests list, write and read, as S3 prices them."""
    return Counter(
        "list" if "list-type=" in request.path and request.method == "GET"
        else "read" if request.method in {"GET", "HEAD"}
        else "free" if request.method == "DELETE"
        else "write"
        for request in log
    )  # fmt: skip


def main() -> None:
    """Print requests and cost of one export, and of 100 TB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--compression", default="zstd")
    parser.add_argument("--every", default="1h")
    parser.add_argument("--core-hour", type=float, default=0.05)
    parser.add_argument("--thousand-writes", type=float, default=0.005)
    parser.add_argument("--thousand-reads", type=float, default=0.0004)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="request-logs-price-"))
    try:
        raw = int(options.gb * 1e9)
        made = generate(folder / "raw", raw_bytes=raw, batches=max(1, raw // _BATCH_BYTES))
        with serve_s3() as server, fault_proxy(server.endpoint) as proxy:
            job = Job(folder, server, made, threads=2)
            job.upload()
            os.environ |= server.environment(server.admin) | {"AWS_ENDPOINT_URL": proxy.endpoint}
            window = {"window": {"every": options.every}}
            span = {"start": FIRST_AT.date(), "end": FIRST_AT.date() + _DAYS}
            command = job.package(
                "s3://raw/logs", "s3://exports/price", options.compression, config=window, **span
            )
            usage = measure(command)
            found = count_requests(proxy.log)
        times = _GOAL_BYTES / made.raw_bytes
        cores = usage.cpu_seconds * times / 3600
        writes = (found["write"] + found["list"]) * times / 1000
        reads = found["read"] * times / 1000
        dollars = (
            cores * options.core_hour
            + writes * options.thousand_writes
            + reads * options.thousand_reads
        )
        sys.stdout.write(
            f"{describe_versions(2)}, {options.compression}, windows of {options.every}\n"
            f"{made.raw_bytes / 1e9:.1f} GB in {len(made.batches)} batches: "
            f"{usage.cpu_seconds:.1f} CPU s; requests: {found['write']} write, "
            f"{found['list']} list, {found['read']} read, {found['free']} delete\n"
            f"100 TB at that rate: {cores:,.0f} core hours, {writes / 1000:,.1f} million writes "
            f"and lists, {reads / 1000:,.1f} million reads: {dollars:,.0f} dollars, of which "
            f"{cores * options.core_hour:,.0f} for cores\n"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
