"""Requests on one S3 bucket, through the client that s3fs sets up from the storage options.

Only requests: s3fs's own files and listings cache directories, and publish a truncated object when
their writer fails.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from pipelines.errors import ConfigError
from pipelines.interrupts import wait_for
from pipelines.s3_errors import CHANGED, MISSING, error_code, without_secrets
from pipelines.s3_retry import ATTEMPTS, Retries

_T = TypeVar("_T")
_CONFIG = {
    "connect_timeout": 3,
    "read_timeout": 30,  # without a byte; ten attempts at a silent store end in five minutes
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
        """Send a request, again while the store fails for a moment, and return its answer."""
        return wait_for(self.start(operation, **parameters))

    def start(self, operation: str, **parameters: Any) -> "Future[dict[str, Any]]":
        """Send a request without waiting for its answer."""
        fs = _connect(self.options)
        return asyncio.run_coroutine_threadsafe(self._request(fs, operation, parameters), fs.loop)

    def run(self, work: Callable[["Sender"], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine that sends several requests, and return its result.

        Its `send(operation, take=…, **parameters)` returns what the coroutine function `take` makes
        of the answer; it gets another answer when the connection breaks while it reads the body.
        """
        fs = _connect(self.options)

        async def send(operation: str, take: Taker, **parameters: Any) -> Any:
            return await self._request(fs, operation, parameters, take)

        return wait_for(asyncio.run_coroutine_threadsafe(work(send), fs.loop))

    def publish(self, operation: str, **parameters: Any) -> dict[str, Any] | None:
        """Send a create-only request and return its answer; None when the name is taken."""
        try:
            return self.call(operation, IfNoneMatch="*", **parameters)
        except OSError as exc:
            if error_code(exc) not in CHANGED:
                raise
            return None

    def abort(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload; one that is gone is fine."""
        try:
            self.call("abort_multipart_upload", Key=key, UploadId=upload_id)
        except OSError as exc:
            if error_code(exc) not in {"NoSuchUpload", *MISSING}:
                raise

    async def _request(
        self,
        fs: S3FileSystem,
        operation: str,
        parameters: dict[str, Any],
        take: "Taker | None" = None,
    ) -> Any:
        async def send() -> Any:
            if "Body" in parameters:
                parameters["Body"].seek(0)
            # The public call_s3 blocks; this is the coroutine it runs.
            answer = await fs._call_s3(  # noqa: SLF001 - see above
                operation, Bucket=self.bucket, **parameters
            )
            return answer if take is None else await take(answer)

        retries: Retries = vars(fs)["request_retries"]
        kind = f"{operation} on s3://{self.bucket}"
        return await retries.run(kind, send, attempts=_attempts(self.options))


Taker = Callable[[dict[str, Any]], Awaitable[Any]]
Sender = Callable[..., Coroutine[Any, Any, Any]]


def _connect(options: str) -> S3FileSystem:
    settings = json.loads(options)
    config = _CONFIG | settings.get("config_kwargs", {})
    try:
        _attempts(options)
        # Requests are sent again in `Retries` alone: more layers would square the attempts.
        config["retries"] = config.get("retries", {}) | {"total_max_attempts": 1}
        config["retries"].pop("max_attempts", None)
        settings["config_kwargs"] = config
        fs = S3FileSystem(use_listings_cache=False, **settings)  # cached by fsspec, per process
        fs.retries = 1
        vars(fs).setdefault("request_retries", Retries())
        fs.s3  # noqa: B018 - connects on first use
    except (BotoCoreError, TypeError, ValueError) as exc:
        raise ConfigError(
            f"these storage_options do not work: {without_secrets(str(exc))}"
        ) from exc
    return fs


def _attempts(options: str) -> int:
    """Return how often a request is sent; botocore has two names for it, one of them less one."""
    asked = json.loads(options).get("config_kwargs", {}).get("retries", {})
    return int(asked.get("total_max_attempts", asked.get("max_attempts", ATTEMPTS - 1) + 1))
