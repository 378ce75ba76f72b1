"""A directory as a store: whole files or none, under names that never change hands."""

import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import (
    BatchChangedError,
    PipelineError,
    ResourceError,
    StorageError,
    ThrottledError,
)
from pipelines.objects import StoredObject, check_path, exhausted

TEMPORARY = "_meta/tmp"
_COPY_BYTES = 8 * 1024 * 1024
_BUSY = {errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}
_REASONS = {
    errno.EACCES: "permission denied: let this user read and write there",
    errno.EPERM: "not permitted: let this user read and write there",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOENT: "no such object",
    errno.EISDIR: "that is a directory, not an object",
    errno.ENOTDIR: "a file stands where the path needs a directory",
    errno.ENAMETOOLONG: "the file system does not take so long a name",
    errno.ELOOP: "symbolic links go in a circle",
    errno.EOPNOTSUPP: "the file system has no hard links, which create-only needs: use another",
}


@contextmanager
def local_errors(doing: str, url: str) -> Iterator[None]:
    """Turn an OSError of the body into one of ours that says what failed, where and why."""
    try:
        yield
    except OSError as exc:
        raise _explain(exc, f"cannot {doing} {url}", url) from exc


def _explain(exc: OSError, failed: str, url: str) -> PipelineError:
    code = exc.errno or 0
    if reason := exhausted(exc):
        return ResourceError(f"{failed}: {reason}")
    error = ThrottledError if code in _BUSY else StorageError
    return error(f"{failed}: {_REASONS.get(code, exc.strerror or str(exc))}", url=url)


