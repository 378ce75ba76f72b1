"""What a config means for the records of a window, as one digest; its wording does not count."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pipelines.codecs import DEFAULT_LEVELS
from pipelines.config import ExportConfig, meaning_digest
from pipelines.filters import EventFilter, Predicate, compile_filters
from pipelines.sources.mapping import EventMapping
from pipelines.windows import UNDATED, TimeWindow, Window, microseconds

_MEANT = {
    *("where", "exclude_errors", "sample", "remove_duplicates", "order_by", "partition_by"),
    *("extra_fields", "compression", "target_part_bytes"),
}


def window_meanings(
    config: ExportConfig, mapping: EventMapping, *, now: datetime
) -> Callable[[Window], str]:
    """Return a function from a window to the sha256 of all in a config that changes its records.

    Windows differ only where a filter says `last`: one that such a filter keeps or drops as a
    whole means the same at every moment.
    """
    meaning: dict[str, Any] = config.model_dump(mode="json", include=_MEANT)
    level = config.compression_level
    meaning["compression_level"] = DEFAULT_LEVELS[config.compression] if level is None else level
    meaning["mapping"] = mapping.meaning()
    meaning["valid_times"] = [microseconds(instant) for instant in config.source.valid_times]
    filters = list(zip(config.filters, compile_filters(config.filters, now=now), strict=True))
    digests: dict[str, str] = {}
    undated = meaning_digest({name: meaning[name] for name in ("mapping", "valid_times")})

    def digest(window: Window) -> str:
        if window == UNDATED:  # all of it is rejects, which nothing else touches
            return undated
        found = [_filter_meaning(*pair, window) for pair in filters]
        key = repr(found)
        if key not in digests:
            digests[key] = meaning_digest({**meaning, "filters": found})
        return digests[key]

    return digest


def _filter_meaning(item: EventFilter, predicate: Predicate, window: Window) -> list[object]:
    params = {name: str(value) for name, value in predicate.params.items()}
    if item.comparator == "last" and isinstance(window, TimeWindow):
        ((name, cut),) = predicate.params.items()
        if isinstance(cut, datetime):
            cut = cut.replace(tzinfo=UTC)
            if not window.start < cut < window.end:
                params[name] = "all" if cut <= window.start else "none"
    return [predicate.sql, params]
