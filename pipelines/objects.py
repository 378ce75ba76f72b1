"""What every kind of store shares: the listed object, safe paths, and a full local disk."""

import errno
from dataclasses import dataclass
from typing import Protocol

from pipelines.errors import StorageError

_EXHAUSTED = {
    errno.ENOSPC: "the disk is full: free space there or choose another place",
    errno.EDQUOT: "the disk quota is used up: raise it or choose another place",
    errno.EFBIG: "the file would be larger than allowed here: raise `ulimit -f`",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.ENFILE: "too many open files on this machine",
}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a store, as it was listed.

    Attributes:
        path: relative to the store, `/`-separated.
        size: bytes.
        etag: changes with the content; the S3 ETag without its quotes.
        modified_at: epoch seconds by the store's clock.
    """

    path: str
    size: int
    etag: str
    modified_at: float


class Upload(Protocol):
    """One new object on its way; `ObjectWriter` drives it and is its only caller."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the bytes; they belong to the caller again on return."""

    def finish(self) -> bool:
        """Publish the object whole, or return False because the name is taken."""

    def discard(self) -> None:
        """Leave nothing behind; nothing happens after `finish`."""


def check_path(path: str, store_url: str) -> str:
    """Return the path, or raise a StorageError when it could leave the store."""
    if "\0" in path or not path or any(step in {".", ".."} for step in path.split("/")):
        raise StorageError(f"{path!r} is not a path inside {store_url}", url=store_url)
    return path


def exhausted(exc: OSError) -> str:
    """Return what ran out on this machine and what to do, or '' when nothing did."""
    return _EXHAUSTED.get(exc.errno or 0, "")
