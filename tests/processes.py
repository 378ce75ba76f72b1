"""Processes that a test starts, and all that they start themselves.

Each carries a mark in its environment, which what it starts inherits: groups do not hold them all.
"""

import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

_MARK = "REQUEST_LOGS_TEST_PROCESS"


class Process:
    """A process with a log, and what it starts; all of it ends with the `with` statement."""

    def __init__(self, command, *, cwd, env, log):
        self.log = log
        self.mark = uuid.uuid4().hex
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                command,
                cwd=cwd,
                env=env | {_MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def pid(self):
        return self._process.pid

    @property
    def ended(self):
        return self._process.poll() is not None

    def kill(self):
        """End it and all that it started at once, with SIGKILL, itself first."""
        self._process.kill()
        self._process.wait()
        while found := self.pids():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)

    def pids(self):
        """What runs with the mark of this process."""
        wanted = f"{_MARK}={self.mark}".encode()
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _has(entry, wanted)]


def _has(entry, wanted):
    try:  # a process that has ended but was not waited for has an empty environment
        return wanted in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
