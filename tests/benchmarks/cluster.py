"""Shards on Dask workers and in local processes: how they scale, and what each costs.

    python -m tests.benchmarks.cluster scaling --gb 1
    python -m tests.benchmarks.cluster overhead --shards 10000

`scaling`: one worker and two take turns (A B A B …), each worker pinned to one core of its own, as
a cluster has them; DuckDB has one thread in each. `overhead`: shards of a real plan whose work is
stubbed: what planning, packing, scheduling and results cost, and the memory of the run's process.
"""

import argparse
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from pipelines.cluster import open_cluster
from pipelines.config import load_config
from pipelines.errand import Reports, pack
from pipelines.executors import Workers
from pipelines.export import run_export
from pipelines.plan import plan_export
from pipelines.processes import ProcessExecutor, report_there
from pipelines.work import ShardWork
from tests.benchmarks.generate import generate
from tests.benchmarks.measure import describe_versions
from tests.benchmarks.stub import stub_shard
from tests.dask_cluster import run_cluster

_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a disk would be the brake, not the code


def write_config(folder: Path, compression: str) -> Path:
    """Return the path of a config for the generated batches."""
    config = folder / "cluster.yaml"
    settings = {
        "name": "cluster",
        "source": {"url": (folder / "raw").as_uri(), "preset": "openpipe"},
        "destination": {"url": (folder / "out").as_uri()},
        "partition_by": ["date", "model"],
        "compression": compression,
        "executor": "dask",
        "threads": 1,
    }
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return config


@contextmanager
def pinned_cluster(folder: Path, cores: int) -> Iterator[str]:
    """Yield the address of a scheduler with one worker a core."""
    folder.mkdir()
    with run_cluster(folder, workers=()) as cluster:
        for core in range(cores):
            cluster.start_worker(f"core-{core}", core=core)
        yield cluster.address


def export_seconds(config: Path, address: str, folder: Path) -> float:
    """Export everything anew on a cluster; return the wall seconds."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    chosen = load_config(config).model_copy(update={"address": address})
    began = time.perf_counter()
    done = run_export(chosen, now=datetime.now(UTC))
    if done.failed:
        raise SystemExit(done.failed[0].error)
    return time.perf_counter() - began


def compare_workers(folder: Path, options: argparse.Namespace) -> str:
    """Return a row for one worker against two."""
    made = generate(folder / "raw", raw_bytes=int(options.gb * 1e9), batches=int(45 * options.gb))
    config = write_config(folder, options.compression)
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(pinned_cluster(folder / f"dask-{count}", count)) for count in (1, 2)
        ]
        pairs = []
        for turn in range(options.runs + 1):
            pair = [export_seconds(config, address, folder) for address in addresses]
            if turn:  # in the first one the workers import what they need
                pairs.append(pair)
    ratios = [one / two for one, two in pairs]
    one, two = (statistics.median(times) for times in zip(*pairs, strict=True))
    return (
        f"| {made.raw_bytes / 1e9:.1f} | {options.compression} | {one:.1f} : {two:.1f} | "
        f"{statistics.median(ratios):.2f} |"
    )


def measure_overhead(folder: Path, shards: int) -> Iterator[str]:
    """Yield a row for each executor: stubbed shards of a real plan, one window of them."""
    generate(folder / "raw", raw_bytes=20_000_000, batches=4)
    config = load_config(write_config(folder, "gzip"))
    plan = plan_export(config, now=datetime.now(UTC))
    (work,) = plan.shard_works(plan.to_do[0])[:1]
    works = [replace(work, shard=number) for number in range(shards)]
    size = len(pack(stub_shard, work))
    with pinned_cluster(folder / "dask", 2) as address, open_cluster(address) as cluster:
        reports = Reports()
        cluster.listen(reports.take)
        workers = Workers(cluster, at_once=lambda: 2, reports=reports, report=cluster.report)
        yield _overhead_row("dask, 2 workers", workers, works, size)
    with ProcessExecutor(2, lambda *_: None) as pool:
        workers = Workers(pool, at_once=lambda: 2, report=report_there)
        yield _overhead_row("2 processes", workers, works, size)


def _overhead_row(name: str, workers: Workers, works: list[ShardWork], size: int) -> str:
    list(workers.run_each(stub_shard, works[:20]))
    began = time.perf_counter()
    parts = sum(len(result.parts) for result in workers.run_each(stub_shard, works))
    milliseconds = (time.perf_counter() - began) / len(works) * 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"| {name} | {len(works):,} | {parts:,} | {size / 1e3:.1f} | {milliseconds:.1f} | "
        f"{peak:,.0f} |"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["scaling", "overhead"])
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--compression", default="gzip")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shards", type=int, default=10_000)
    options = parser.parse_args()
    base = _MEMORY_FILE_SYSTEM if _MEMORY_FILE_SYSTEM.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="request-logs-cluster-", dir=base))
    try:
        sys.stdout.write(f"{describe_versions(1)}\n\n")
        if options.what == "scaling":
            sys.stdout.write("| raw GB | codec | wall s, 1 worker : 2 | ratio |\n")
            sys.stdout.write("| ---: | --- | ---: | ---: |\n")
            sys.stdout.write(compare_workers(folder, options) + "\n")
            return
        sys.stdout.write(
            "| where | shards | part entries | KB a shard | ms a shard | peak MB |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        )
        for row in measure_overhead(folder, options.shards):
            sys.stdout.write(row + "\n")
            sys.stdout.flush()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
