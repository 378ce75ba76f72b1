"""What `storage_options` may say: options of s3fs by name, and never a secret."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipelines.errors import ConfigError

# By name all through: whatever else stands in a config would land in the manifests.
_OPTIONS = (
    *("anon", "cache_regions", "client_kwargs", "config_kwargs", "endpoint_url", "profile"),
    *("requester_pays", "s3_additional_kwargs", "use_ssl"),
)
_INNER = {
    "client_kwargs": (
        *("api_version", "aws_account_id", "endpoint_url", "region_name", "use_ssl", "verify"),
    ),
    "config_kwargs": (  # of botocore 1.43
        *("account_id_endpoint_mode", "auth_scheme_preference", "client_cert"),
        *("connect_timeout", "defaults_mode"),
        *("disable_request_compression", "endpoint_discovery_enabled"),
        *("ignore_configured_endpoint_urls", "inject_host_prefix", "max_pool_connections"),
        *("parameter_validation", "proxies", "proxies_config", "read_timeout", "region_name"),
        *("request_checksum_calculation", "request_min_compression_size_bytes"),
        *("response_checksum_validation", "retries", "s3", "s3_disable_express_session_auth"),
        *("signature_version", "sigv4a_signing_region_set", "tcp_keepalive"),
        *("use_dualstack_endpoint", "use_fips_endpoint", "user_agent", "user_agent_appid"),
        "user_agent_extra",
    ),
    "s3_additional_kwargs": (
        *("ACL", "BucketKeyEnabled", "CacheControl", "ChecksumAlgorithm", "ExpectedBucketOwner"),
        *("RequestPayer", "SSEKMSEncryptionContext", "SSEKMSKeyId", "ServerSideEncryption"),
        *("StorageClass", "Tagging"),
    ),
    "config_kwargs.proxies": ("http", "https"),
    "config_kwargs.proxies_config": (
        *("proxy_ca_bundle", "proxy_client_cert", "proxy_use_forwarding_for_https"),
    ),
    "config_kwargs.retries": ("max_attempts", "mode", "total_max_attempts"),
    "config_kwargs.s3": (
        *("addressing_style", "payload_signing_enabled", "us_east_1_regional_endpoint"),
        *("use_accelerate_endpoint", "use_arn_region", "use_dualstack_endpoint"),
    ),
}
_SWITCHES = ("anon", "cache_regions", "requester_pays", "use_ssl")
_SECRET_NAME = re.compile(
    r"key|user(name)?|pass(word)?|cookie|.*(secret|token|password|secretkey|accesskey"
    r"|accesskeyid|secretaccesskey|customerkey|apikey|authorization|credentials?)"
)
_SECRET_VALUE = re.compile(r"\b(bearer|basic)\s+\S{8}", re.IGNORECASE)
_PRIVATE_URL = re.compile(r"@|//\S*\?")  # a proxy's user needs no scheme before it


def options_text(options: Mapping[str, Any]) -> str:
    """Return storage options as JSON text.

    Raises:
        ConfigError: one is unknown, is or holds a secret, or is no plain value; says where, and
            never shows it.
    """
    _refuse_secrets(options, "storage_options")
    _refuse_unknown(options, _OPTIONS, "storage_options")
    for name, known in _INNER.items():
        inner: Any = options
        for step in name.split("."):
            inner = inner.get(step, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(f"storage_options.{name}: a mapping is expected")
        _refuse_unknown(inner, known, f"storage_options.{name}")
    for name in _SWITCHES:
        if not isinstance(options.get(name, True), bool):
            raise ConfigError(f"storage_options.{name}: true or false is expected")
    try:
        return json.dumps(options, sort_keys=True)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"storage_options must be plain YAML values: {exc}") from exc


def _refuse_unknown(options: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown option {name!r}: {hint}")


def _refuse_secrets(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _SECRET_NAME.fullmatch(re.sub(r"[^a-z]", "", str(name).lower())):
                raise ConfigError(
                    f"{where}.{name}: secrets belong to the environment (AWS_ACCESS_KEY_ID, "
                    "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or a profile), not to the config"
                )
            _refuse_secrets(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_secrets(inner, where)
    elif isinstance(value, str) and _PRIVATE_URL.search(value):
        raise ConfigError(f"{where}: a URL must not hold a user, a password or a query")
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        raise ConfigError(f"{where}: this looks like a secret, which the environment should hold")
