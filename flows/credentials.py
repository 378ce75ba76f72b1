"""Credentials of a Prefect block, for the time of a run, in this process alone.

They go where the AWS chain looks first, the environment, so that nothing that Prefect keeps
(parameters, results, logs, artifacts) ever holds them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fsspec
from prefect.blocks.core import Block

from pipelines.errors import ConfigError

_NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
)


@contextmanager
def credentials(slug: str | None) -> Iterator[None]:
    """Let S3 be reached with the credentials of a block while the body runs.

    Args:
        slug: type and name, `aws-credentials/exports` or `minio-credentials/exports`; None leaves
            the usual AWS chain alone.

    Raises:
        ConfigError: there is no such block, or it holds no credentials for S3.
    """
    if slug is None:
        yield
        return
    found = _environment(slug)
    before = {name: os.environ.get(name) for name in _NAMES}
    _set(found)
    try:
        yield
    finally:
        _set(before)


def _environment(slug: str) -> dict[str, str | None]:
    try:
        block: Any = Block.load(slug)
    except (ValueError, ImportError, RuntimeError) as exc:
        # Without the cause, which may show the values of the block.
        what = f"{slug!r} is no block that can be loaded ({type(exc).__name__})"
        raise ConfigError(f"credentials: {what}") from None
    parameters = getattr(block, "aws_client_parameters", None)
    endpoint = getattr(parameters, "endpoint_url", None)
    region = getattr(block, "region_name", None)
    if hasattr(block, "minio_root_user"):
        key, secret = block.minio_root_user, block.minio_root_password.get_secret_value()
        token = profile = None
    elif hasattr(block, "aws_access_key_id"):
        key, profile = block.aws_access_key_id, block.profile_name
        secret, token = (
            value.get_secret_value() if hasattr(value, "get_secret_value") else value
            for value in (block.aws_secret_access_key, block.aws_session_token)
        )
    else:
        raise ConfigError(f"credentials: {slug!r} is neither AwsCredentials nor MinIOCredentials")
    return dict(zip(_NAMES, (key, secret, token, profile, region, endpoint), strict=True))


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    fsspec.get_filesystem_class("s3").clear_instance_cache()
