"""Whose destination is it: the owner record, create-only; and that it lies beside the source."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.config import ExportConfig
from pipelines.errors import ConfigError, QualityError, StorageError
from pipelines.inputs import grid_of
from pipelines.layout import OWNER_PATH
from pipelines.sources.listing import open_source
from pipelines.storage import Store, open_store
from pipelines.windows import format_duration

_ENDS = (".parquet", ".jsonl.gz", ".jsonl.zst", ".jsonl")


def open_destination(config: ExportConfig) -> Store:
    """Return the store that an export writes to."""
    return open_store(config.destination.url, config.destination.storage_options)


def claim_destination(config: ExportConfig) -> None:
    """Write the destination's owner record, or check that it is this export's.

    Raises:
        ConfigError: the destination belongs to another export, source or grid.
    """
    store = open_destination(config)
    if store.stat(OWNER_PATH) is None:
        _check_outside_of_others(config)
    data = json.dumps(_owner(config), ensure_ascii=False, indent=1).encode() + b"\n"
    if not store.create(OWNER_PATH, data):
        check_owner(config)


def check_owner(config: ExportConfig) -> bool:
    """Return whether the destination has an owner record, which then is this export's.

    Raises:
        ConfigError: the destination belongs to another export, source or grid.
        QualityError: the record is damaged.
    """
    store = open_destination(config)
    if store.stat(OWNER_PATH) is None:
        return False
    try:
        found = dict(json.loads(store.read_bytes(OWNER_PATH)))
    except ValueError as exc:
        where = store.absolute_url(OWNER_PATH)
        raise QualityError(f"{where}: not an owner record; take a new destination") from exc
    for key, value in _owner(config).items():
        if found.get(key) != value:
            slices = "-slice-" in f"{found.get(key)}{value}"
            hint = ", or give the --where that the slice was made with" if slices else ""
            raise ConfigError(
                f"destination.url: {store.url} belongs to another {key}: {_shown(found.get(key))}, "
                f"where this config has {_shown(value)}; take a new destination{hint}"
            )
    return True


def _check_outside_of_others(config: ExportConfig) -> None:
    """Refuse a destination within that of another export, as far as may be looked at."""
    url = open_destination(config).url
    above = export_above(url.rpartition("/")[0], config.destination.storage_options)
    if above is not None:
        raise ConfigError(f"destination.url: {url} lies within {above}, which is an export's")


def export_above(url: str, storage_options: Mapping[str, Any] | None) -> str | None:
    """Return the export's destination that is a place or holds it, as far as may be looked at."""
    while not url.endswith(("/", ":")):
        try:
            owned = open_store(url, storage_options).stat(OWNER_PATH)
        except StorageError:
            return None
        if owned is not None:
            return url
        url, _, _ = url.rpartition("/")
    return None


def check_places(config: ExportConfig) -> None:
    """Refuse a destination inside its source, or a source inside its destination.

    Raises:
        ConfigError: they overlap.
    """
    files = open_source(config.source)
    source = files.store.url.rstrip("/") + "/"
    destination = open_destination(config).url.rstrip("/") + "/"
    inside = destination.startswith(source)
    if inside and files.is_narrow:  # a pattern, or one object: what it leaves out is free
        folder = destination.removeprefix(source)
        names = (f"{folder}{below}x{end}" for below in ("", "data/", "data/a=b/") for end in _ENDS)
        inside = not folder or any(files.pattern.fullmatch(name) for name in names)
    if inside or source.startswith(destination):
        raise ConfigError(
            f"destination.url: {destination[:-1]} and the source {source[:-1]} overlap; "
            f"an export must not read what it writes"
        )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"windows every {value.get('every')} from {value.get('origin')}"
    return "no window" if value is None else repr(value)


def _owner(config: ExportConfig) -> dict[str, Any]:
    grid, url = grid_of(config), config.source.url
    return {
        "export": config.name,
        "source": url if "://" in url else f"file://{url}",
        "grid": None
        if grid is None
        else {"every": format_duration(grid.every), "origin": grid.origin.isoformat()},
    }
