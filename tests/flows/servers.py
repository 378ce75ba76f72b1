"""A real Prefect server and real workers on the loopback address, for tests end to end.

Every process that is started here carries a mark in its environment, which what it starts inherits:
the runs of a worker have process groups of their own, and would outlive it.
"""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.processes import Process

ROOT = Path(__file__).parents[2]
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
_READY_SECONDS = 120
_SENDS = 20
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "NO_COLOR": "1",
    "COLUMNS": "500",  # logs are not folded
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    "PYTHONUNBUFFERED": "1",
}
# How often Prefect looks: tests have less patience than its defaults.
_QUICK_SERVER = {
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}
_QUICK_WORKER = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1"}


@dataclass
class Prefect:
    """A server: its API, the command line in front of it, and workers."""

    home: Path
    port: int
    process: Process
    client: httpx.Client
    workers: list[Path] = field(default_factory=list)  # their logs

    def environment(self):
        return {**_clean_environment(), "PREFECT_API_URL": str(self.client.base_url).rstrip("/")}

    def prefect(self, *arguments, cwd=ROOT):
        """Run a command to its end; return what it printed."""
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*_PREFECT, "--no-prompt", *map(str, arguments)],
            cwd=cwd,
            # PWD as a shell sets it: configs/prefect.yaml refers to it.
            env={**self.environment(), "PREFECT_HOME": str(self.home), "PWD": str(cwd)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def create_pool(self, name):
        self.post("/work_pools/", {"name": name, "type": "process"})

    def worker(self, pool, *, cwd, env):
        """Start a worker that takes the runs of a pool; a context manager."""
        log = self.home / f"worker-{len(self.workers)}.log"
        self.workers.append(log)
        home = {"PREFECT_HOME": str(self.home / f"worker-{len(self.workers)}")}
        return Process(
            [*_PREFECT, "worker", "start", "--pool", pool, "--type", "process"],
            cwd=cwd,
            env={**self.environment(), **_QUICK_WORKER, **home, **env},
            log=log,
        )

    def get(self, path):
        return self._send("GET", path).json()

    def post(self, path, body):
        answer = self._send("POST", path, body)
        return answer.json() if answer.content else None

    def delete(self, path):
        self._send("DELETE", path)

    def _send(self, method, path, body=None):
        answer = self.client.request(method, path, json=body)
        for _ in range(_SENDS):
            # SQLite was locked for too long: Prefect's own clients send again, too.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.5)
            answer = self.client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer

    def deployment(self, name):
        """The deployment `flow/deployment`."""
        return self.get(f"/deployments/name/{name}")

    def activate(self, deployment):
        """Let the schedule of a deployment begin."""
        (schedule,) = deployment["schedules"]
        path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
        self._send("PATCH", path, {"active": True})

    def start(self, deployment, **parameters):
        """Ask for a run of a deployment now, as the UI does; return its id."""
        found = self.deployment(deployment)["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.post(f"/deployments/{found}/create_flow_run", body)["id"]

    def run(self, deployment, **parameters):
        """Run a deployment to its end; return the flow run."""
        return self.wait(self.start(deployment, **parameters))

    def wait(self, run, *, states=FINAL, seconds=90):
        """Return a flow run once its state is one of some types."""

        def reached():
            found = self.get(f"/flow_runs/{run}")
            return found if found["state_type"] in states else None

        try:
            return wait_for(reached, seconds=seconds)
        except TimeoutError:
            state = self.get(f"/flow_runs/{run}")["state"]
            logs = "\n".join(log.read_text(errors="replace")[-3000:] for log in self.workers)
            raise AssertionError(f"{state['name']}: {state['message']}\n{logs}") from None

    def runs(self, deployment):
        """The flow runs of a deployment, in the order in which they were due."""
        only = {"deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}}}
        return self.post("/flow_runs/filter", {**only, "sort": "EXPECTED_START_TIME_ASC"})

    def logs(self, run):
        """All that a run logged, in one text."""
        found = self.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return "\n".join(line["message"] for line in found)

    def artifacts(self, run):
        """A run's artifacts, newest state, by key."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        return {found["key"]: found for found in self.post("/artifacts/filter", body)}

    def events(self, name, resource):
        """The events of a name about one resource, oldest first."""
        wanted = {"event": {"name": [name]}, "resource": {"id": [resource]}, "order": "ASC"}
        return self.post("/events/filter", {"filter": wanted, "limit": 50})["events"]


_PREFECT = (sys.executable, "-m", "prefect")


def wait_for(look, *, seconds=60):
    """Return what `look` gives once that is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.1)


@contextmanager
def serve_prefect(home):
    """Run a server on a new database; it answers when this yields, and ends afterwards."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = {
        **_clean_environment(),
        **_QUICK_SERVER,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_API_URL": url,
    }
    command = [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    home.mkdir(parents=True)
    with (
        Process(command, cwd=home, env=env, log=home / "server.log") as process,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        try:
            wait_for(lambda: process.ended or _answers(client), seconds=_READY_SECONDS)
        except TimeoutError as exc:
            raise RuntimeError(process.log.read_text(errors="replace")[-4000:]) from exc
        assert not process.ended, process.log.read_text(errors="replace")[-4000:]
        yield Prefect(home, port, process, client)


def _answers(client):
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _clean_environment():
    """This process's environment without what could point at another server or store."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "AWS_", "COV_", "COVERAGE_"))
    }
    return clean | _QUIET
