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

from pipelines.config import ExportConfig
from pipelines.errors import ConfigError

# What botocore looks at before the names that a block's values are given, or beside them.
_UNSET = (
    *("AWS_SECURITY_TOKEN", "AWS_CREDENTIAL_EXPIRATION", "AWS_DEFAULT_PROFILE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_ENDPOINT_URL"),
)


@contextmanager
def credentials(slug: str | None) -> Iterator[None]:
    """Let S3 be reached with the credentials of a block while the body runs.

    Args:
        slug: type and name, `aws-credentials/exports` or `minio-credentials/exports`; None leaves
            the usual AWS chain alone.

    Raises:
        ConfigError: there is no such block, it holds no credentials for S3, or fsspec is set to
            use others.
    """
    if slug is None:
        yield
        return
    if others := {"key", "secret", "token", "profile"} & fsspec.config.conf.get("s3", {}).keys():
        raise ConfigError(
            f"credentials: fsspec's own settings ({', '.join(sorted(others))} of s3, from the "
            f"environment or a file) would be used instead of {slug!r}; remove them"
        )
    found = _environment(slug)
    before = {name: os.environ.get(name) for name in found}
    _set(found)
    try:
        yield
    finally:
        _set(before)


def refuse_profiles(config: ExportConfig, slug: str) -> None:
    """Make sure that a config names no profile, which would be used instead of a block.

    Raises:
        ConfigError: it names one.
    """
    for where in ("source", "destination"):
        if getattr(config, where).storage_options.get("profile"):
            raise ConfigError(
                f"{where}.storage_options.profile would be used instead of the credentials of "
                f"{slug!r}: give one or the other"
            )


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
    if getattr(block, "assume_role_arn", None):
        raise ConfigError(f"credentials: {slug!r} assumes a role, which is not supported here")
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
    if not (key and secret) and not profile:
        raise ConfigError(
            f"credentials: {slug!r} holds neither a key with its secret nor a profile"
        )
    return {
        **dict.fromkeys(_UNSET),
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
        "AWS_PROFILE": profile,
        "AWS_DEFAULT_REGION": region,
        # The name that comes before AWS_ENDPOINT_URL and before what a file of profiles says.
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false" if endpoint else None,
    }


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    fsspec.get_filesystem_class("s3").clear_instance_cache()
