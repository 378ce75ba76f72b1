"""What a process takes, and on which machine."""

import importlib.metadata
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


class CommandError(Exception):
    """A measured command failed; the text has its messages."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took, with the processes that it waited for; `printed` is its stdout."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    printed: str = ""


def measure(command: Sequence[str]) -> Usage:
    """Run a command to its end.

    Peak memory is `ru_maxrss` as Linux counts it: never less than what this process held when it
    started the command, so whoever measures stays small.

    Raises:
        CommandError: its exit code is not 0.
    """
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as messages:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - commands of the benchmarks
            command, stdout=printed, stderr=messages
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        messages.seek(0)
        if process.returncode:
            text = messages.read().decode(errors="replace")
            raise CommandError(f"exit code {process.returncode} from {' '.join(command)}\n{text}")
        return Usage(
            wall_seconds,
            used.ru_utime + used.ru_stime,
            used.ru_maxrss * 1024,
            printed.read().decode(errors="replace"),
        )


def describe_versions(threads: int) -> str:
    """Return date, versions and machine on one line."""
    packages = ("duckdb", "pyarrow", "isal", "zstandard")
    versions = list_versions({name: importlib.metadata.version(name) for name in packages})
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions},"
        f" {platform.machine()}, {os.cpu_count()} CPUs, {threads} threads"
    )


def list_versions(versions: Mapping[str, str]) -> str:
    """Return names and versions as text."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
