"""The fixture that asks a package for its verdict of a file; see checks.py."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CHECKS = Path(__file__).with_name("checks.py")
_SECONDS = 300


@dataclass(frozen=True)
class Verdict:
    """What a package says: whether it takes the file, how many rows it found, and why not."""

    ok: bool
    rows: int | None
    detail: str


def consumers_python():
    """Return the interpreter that has the packages, or None; `make consumers` makes it."""
    # `make test` names it, so that nothing is skipped there.
    if given := os.environ.get("CONSUMERS_PYTHON"):
        return given
    made = ROOT / ".venv-consumers" / "bin" / "python"
    return str(made) if made.exists() else None


def ask(name, *urls, storage_options=None, environment=None):
    """Return the verdicts of one package about files, from one process for all of them."""
    python = consumers_python()
    if python is None:
        pytest.skip("no .venv-consumers: make test-consumers")
    options = json.dumps(storage_options or {})
    done = subprocess.run(  # noqa: S603 - our own script
        [python, "-W", "ignore", _CHECKS, name, options, *map(str, urls)],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Verdict(**verdict) for verdict in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="session")
def consume():
    """`consume(name, *urls) -> [Verdict]`, one for each URL; names are those of checks.CHECKS."""
    return ask
