"""What one run changes in a config: the destination, more conditions, strict commits."""

from pathlib import Path
from typing import Any

from pipelines.config import ExportConfig, meaning_digest, resolve_url
from pipelines.errors import ConfigError
from pipelines.expressions import parse_expression
from pipelines.filters import EventFilter
from pipelines.storage import open_store
from pipelines.values import check_address


def with_overrides(
    config: ExportConfig,
    *,
    to: str | None,
    where: str | None,
    base: Path,
    filters: tuple[EventFilter, ...] = (),
    strict_commit: bool = False,
    looks_only: bool = False,
) -> ExportConfig:
    """Return the config for one run: another destination, more conditions, strict commits.

    With more conditions it is an export of its own, a slice, and its name says so.

    Args:
        config: what the file says.
        to: another destination.
        where: one more condition.
        base: where a relative `to` starts.
        filters: more filters.
        strict_commit: refuse a store that writes over objects.
        looks_only: the run writes nothing, so a slice needs no destination.

    Raises:
        ConfigError: `where` is not one pure boolean expression, or a slice has no destination of
            its own and would replace the full export.
    """
    there: dict[str, Any] = {"strict_commit": True} if strict_commit else {}
    if to is not None:
        there["url"] = resolve_url(to, base)
    changes: dict[str, Any] = {"destination": config.destination.model_copy(update=there)}
    if where is not None or filters:
        own, other = config.destination.url, there.get("url", "")
        if not other and not looks_only:
            what = "where" if where is not None else "filters"
            raise ConfigError(
                f"{what} needs another destination (--to): a slice never replaces the full export"
            )
        if other and open_store(other).url == open_store(own).url:
            raise ConfigError(f"--to {own}: is the config's own destination; a slice needs another")
        if other:
            # A destination belongs to one export: a slice's takes no other slice, nor the whole.
            asked = {"where": where, "filters": [item.model_dump(mode="json") for item in filters]}
            changes["name"] = f"{config.name}-slice-{meaning_digest(asked)[:8]}"
        changes["filters"] = (*config.filters, *filters)
    if where is not None:
        # Each alone, or `true) or (true` would be an expression only between the parentheses.
        parse_expression(where, place="where", boolean=True)
        both = f"({config.where}) and ({where})" if config.where is not None else where
        changes["where"] = both
    return config.model_copy(update=changes)


def with_executor(
    config: ExportConfig,
    *,
    executor: str | None = None,
    workers: int | None = None,
    address: str | None = None,
) -> ExportConfig:
    """Return the config with another place for its shards to run; None leaves what it says.

    Raises:
        ConfigError: an address without Dask, or workers without processes.
    """
    if address is not None:
        executor = executor or "dask"
        try:
            check_address(address)
        except ValueError as exc:
            raise ConfigError(f"--address: {exc}") from exc
    if address is not None and executor != "dask":
        raise ConfigError(f"--address is that of a Dask scheduler; --executor {executor} has none")
    if workers is not None and (executor or config.executor) != "processes":
        raise ConfigError("--workers are local processes; they need --executor processes")
    asked = {"executor": executor, "workers": workers, "address": address}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if executor not in {None, "dask"}:
        changes["address"] = None
    if executor not in {None, "processes"}:
        changes["workers"] = None
    return config.model_copy(update=changes)
