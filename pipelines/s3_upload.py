"""One new S3 object, streamed and create-only."""

from collections import deque
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

from pipelines.interrupts import wait_for
from pipelines.s3_client import Client
from pipelines.s3_errors import s3_errors

_PART_BYTES = 8 * 1024 * 1024
_PARTS_IN_FLIGHT = 2
# S3 wants every part's checksum back where the client sent one.
_PART_SUMS = {
    *("ETag", "ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1"),
    "ChecksumSHA256",
}


class S3Upload:
    """One put for a small object, a multipart upload for a large one; create-only both."""

    def __init__(self, client: Client, key: str, url: str) -> None:
        """Send nothing yet."""
        self._client = client
        self._key = key
        self._url = url
        # A file, because aiohttp warns of bytes past 1 MiB: it sends those in one piece.
        self._buffer = BytesIO()
        self._upload_id = ""
        self._parts: list[dict[str, Any]] = []
        self._in_flight: deque[Future[dict[str, Any]]] = deque()

    def write(self, data: bytes | memoryview) -> None:
        """Copy the bytes, and send every part that is full."""
        view = memoryview(data).cast("B")
        while view:
            room = _PART_BYTES - self._buffer.tell()
            self._buffer.write(view[:room])
            view = view[room:]
            if self._buffer.tell() == _PART_BYTES:
                self._send_part()

    def finish(self) -> bool:
        """Publish the object; False when the name is taken, as far as the store decides races."""
        if not self._upload_id:
            self._buffer.seek(0)
            with self._errors():
                return bool(self._client.publish("put_object", Key=self._key, Body=self._buffer))
        if self._buffer.tell():
            self._send_part()
        with self._errors():
            self._collect(0)
            created = self._client.publish(
                "complete_multipart_upload",
                Key=self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )
        if created:
            self._upload_id = ""
        return bool(created)

    def discard(self) -> None:
        """Abort the multipart upload, if one was started and not completed."""
        for request in self._in_flight:
            request.cancel()
        wait(self._in_flight)  # a part that lands after the abort would stay, unseen and paid for
        self._in_flight.clear()
        if self._upload_id:
            with s3_errors("abort the upload of", self._url, "s3:AbortMultipartUpload"):
                self._client.abort(self._key, self._upload_id)
            self._upload_id = ""

    def _send_part(self) -> None:
        """Start to send the buffer, once fewer parts than the limit are on their way."""
        with self._errors():
            if not self._upload_id:
                started = self._client.call("create_multipart_upload", Key=self._key)
                self._upload_id = started["UploadId"]
            self._collect(_PARTS_IN_FLIGHT - 1)
            self._buffer.seek(0)
            request = self._client.start(
                "upload_part",
                Key=self._key,
                UploadId=self._upload_id,
                PartNumber=len(self._parts) + len(self._in_flight) + 1,
                Body=self._buffer,
            )
        self._in_flight.append(request)
        self._buffer = BytesIO()

    def _collect(self, leave: int) -> None:
        """Wait for the oldest parts until only so many are on their way."""
        while len(self._in_flight) > leave:
            answer = wait_for(self._in_flight[0])
            self._in_flight.popleft()
            sums = {name: answer[name] for name in answer if name in _PART_SUMS}
            self._parts.append({"PartNumber": len(self._parts) + 1, **sums})

    def _errors(self) -> AbstractContextManager[None]:
        return s3_errors("write", self._url, "s3:PutObject")
