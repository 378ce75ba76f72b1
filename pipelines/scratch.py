"""Temporary folders on this machine: locked while in use, so that those of dead runs can go."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp

_PREFIX = "request-logs-scratch-"  # nothing else may be called so: it would be removed


@contextmanager
def open_scratch() -> Iterator[Path]:
    """Yield a new folder in TMPDIR, removed on exit.

    A run that is killed cannot remove its folders, which may hold gigabytes: the next one does.
    """
    remove_abandoned()
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove the folders in TMPDIR that no process holds any more."""
    for folder in Path(gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, another user's, or gone meanwhile
            lock = _open(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock as long as this process lives."""
    while True:
        folder = Path(mkdtemp(prefix=_PREFIX))
        try:
            lock = _open(folder)
        except FileNotFoundError:  # another run took it for an abandoned one before it was locked
            continue
        # Where the file system has no locks, `remove_abandoned` gets none either.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder, lock
        os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
