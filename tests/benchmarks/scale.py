"""Plan over very many batches when nothing is to do, as an hourly schedule does all day.

`python -m tests.benchmarks.scale --batches 1000000` simulates the listing of the source and the
footers of new batches; index, window states, joins and digests are the real ones, on a local disk.
`--every 1d --schedule` also cuts all windows and hands their shards, with their work stubbed, to a
Dask cluster on the loopback.
"""

import argparse
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp

import pyarrow as pa

from pipelines import plan as planning
from pipelines import survey
from pipelines.cluster import open_cluster
from pipelines.config import ExportConfig, parse_config
from pipelines.executors import Workers
from pipelines.layout import manifest_path
from pipelines.manifest import FORMAT_VERSION
from pipelines.plan import Plan, plan_export
from pipelines.sources.batches import Batch, RowGroup
from pipelines.sources.columns import columns_of
from pipelines.states import SCHEMA, open_states
from pipelines.storage import Store, StoredObject, open_store
from tests import builders
from tests.benchmarks.stub import stub_shard
from tests.dask_cluster import run_cluster

_START = datetime(2020, 1, 1, tzinfo=UTC)
_BATCHES_AN_HOUR = 100
_HOUR_US = 3_600_000_000
_WINDOWS_AT_ONCE = 500  # as a run adds them to the cache
_COLUMNS = columns_of(builders.SCHEMA)
_SUMMARY = json.dumps(
    {"ledger": {}, "bytes": 0, "raw_bytes": 0, "partitions": 0, "parts": [], "rejects": []}
)


def list_simulated(batches: int) -> Iterator[StoredObject]:
    """Batches of 100 an hour, in date folders."""
    for number in range(batches):
        day = number // (24 * _BATCHES_AN_HOUR)
        path = f"date={day:06d}/batch-{number:09d}.parquet"
        yield StoredObject(path, 1_000_000 + number % 7, f"{number:032x}", 0.0)


def read_simulated(found: Iterable[StoredObject]) -> Iterator[Batch]:
    """What the footers of such batches say."""
    first = int(_START.timestamp() * 1e6)
    for entry in found:
        number = int(entry.path[-17:-8])
        at = first + number // _BATCHES_AN_HOUR * _HOUR_US + number % _BATCHES_AN_HOUR * 30_000_000
        group = RowGroup(1000, 900_000, at, at + 20_000_000)
        yield Batch(
            entry.path, entry.etag, entry.size, 1000, _COLUMNS, (group,), at, at + 20_000_000, 0
        )


def commit_simulated(store: Store, plan: Plan) -> None:
    """Let every window be committed; the manifests themselves are empty, and never read."""
    cache = open_states(store)
    listing = list_simulated(plan.batches)
    for at in range(0, len(plan.windows), _WINDOWS_AT_ONCE):
        windows = plan.windows[at : at + _WINDOWS_AT_ONCE]
        read = [list(islice(listing, window.input.batches)) for window in windows]
        cache.add(
            pa.table(
                {
                    "window": [window.window.name for window in windows],
                    "generation": [1] * len(windows),
                    "etag": [_touch_manifest(store, window.window.name) for window in windows],
                    "config_digest": [window.config_digest for window in windows],
                    "input_digest": [window.input_digest for window in windows],
                    "format_version": [FORMAT_VERSION] * len(windows),
                    "batches": [[(b.path, b.etag, 1000) for b in batches] for batches in read],
                    "summary": [_SUMMARY] * len(windows),
                },
                schema=SCHEMA,
            )
        )


def _touch_manifest(store: Store, window: str) -> str:
    """Let a window have a manifest, and return its ETag."""
    path = manifest_path(window, 1)
    file = Path(store.root) / path
    file.parent.mkdir(parents=True)
    file.touch()
    found = store.stat(path)
    return found.etag if found else ""


def schedule(plan: Plan, folder: Path) -> str:
    """Cut every window and hand all shards, their work stubbed, to a Dask cluster of two workers.

    Returns:
        How many shards there were, and what each cost.
    """
    folder.mkdir()
    with run_cluster(folder) as cluster, open_cluster(cluster.address) as executor:
        workers = Workers(executor, at_once=lambda: 2, report=executor.report)
        works = (work for window in plan.windows for work in plan.shard_works(window))
        began, used = time.perf_counter(), time.process_time()
        shards = ranges = 0
        for result in workers.run_each(stub_shard, works):
            shards += 1
            ranges += len(result.read)
        wall, used = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{shards:,} shards, {ranges / shards:,.0f} batches each, scheduled in {wall:,.0f} s "
        f"({used:,.0f} CPU s here): {wall / shards * 1000:.1f} ms a shard; peak {peak:,.0f} MB\n"
    )


def measure(batches: int, folder: Path, *, every: str, scheduled: bool) -> str:
    """Index, commit, and plan again; return a row of the table."""
    config = _config(folder, every)
    now = _START + timedelta(hours=batches // _BATCHES_AN_HOUR + 25)
    vars(survey).update(
        list_batches=lambda *_: list_simulated(batches),
        read_batches=lambda *found: read_simulated(found[-1]),
        read_columns=lambda *_: _COLUMNS,
    )
    vars(planning).update(_check_config=lambda *_: None)  # it opens a real batch
    listing = _timed(lambda: sum(1 for _ in list_simulated(batches)))[0]
    first, plan = _timed(lambda: plan_export(config, now=now, remember=True))
    commit_simulated(open_store(config.destination.url), plan)
    held = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    windows = len(plan.windows)
    told = f"\n{schedule(plan, folder / 'dask')}" if scheduled else ""
    del plan
    again = []
    for _ in range(2):  # the first of them merges the segments that the first plan wrote
        seconds, plan = _timed(lambda: plan_export(config, now=now, remember=True))
        if plan.to_do:
            raise SystemExit(f"{len(plan.to_do)} windows are to do, where none should be")
        again.append(seconds)
        del plan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"| {batches:,} | {windows:,} | {listing:.1f} | {first:.1f} | {min(again) - listing:.1f} | "
        f"{held / 1e6:.0f} | {peak:,.0f} |{told}"
    )


def _config(folder: Path, every: str) -> ExportConfig:
    document = {
        "name": "scale",
        "source": {"url": f"{folder}/source", "preset": "generic"},
        "destination": {"url": f"{folder}/destination"},
        "window": {"every": every, "start": f"{_START:%Y-%m-%d}"},
    }
    return parse_config(document, origin="scale", base=folder)


def _timed(work):
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--every", default="1h", help="width of a window")
    parser.add_argument("--schedule", action="store_true", help="hand stubbed shards to Dask")
    options = parser.parse_args()
    folder = Path(mkdtemp(prefix="request-logs-scale-"))
    try:
        sys.stdout.write(
            "| batches | windows | listing alone s | first plan s | plan beyond the listing s | "
            "caches MB | peak MB |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        )
        row = measure(options.batches, folder, every=options.every, scheduled=options.schedule)
        sys.stdout.write(row + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
