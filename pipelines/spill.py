"""Bytes that wait on the temporary disk until there is room for them in memory."""

import os
from errno import ENOSPC
from tempfile import TemporaryFile
from typing import Any

from pipelines.errors import ResourceError


class SpillFile:
    """A nameless temporary file, made when something is first spilled."""

    def __init__(self, what: str, way_out: str) -> None:
        """Make nothing yet.

        Args:
            what: is spilled, for messages.
            way_out: what to do to spill less.
        """
        self._what = what
        self._way_out = way_out
        self._file: Any = None
        self._end = 0

    def write(self, data: bytes | bytearray) -> tuple[int, int]:
        """Append the bytes, all of them, and return where they lie: start and size.

        Raises:
            ResourceError: the disk is full.
        """
        start = self._end
        try:
            if self._file is None:
                self._file = TemporaryFile(prefix="request-logs-")  # noqa: SIM115 - see close
            _write_all(self._file.fileno(), data, start)
        except OSError as exc:
            raise ResourceError(
                f"no space left to spill {self._what} ({exc.strerror}); free space in the "
                f"temporary folder (TMPDIR) or {self._way_out}"
            ) from exc
        self._end += len(data)
        return start, len(data)

    def read(self, start: int, size: int) -> bytes:
        """Return bytes that were written; safe beside a `write`.

        Raises:
            ResourceError: they cannot be read back whole.
        """
        try:
            return _read_all(self._file.fileno(), start, size)
        except OSError as exc:
            raise ResourceError(
                f"cannot read back what was spilled of {self._what} ({exc.strerror or exc}); "
                f"look at the disk of the temporary folder (TMPDIR)"
            ) from exc

    def close(self) -> None:
        """Free the space."""
        if self._file is not None:
            self._file.close()


def _write_all(descriptor: int, data: bytes | bytearray, start: int) -> None:
    """A disk that gets full takes what it can, and refuses only the write after that."""
    done = 0
    while done < len(data):
        written = os.pwrite(descriptor, memoryview(data)[done:], start + done)
        if not written:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        done += written


def _read_all(descriptor: int, start: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.pread(descriptor, size - len(data), start + len(data))
        if not piece:
            raise OSError(f"{size - len(data)} of {size} bytes are missing")
        data += piece
    return data
