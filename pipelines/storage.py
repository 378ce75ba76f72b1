"""Objects under one URL, on a local disk or on S3: listed, read unchanged, created whole.

An object is never written over: `create` and `ObjectWriter.commit` publish under a free name or say
that it is taken. What libraries raise becomes a `StorageError` here and in the modules below.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pipelines.errors import ConfigError, PipelineError, StorageError
from pipelines.local import Directory
from pipelines.objects import StoredObject, Upload
from pipelines.storage_options import options_text

if TYPE_CHECKING:
    from pipelines.s3 import Bucket

__all__ = ["ObjectWriter", "Store", "StoredObject", "open_store"]

logger = logging.getLogger(__name__)

_HASH_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Store:
    """Where objects lie; cheap, hashable and picklable, so that it can go to any worker.

    Attributes:
        url: absolute, without a trailing slash or credentials.
        options: the storage options as JSON; unused on a local disk.
    """

    url: str
    options: str = field(default="{}", repr=False)

    @property
    def is_local(self) -> bool:
        """Return whether this is a directory of the local file system."""
        return self.url.startswith("file://")

    @property
    def root(self) -> str:
        """Return the absolute directory, or `bucket/prefix`."""
        return self.url.partition("://")[2]

    def absolute_url(self, path: str) -> str:
        """Return the URL of a path, not percent-encoded."""
        return self._place.absolute_url(path)

    def location(self, path: str) -> str:
        """Return what any reader opens: a URL on S3, a path on a disk.

        Readers differ on whether `%` in a `file://` URL is an escape.
        """
        return f"{self.root}/{path}" if self.is_local else f"{self.url}/{path}"

    def list_objects(self, prefix: str = "", suffix: str = "") -> Iterator[StoredObject]:
        """Yield what is there now, in code point order of the paths.

        Args:
            prefix: what a path starts with; not only whole directories. Nothing there, nothing
                listed; a missing bucket is a StorageError, when the first object is asked for.
            suffix: what a path ends with.
        """
        return self._place.list_objects(prefix, suffix)

    def list_folder(self, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """Return the folders directly in a folder and the objects there.

        Args:
            prefix: of the folder, with a slash at its end; `""` is the root. So are the folders
                in the answer.
        """
        return self._place.list_folder(prefix)

    def list_wide(self, prefixes: Sequence[str]) -> Iterator[StoredObject]:
        """Yield what is below each prefix, in code point order, with listings side by side."""
        return self._place.list_wide(sorted(prefixes))

    def stat(self, path: str) -> StoredObject | None:
        """Return the object as it is now, or None when there is none."""
        return self._place.stat(path)

    def read_bytes(
        self,
        path: str,
        *,
        start: int | None = None,
        end: int | None = None,
        etag: str | None = None,
    ) -> bytes:
        """Return bytes as a slice does: `end` is exclusive, a negative `start` alone is a tail.

        Raises:
            BatchChangedError: the object is gone or does not have the `etag`; plan again.
        """
        if (end is not None and end < 0) or (start is not None and start < 0 and end is not None):
            raise ValueError(f"no such byte range: {start}:{end}")
        return self._place.read_bytes(path, start, end, etag)

    def download(
        self,
        path: str,
        local: Path,
        ranges: Sequence[tuple[int, int]],
        *,
        etag: str | None,
        size: int,
    ) -> int:
        """Write byte ranges `[start, end)` to the same places of a new sparse file.

        Returns:
            The bytes fetched. `local` is `size` bytes long, with holes elsewhere.

        Raises:
            BatchChangedError: the object is gone or does not have the `etag`; plan again.
            ResourceError: the local disk is full.
        """
        return self._place.download(path, local, ranges, etag, size)

    def create(self, path: str, data: bytes) -> str | None:
        """Publish a small object whole and return its ETag; None, when the name is taken.

        None can also mean that an attempt of this very call succeeded and its answer was lost:
        look at what stands there.
        """
        return self._place.create(path, data)

    def open_writer(self, path: str) -> "ObjectWriter":
        """Start an object that is published by `commit`, and not at all without."""
        return ObjectWriter(self._place.open_upload(path), self.absolute_url(path))

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is fine."""
        self._place.delete(path)

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of one object's bytes in hex, read in pieces."""
        found = self.stat(path)
        if found is None:
            url = self.absolute_url(path)
            raise StorageError(f"cannot read {url}: no such object", url=url)
        digest = hashlib.sha256()
        for start in range(0, found.size, _HASH_BYTES):
            end = min(found.size, start + _HASH_BYTES)
            digest.update(self.read_bytes(path, start=start, end=end, etag=found.etag))
        return digest.hexdigest()

    def read_clock(self) -> float:
        """Return epoch seconds by the store's own clock, the one of `modified_at`."""
        return self._place.read_clock()

    def clear_leftovers(self, older_than_seconds: float, *, only_count: bool = False) -> int:
        """Remove what writers of killed runs left and no listing shows; return how many.

        These are unfinished multipart uploads, and temporary files on a local disk.

        Args:
            older_than_seconds: by the store's clock; younger ones may be in use.
            only_count: remove nothing.
        """
        return self._place.clear_leftovers(older_than_seconds, only_count=only_count)

    @property
    def _place(self) -> "Directory | Bucket":
        if self.is_local:
            return Directory(Path(self.root))
        # Not at the top: s3fs takes half a second to import, which local runs and --help need not.
        from pipelines.s3 import Bucket  # noqa: PLC0415
        from pipelines.s3_client import Client  # noqa: PLC0415

        bucket, _, prefix = self.root.partition("/")
        return Bucket(Client(bucket, self.options), prefix)


