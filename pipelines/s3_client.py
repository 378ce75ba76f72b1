"""Requests on one S3 bucket, through the client that s3fs sets up from the storage options.

Only requests: s3fs's own files and listings cache directories, and publish a truncated object when
their writer fails.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from pipelines.errors import ConfigError
from pipelines.s3_errors import CHANGED, MISSING, error_code, without_secrets

_T = TypeVar("_T")
# Five attempts at a host that swallows packets, with botocore's pauses (up to 1, 2, 4 and 8 s), end
# within 30 s. What is connected and slow gets its minute.
_CONFIG = {
    "connect_timeout": 3,
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 5},
    "max_pool_connections": 64,
}


@dataclass(frozen=True, slots=True)
class Client:
    """One bucket and the storage options as JSON; all threads of a process share the connections.

    What its methods raise is for `s3_errors` to translate.
    """

    bucket: str
    options: str

    @property
    def host(self) -> str:
        """Return the host name of the endpoint."""
        return urlsplit(str(_connect(self.options).s3.meta.endpoint_url)).hostname or ""

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request and return its answer."""
        return wait_for(self.start(operation, **parameters))

    def start(self, operation: str, **parameters: Any) -> "Future[dict[str, Any]]":
        """Send a request without waiting for its answer."""
        fs = _connect(self.options)
        return asyncio.run_coroutine_threadsafe(self._request(fs, operation, parameters), fs.loop)

    def run(self, work: Callable[["Sender"], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine that sends several requests, and return its result."""
        fs = _connect(self.options)

        async def send(operation: str, **parameters: Any) -> dict[str, Any]:
            return await self._request(fs, operation, parameters)

        return wait_for(asyncio.run_coroutine_threadsafe(work(send), fs.loop))

    def publish(self, operation: str, **parameters: Any) -> bool:
        """Send a create-only request; return False when the name is taken."""
        try:
            self.call(operation, IfNoneMatch="*", **parameters)
        except OSError as exc:
            if error_code(exc) not in CHANGED:
                raise
            return False
        return True

    def abort(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload; one that is gone is fine."""
        try:
            self.call("abort_multipart_upload", Key=key, UploadId=upload_id)
        except OSError as exc:
            if error_code(exc) not in {"NoSuchUpload", *MISSING}:
                raise

    async def _request(
        self, fs: S3FileSystem, operation: str, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        # The public call_s3 blocks; this is the coroutine it runs.
        answer: dict[str, Any] = await fs._call_s3(  # noqa: SLF001 - see above
            operation, Bucket=self.bucket, **parameters
        )
        return answer


Sender = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def wait_for(future: "Future[_T]") -> _T:
    """Return the answer; an interrupted wait calls the request off."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _connect(options: str) -> S3FileSystem:
    settings = json.loads(options)
    settings["config_kwargs"] = _CONFIG | settings.get("config_kwargs", {})
    try:
        fs = S3FileSystem(use_listings_cache=False, **settings)  # cached by fsspec, per process
        fs.retries = 1  # botocore has retried already, with jitter; s3fs would square the attempts
        fs.s3  # noqa: B018 - connects on first use
    except (BotoCoreError, TypeError, ValueError) as exc:
        raise ConfigError(
            f"these storage_options do not work: {without_secrets(str(exc))}"
        ) from exc
    return fs