@dataclass(frozen=True, slots=True)
class Directory:
    """A store on a local disk (or a mounted one)."""

    root: Path

    def absolute_url(self, path: str) -> str:
        """Return the `file://` URL; like S3 URLs it is not percent-encoded."""
        return f"file://{self._local(path).as_posix()}" if path else f"file://{self.root}"

    def list_objects(self, prefix: str, suffix: str) -> Iterator[StoredObject]:
        """Yield the files under a string prefix, by path; hidden names are not objects."""
        start = prefix.rpartition("/")[0]
        if start:
            self._local(start)
        for found in self._walk(start, prefix, frozenset()):
            if found.path.startswith(prefix) and found.path.endswith(suffix):
                yield found

    def list_wide(self, prefixes: Sequence[str]) -> Iterator[StoredObject]:
        """Yield the files under each prefix; a disk gains nothing by listings side by side."""
        for prefix in prefixes:
            yield from self.list_objects(prefix, "")

    def list_folder(self, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """Return the directories directly in a directory and the files there."""
        directory = self._local(prefix) if prefix else self.root
        with local_errors("list", f"file://{directory}"):
            entries = [entry for entry in _scan(directory) if not entry.name.startswith(".")]
            folders = [f"{prefix}{entry.name}/" for entry in entries if entry.is_dir()]
            files = [_listed(entry, f"{prefix}{entry.name}") for entry in entries]
        return folders, [found for found in files if found is not None]

    def stat(self, path: str) -> StoredObject | None:
        """Return the file as it is now, or None when there is none."""
        with local_errors("look at", self.absolute_url(path)):
            try:
                status = self._local(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return None if stat.S_ISDIR(status.st_mode) else _describe(path, status)

    def read_bytes(self, path: str, start: int | None, end: int | None, etag: str | None) -> bytes:
        """Read a byte range of one unchanged file."""
        url = self.absolute_url(path)
        with local_errors("read", url):
            try:
                file = self._local(path).open("rb")
            except FileNotFoundError as exc:
                if etag is None:
                    raise
                raise BatchChangedError(f"{url} was removed while it was read", url=url) from exc
            with file:
                first = _describe(path, os.fstat(file.fileno()))
                begin, stop, _ = slice(start, end).indices(first.size)
                file.seek(begin)
                data = file.read(max(0, stop - begin))
                last = _describe(path, os.fstat(file.fileno()))
        if etag is not None and not first.etag == last.etag == etag:
            raise BatchChangedError(f"{url} was overwritten while it was read", url=url)
        return data

    def download(
        self, path: str, local: Path, ranges: Sequence[tuple[int, int]], etag: str | None, size: int
    ) -> int:
        """Copy byte ranges to the same places of a sparse file; return the bytes copied."""
        copied = 0
        with local_errors("write", f"file://{local}"), local.open("wb") as file:
            file.truncate(size)
            for start, end in ranges:
                file.seek(start)
                for begin in range(start, end, _COPY_BYTES):
                    stop = min(end, begin + _COPY_BYTES)
                    copied += file.write(self.read_bytes(path, begin, stop, etag))
        return copied

    def create(self, path: str, data: bytes) -> str | None:
        """Publish one small file whole and return its ETag; None when the name is taken."""
        upload = self.open_upload(path)
        try:
            upload.write(data)
            created = upload.finish()
        finally:
            upload.discard()
        return found.etag if created and (found := self.stat(path)) else None

    def open_upload(self, path: str) -> "FileUpload":
        """Start a new file beside its final place, on the same file system."""
        return FileUpload(self.root, self._local(path), self.absolute_url(path))

    def delete(self, path: str) -> None:
        """Remove the file; a missing one is fine."""
        with local_errors("delete", self.absolute_url(path)):
            self._local(path).unlink(missing_ok=True)

    def read_clock(self) -> float:
        """Return the time as files here are stamped with it."""
        return time.time()

    def clear_leftovers(self, older_than_seconds: float, *, only_count: bool = False) -> int:
        """Remove temporary files of dead runs; return how many."""
        oldest = self.read_clock() - older_than_seconds
        with local_errors("clear", self.absolute_url(TEMPORARY)):
            old = [entry for entry in _scan(self.root / TEMPORARY) if _is_older(entry, oldest)]
            for entry in () if only_count else old:
                Path(entry.path).unlink(missing_ok=True)
        return len(old)

    def _local(self, path: str) -> Path:
        check_path(path, f"file://{self.root}")
        if path.startswith("/"):
            raise StorageError(f"{path!r} is not relative to file://{self.root}")
        return self.root / path

    def _walk(
        self, within: str, prefix: str, above: frozenset[tuple[int, int]]
    ) -> Iterator[StoredObject]:
        """Yield every file below one directory, in the order S3 lists keys."""
        directory = self.root / within if within else self.root
        files: dict[str, StoredObject | None] = {}
        with local_errors("list", f"file://{directory}"):
            try:
                status = directory.stat()
            except (FileNotFoundError, NotADirectoryError):
                return
            identity = (status.st_dev, status.st_ino)
            if identity in above:  # a link to a directory above it would never end
                return
            for entry in _scan(directory):
                path = f"{within}/{entry.name}" if within else entry.name
                if entry.name.startswith(".") or path == TEMPORARY:
                    continue
                if not (path.startswith(prefix) or prefix.startswith(path + "/")):
                    continue
                if entry.is_dir():
                    # The slash makes `a/x` sort after `a-b`, as whole keys do.
                    files[path + "/"] = None
                elif (found := _listed(entry, path)) is not None:
                    files[path] = found
        for path, found in sorted(files.items()):
            if found is not None:
                yield found
            else:
                yield from self._walk(path.rstrip("/"), prefix, above | {identity})


class FileUpload:
    """A temporary file that becomes the target by an exclusive hard link."""

    def __init__(self, root: Path, target: Path, url: str) -> None:
        """Open the temporary file; its name is this process's and this call's alone."""
        self._target = target
        self._url = url
        self._temporary = root / TEMPORARY / f"{os.getpid()}-{uuid.uuid4().hex}"
        with local_errors("create", url):
            _make_directory(self._temporary.parent)
            self._file = self._temporary.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        """Append to the temporary file."""
        with local_errors("write", self._url):
            self._file.write(data)

    def finish(self) -> bool:
        """Make the bytes durable, then the name; False when the name is taken."""
        with local_errors("create", self._url):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            _make_directory(self._target.parent)
            try:
                os.link(self._temporary, self._target)
            except FileExistsError:
                if self._target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
                return False
            _sync_directory(self._target.parent)
        return True

    def discard(self) -> None:
        """Remove the temporary name; a published file keeps its own."""
        with local_errors("clear", self._url):
            try:
                self._file.close()  # flushes, and so may find the disk full once more
            finally:
                self._temporary.unlink(missing_ok=True)


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    """Return what stands in a directory; one that is not there, or is a file, is empty."""
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_older(entry: os.DirEntry[str], oldest: float) -> bool:
    """Whether a file was last written before an instant; one that vanished since was not."""
    try:
        return entry.stat().st_mtime < oldest
    except FileNotFoundError:
        return False


def _listed(entry: os.DirEntry[str], path: str) -> StoredObject | None:
    """Return the file, or None for what is no regular file or vanished since the scan."""
    try:
        if not entry.is_file():
            return None
        status = entry.stat()
    except FileNotFoundError:
        return None
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise StorageError(f"cannot list {path!r}: rename it, its name is not UTF-8") from exc
    return _describe(path, status)


def _describe(path: str, status: os.stat_result) -> StoredObject:
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}"
    return StoredObject(path, status.st_size, etag, status.st_mtime)


def _make_directory(directory: Path) -> None:
    """Create a directory and its parents, each one durable."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
