"""A real Dask scheduler and real worker processes on the loopback address."""

import gc
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import Process

ROOT = Path(__file__).parents[1]
_READY_SECONDS = 60
_CLEAN = ("AWS_", "DASK_")

# A client of distributed 2026.8 may leave a socket to Python's collector when it is closed.
SOCKETS_LEFT = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collected():
    """Whatever a test left is found while its own marks hold; for modules that import it."""
    yield
    gc.collect()


@dataclass
class Cluster:
    """A scheduler and its workers."""

    address: str
    scheduler: Process
    folder: Path
    environment: dict[str, str]
    workers: dict[str, Process]

    def start_worker(self, name, *, path="", core=None, **environment):
        """Start one more worker, on one core if wanted; wait until the scheduler knows it."""
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        command = [*pinned, sys.executable, "-m", "distributed.cli.dask_worker", self.address]
        options = ["--host", "127.0.0.1", "--name", name, "--nthreads", "1", "--no-nanny"]
        quiet = ["--no-dashboard", "--memory-limit", "0", "--local-directory", str(self.folder)]
        env = self.environment | environment
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (path, env["PYTHONPATH"])))
        log = self.folder / f"{name}.log"
        worker = Process([*command, *options, *quiet], cwd=ROOT, env=env, log=log)
        self.workers[name] = worker
        wait_for(log, r"Registered to:", worker)


def wait_for(log, pattern, process):
    """Return the match of a pattern once it stands in a process's log."""
    deadline = time.monotonic() + _READY_SECONDS
    while (found := re.search(pattern, log.read_text())) is None:
        if process.ended or time.monotonic() > deadline:
            raise RuntimeError(f"no {pattern!r} in the log:\n{log.read_text()}")
        time.sleep(0.05)
    return found


@contextmanager
def run_cluster(folder, workers=("one", "two"), **environment):
    """Yield a cluster; every process of it ends with the body."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLEAN)}
    env = {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    log = folder / "scheduler.log"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
    scheduler = Process([*command, *options], cwd=folder, env=env, log=log)
    started: dict[str, Process] = {}
    try:
        address = wait_for(log, r"Scheduler at: +(tcp://127\.0\.0\.1:\d+)", scheduler)[1]
        cluster = Cluster(address, scheduler, folder, env, started)
        for name in workers:
            cluster.start_worker(name)
        yield cluster
    finally:
        for process in (*started.values(), scheduler):
            process.kill()
