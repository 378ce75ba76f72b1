"""A prefix of an S3 bucket as a store: listed fresh, read under an ETag, never written over."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipelines.errors import BatchChangedError, StorageError
from pipelines.objects import StoredObject, check_path
from pipelines.s3_client import Client, Sender
from pipelines.s3_errors import MISSING, error_code, s3_errors
from pipelines.s3_upload import S3Upload

_LISTINGS = 16
_LISTING_LEVELS = 3
_GET_BYTES = 8 * 1024 * 1024
_GETS_IN_FLIGHT = 4
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and the prefix every path is relative to."""

    client: Client
    prefix: str

    def absolute_url(self, path: str) -> str:
        """Return the `s3://` URL."""
        return f"s3://{self.client.bucket}/{self._base}{path}".removesuffix("" if path else "/")

    def list_objects(self, prefix: str, suffix: str) -> Iterator[StoredObject]:
        """Yield the objects under a string prefix, by path."""
        found = self._list(prefix, suffix)
        # AWS lists general purpose buckets in UTF-8 order, so a million keys can stream; directory
        # buckets and other makes of S3 may list by directory (`a/x` before `a-b`).
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/ListingKeysUsingAPIs.html
        in_order = self.client.host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        if in_order and not self.client.bucket.endswith("--x-s3"):
            yield from found
        else:
            yield from sorted(found, key=attrgetter("path"))

    def list_wide(self, prefixes: Sequence[str]) -> Iterator[StoredObject]:
        """Yield the objects under each prefix, by path; folders are listed side by side.

        One listing gives 1,000 keys a request, each after the other; so a wide tree is split at
        its folders, up to three levels down, until there are enough listings to run at once.
        """
        found: list[StoredObject] = []
        with ThreadPoolExecutor(_LISTINGS) as pool:
            folders = list(prefixes)
            for _ in range(_LISTING_LEVELS):
                if len(folders) >= _LISTINGS:
                    break
                pages = list(pool.map(self.list_folder, folders))
                found += [entry for _, objects in pages for entry in objects]
                folders = [folder for below, _ in pages for folder in below]
            listed = pool.map(lambda folder: list(self._list(folder, "")), folders)
            found += [entry for entries in listed for entry in entries]
        yield from sorted(found, key=attrgetter("path"))

    def stat(self, path: str) -> StoredObject | None:
        """Return the object as it is now, or None when there is none."""
        key = self._key(path)
        with self._errors("look at", path, "s3:GetObject and s3:ListBucket"):
            try:
                found = self.client.call("head_object", Key=key)
            except OSError as exc:
                if error_code(exc) in MISSING:
                    return None
                if error_code(exc) in {"400", "403"}:
                    # The answer to a HEAD has no body that could say why; that to a GET has.
                    self.client.call("get_object", Key=key, Range="bytes=0-0")
                raise
        size, etag = found["ContentLength"], found["ETag"].strip('"')
        return StoredObject(path, size, etag, found["LastModified"].timestamp())

    def read_bytes(self, path: str, start: int | None, end: int | None, etag: str | None) -> bytes:
        """Read a byte range of one unchanged object."""
        wanted = _byte_range(start, end)
        if wanted == "":
            return b""
        data = bytearray()

        def keep(offset: int, chunk: bytes) -> None:
            data[offset:] = chunk

        with self._errors("read", path, "s3:GetObject"):
            try:
                self.client.run(lambda send: self._get(send, path, wanted, etag, keep))
            except OSError as exc:
                if error_code(exc) == "InvalidRange":  # past the end is empty, as in slices
                    return b""
                raise
        return bytes(data)

    def download(
        self, path: str, local: Path, ranges: Sequence[tuple[int, int]], etag: str | None, size: int
    ) -> int:
        """Fetch byte ranges to the same places of a sparse file; return the bytes fetched."""
        pieces = deque(
            (begin, min(end, begin + _GET_BYTES))
            for start, end in ranges
            for begin in range(start, end, _GET_BYTES)
        )

        async def fetch(send: Sender) -> int:
            # Opened here, not by the caller: an interrupted caller must not close, and so give
            # away, a descriptor that this coroutine still writes to.
            with local.open("wb") as file:
                file.truncate(size)
                return await self._fetch(send, path, pieces, etag, file.fileno())

        with self._errors("download", path, "s3:GetObject"):
            return self.client.run(fetch)

    def create(self, path: str, data: bytes) -> str | None:
        """Put one small object and return its ETag; None when the name is taken."""
        with self._errors("create", path, "s3:PutObject"):
            put = self.client.publish("put_object", Key=self._key(path), Body=BytesIO(data))
        # A store that tells no ETag still has the object: one that no listing shows.
        return put.get("ETag", "").strip('"') or "untold" if put is not None else None

    def open_upload(self, path: str) -> S3Upload:
        """Start a new object; nothing is sent before the first part is full."""
        return S3Upload(self.client, self._key(path), self.absolute_url(path))

    def delete(self, path: str) -> None:
        """Remove the object; a missing one is fine."""
        with self._errors("delete", path, "s3:DeleteObject"):
            try:
                self.client.call("delete_object", Key=self._key(path))
            except OSError as exc:
                if error_code(exc) not in MISSING:
                    raise

    def read_clock(self) -> float:
        """Return the time as the store tells it."""
        with self._errors("list", "", "s3:ListBucket"):
            answer = self.client.call("list_objects_v2", Prefix=self._base, MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def clear_leftovers(self, older_than_seconds: float, *, only_count: bool = False) -> int:
        """Abort multipart uploads of dead runs; return how many."""
        oldest, cleared = self.read_clock() - older_than_seconds, 0
        permission = "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload"
        marker: dict[str, str] = {}
        with self._errors("clear unfinished uploads below", "", permission):
            while True:
                page = self.client.call("list_multipart_uploads", Prefix=self._base, **marker)
                for upload in page.get("Uploads", []):
                    if upload["Initiated"].timestamp() < oldest:
                        cleared += 1
                        if not only_count:
                            self.client.abort(upload["Key"], upload["UploadId"])
                if not page.get("IsTruncated"):
                    return cleared
                marker = {
                    "KeyMarker": page["NextKeyMarker"],
                    "UploadIdMarker": page["NextUploadIdMarker"],
                }

    def _list(self, prefix: str, suffix: str) -> Iterator[StoredObject]:
        """Yield in the store's order, a page at a time and never from a cache."""
        for page in self._pages(prefix):
            yield from self._listed(page, suffix)

    def list_folder(self, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """Return the folders directly under a string prefix, and the objects."""
        folders: list[str] = []
        objects: list[StoredObject] = []
        for page in self._pages(prefix, Delimiter="/"):
            below = (entry["Prefix"] for entry in page.get("CommonPrefixes", []))
            folders += [key[len(self._base) :] for key in below]
            objects += self._listed(page, "")
        return folders, objects

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        while True:
            with self._errors("list", prefix, "s3:ListBucket"):
                page = self.client.call("list_objects_v2", Prefix=self._base + prefix, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _listed(self, page: dict[str, Any], suffix: str) -> Iterator[StoredObject]:
        for entry in page.get("Contents", []):
            path = entry["Key"][len(self._base) :]
            if path.endswith(suffix) and path and not path.endswith("/"):
                etag, modified_at = entry["ETag"].strip('"'), entry["LastModified"].timestamp()
                yield StoredObject(path, entry["Size"], etag, modified_at)

    async def _fetch(
        self,
        send: Sender,
        path: str,
        pieces: deque[tuple[int, int]],
        etag: str | None,
        descriptor: int,
    ) -> int:
        """Write the pieces at their places, a few at a time."""

        async def work() -> int:
            fetched = 0
            while pieces:
                begin, end = pieces.popleft()
                keep = partial(_write_at, descriptor, begin)
                fetched += await self._get(send, path, f"bytes={begin}-{end - 1}", etag, keep)
            return fetched

        tasks = [asyncio.create_task(work()) for _ in range(min(_GETS_IN_FLIGHT, len(pieces)))]
        try:
            return sum(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _get(
        self,
        send: Sender,
        path: str,
        wanted: str | None,
        etag: str | None,
        keep: Callable[[int, bytes], None],
    ) -> int:
        """Hand the body to `keep` as (offset, chunk), again from 0 when it broke midway."""
        url = self.absolute_url(path)
        parameters = {"Key": self._key(path)}
        parameters |= {"Range": wanted} if wanted else {}
        parameters |= {"IfMatch": f'"{etag}"'} if etag else {}

        async def take(answer: dict[str, Any]) -> int:
            if etag and answer["ETag"].strip('"') != etag:  # a store that ignores If-Match
                raise BatchChangedError(f"{url} was overwritten since it was listed", url=url)
            if wanted and "ContentRange" not in answer:
                raise StorageError(f"cannot read {url}: the store ignores byte ranges", url=url)
            offset = 0
            async with answer["Body"] as body:
                while chunk := await body.read(_READ_BYTES):
                    keep(offset, chunk)
                    offset += len(chunk)
            return offset

        try:
            fetched: int = await send("get_object", take, **parameters)
        except OSError as exc:
            if etag and error_code(exc) in MISSING:
                gone = f"{url} was removed since it was listed"
                raise BatchChangedError(gone, url=url) from exc
            raise
        return fetched

    def _key(self, path: str) -> str:
        return self._base + check_path(path, self.absolute_url(""))

    @property
    def _base(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _errors(self, doing: str, path: str, permission: str) -> AbstractContextManager[None]:
        return s3_errors(doing, self.absolute_url(path), permission)


def _byte_range(start: int | None, end: int | None) -> str | None:
    """Return the Range header of a slice, None for everything, '' for nothing."""
    if start is not None and start < 0:
        return f"bytes={start}"
    begin = start or 0
    if end is None:
        return f"bytes={begin}-" if begin else None
    return f"bytes={begin}-{end - 1}" if end > begin else ""


def _write_at(descriptor: int, begin: int, offset: int, chunk: bytes) -> None:
    view, position = memoryview(chunk), begin + offset
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