class ObjectWriter:
    """One new object, written in order by one thread; several writers may run side by side.

    Leaving the context without `commit`, by an exception or not, leaves nothing behind.

    Attributes:
        url: where the object will stand.
        size: bytes written so far.
    """

    def __init__(self, upload: Upload, url: str) -> None:
        """Use `Store.open_writer`."""
        self.url = url
        self.size = 0
        self._upload: Upload | None = upload

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; they are copied or on disk on return, so the buffer may be used again."""
        upload = self._open()
        try:
            upload.write(data)
        except BaseException:
            self.abort()
            raise
        self.size += memoryview(data).nbytes

    def commit(self) -> bool:
        """Publish the object; return False, with nothing replaced, when the name is taken.

        As with `Store.create`, False can follow an own success whose answer was lost.

        Above 8 MiB on S3 this is as strict as the store: AWS decides a race of two writers for one
        name, SeaweedFS 4.48 may tell both True and keep the last (whole) object. So give a name to
        one content, and commit with a `create`, which is one put.
        """
        upload = self._open()
        try:
            return upload.finish()
        finally:
            self.abort()

    def abort(self) -> None:
        """Give the object up; nothing happens when it was committed or aborted before."""
        upload, self._upload = self._upload, None
        if upload is not None:
            try:
                upload.discard()
            except PipelineError as exc:
                # Never hides the error that led here; clear_leftovers removes the rest later.
                logger.warning("left an unfinished upload behind: %s", exc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def _open(self) -> Upload:
        if self._upload is None:
            raise ValueError(f"the writer of {self.url} is closed")
        return self._upload


def open_store(url: str, storage_options: Mapping[str, Any] | None = None) -> Store:
    """Return the store at a URL or a plain local path; nothing is read or written yet.

    Args:
        url: `s3://bucket/prefix`, `file:///absolute/path` or a path.
        storage_options: for s3fs, on S3; credentials come from the environment.

    Raises:
        ConfigError: another protocol, credentials in the URL or the options, an unknown option.
    """
    text = options_text(storage_options or {})
    protocol, separator, rest = url.partition("://")
    if not separator or protocol == "file":
        return Store(f"file://{_local_root(url, rest if separator else url)}")
    if protocol != "s3":
        raise ConfigError(f"{protocol}:// is not supported: use s3:// or file://")
    rest = rest.rstrip("/")
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket:
        raise ConfigError(
            "an s3:// URL must not hold credentials: set AWS_ACCESS_KEY_ID and others"
        )
    if not bucket or ":" in bucket or "?" in rest or prefix.startswith("/"):
        raise ConfigError(f"{url.partition('?')[0]!r} is not of the form s3://bucket/prefix")
    return Store(f"s3://{rest}", text)


def _local_root(url: str, path: str) -> str:
    """Return the absolute form of a path; links in it stay as they are."""
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    if not path or (url != path and not path.startswith("/")):
        raise ConfigError(f"{url!r} is not of the form file:///absolute/path")
    root = os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - absolute() keeps `..`
    if root == "/":
        raise ConfigError("the root of the file system cannot be a store: name a directory")
    return "/" + root.lstrip("/")
