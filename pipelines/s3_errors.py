"""What S3 and the libraries below it raise, as errors that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from pipelines.errors import (
    BatchChangedError,
    PipelineError,
    ResourceError,
    StorageError,
    ThrottledError,
)
from pipelines.objects import exhausted

_BROKEN = (  # a connection that was made, also while an answer's bytes came
    aiohttp.ClientError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    ConnectionError,
    TimeoutError,
)
FOREIGN = (OSError, aiohttp.ClientError, boto.BotoCoreError, boto.ClientError, ResponseParserError)
_HTTP_SERVER_ERROR = 500
_HTTP_NOT_IMPLEMENTED = 501
CHANGED = {"PreconditionFailed", "412"}
MISSING = {"NoSuchKey", "404", "NotFound"}
_DENIED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "Forbidden",
    "InvalidPayer",
    "403",
}
_BUSY = {
    *("SlowDown", "ServiceUnavailable", "InternalError", "OperationAborted", "RequestTimeout"),
    *("Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "429"),
    *("BandwidthLimitExceeded", "ConditionalRequestConflict", "XAmzContentSHA256Mismatch", "409"),
    *("IncompleteBody", "BadDigest"),  # the bytes sent did not arrive as they were
}
_EXPIRED = "the session token has expired: renew the credentials"
_REGION = "the bucket is in another region: set AWS_DEFAULT_REGION or client_kwargs.region_name"
_REASONS = {
    "InvalidAccessKeyId": "the access key is not known there: check AWS_ACCESS_KEY_ID, the profile "
    "and the endpoint",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check "
    "AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "the session token is not valid: renew AWS_SESSION_TOKEN, or unset it",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "InvalidBucketName": "that is no valid bucket name: correct the URL",
    "NotImplemented": "the store does not offer this operation (create-only puts are needed)",
    "NoSuchUpload": "the upload was aborted by someone else: run again",
}
_ENDPOINT = "the endpoint (AWS_ENDPOINT_URL or endpoint_url)"
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.MetadataRetrievalError,
)
_UNREACHABLE = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)


@contextmanager
def s3_errors(doing: str, url: str, permission: str) -> Iterator[None]:
    """Turn what the body raises into one of ours; `permission` is what a 403 asks for."""
    try:
        yield
    except FOREIGN as exc:
        raise _explain(exc, f"cannot {doing} {url}", url, permission) from exc


def error_code(exc: BaseException) -> str:
    """Return the S3 error code behind an exception (`404` where S3 gave none), or ''."""
    error = _client_error(exc)
    return _code(error.response) if error else ""


def is_transient(exc: BaseException) -> bool:
    """Return whether the store was busy or broken for a moment: the same request may work soon."""
    if (answer := _client_error(exc)) is not None:
        return _is_busy(answer.response)
    return isinstance(exc, _BROKEN) or _was_reset(exc)


def is_doubtful(exc: BaseException) -> bool:
    """Return whether a config's mistake looks the same as a moment's trouble."""
    unreachable = isinstance(exc, _UNREACHABLE) and not _was_reset(exc)
    return error_code(exc) in _DENIED or unreachable


def _client_error(exc: BaseException | None) -> boto.ClientError | None:
    """Find what S3 answered; s3fs hides it as the cause of an OSError."""
    while exc is not None and not isinstance(exc, boto.ClientError):
        exc = exc.__cause__
    return exc


def _explain(exc: Exception, failed: str, url: str, permission: str) -> PipelineError:
    error: type[StorageError] = StorageError
    if (answer := _client_error(exc)) is not None:
        error, reason = _explain_answer(answer.response, url, permission)
    elif isinstance(exc, OSError) and (reason := exhausted(exc)):
        return ResourceError(f"{failed}: {reason}")
    elif isinstance(exc, _NO_CREDENTIALS):
        reason = (
            "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a "
            "profile, or run under a role"
        )
    elif isinstance(exc, boto.SSLError):
        reason = f"no TLS with {_host(exc)}: check {_ENDPOINT}, https or http, and its certificate"
    elif isinstance(exc, _UNREACHABLE) and not _was_reset(exc):
        reason = f"nothing answers at {_host(exc)}: check {_ENDPOINT}, its name and the network"
    elif isinstance(exc, (*_BROKEN, *_UNREACHABLE)):
        error = ThrottledError
        reason = f"the connection broke or timed out ({type(exc).__name__}): run again"
    elif isinstance(exc, ResponseParserError):
        reason = f"the answer is not S3's: check {_ENDPOINT}"
    else:
        reason = without_secrets(str(exc))
    return error(f"{failed}: {reason}", url=url)


def _explain_answer(
    response: dict[str, Any], url: str, permission: str
) -> tuple[type[StorageError], str]:
    code, status = _code(response), _status(response)
    said = without_secrets(str(response.get("Error", {}).get("Message", "")))
    error: type[StorageError] = StorageError
    if code in CHANGED:
        error, reason = BatchChangedError, "it was overwritten since it was listed"
    elif code in _REASONS:
        reason = _REASONS[code]
    elif code in _DENIED:
        reason = (
            f"access denied ({said or code}): check the credentials, and that they allow "
            f"{permission}"
        )
    elif code == "NoSuchBucket":
        bucket = urlsplit(url).netloc
        reason = f"there is no bucket {bucket!r}: create it, or correct the URL or {_ENDPOINT}"
    elif code == "NoSuchKey":
        reason = "no such object"
    elif code in MISSING:
        reason = f"not found: check the URL and {_ENDPOINT}"
    elif _is_busy(response):
        error = ThrottledError
        reason = f"the store is busy or broken ({code or status}): run again later"
    else:
        reason = f"{code or status}: {said}"
    return error, reason


def _is_busy(response: dict[str, Any]) -> bool:
    code, status = _code(response), _status(response)
    if code in _REASONS:
        return False
    return code in _BUSY or (status >= _HTTP_SERVER_ERROR and status != _HTTP_NOT_IMPLEMENTED)


def _code(response: dict[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))


def _status(response: dict[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _was_reset(exc: BaseException) -> bool:
    """Tell a connection that broke from one never made; aiobotocore names them alike."""
    if not isinstance(exc, _UNREACHABLE):
        return False
    error = exc.kwargs.get("error")
    return isinstance(error, aiohttp.ClientError) and not isinstance(
        error, (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)
    )


def _host(exc: boto.BotoCoreError) -> str:
    """Return scheme and host of the request, and nothing that could be secret."""
    parts = urlsplit(str(exc.kwargs.get("endpoint_url") or ""))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else "the proxy"


def without_secrets(text: str) -> str:
    """Return the text without query strings and without the user part of URLs."""
    return re.sub(r"\?[^\s\"'<>]+", "?…", re.sub(r"//[^/@\s]+@", "//", text))
