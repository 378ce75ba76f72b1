"""How `datasets` is to read the columns of a bundle, and which rows show it most.

`datasets` takes the types of all rows of a split from the first 10 MB of its first file, and fails
on a later row with another key. A dataset card that names the columns settles it for whoever loads
the folder; for whoever loads the files, the rows that show every key come first.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pipelines.targets.base import Row

_MOST = 100  # keys that are data, such as ids, would bring every row to the front
_CHAT = ("messages", "json list"), ("tools", "json list")

_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "records": (("input", "json"), ("output", "json"), ("tags", "json")),
    "openai": (*_CHAT, ("parallel_tool_calls", "bool")),
    "openpipe": (
        *_CHAT,
        ("tool_choice", "json"),
        ("response_format", "json"),
        ("metadata", "json"),
        ("split", "string"),
    ),
    "together": _CHAT,
    "fireworks": _CHAT,
    "mistral": _CHAT,
    "trl": (("messages", "json list"), ("tools", "string")),
    "trl-completion": (
        ("prompt", "json list"),
        ("completion", "json list"),
        ("tools", "string"),
    ),
    "axolotl": _CHAT,
    "llamafactory": (("messages", "json list"), ("tools", "string")),
    "preference": (
        ("input", "json"),
        ("preferred_output", "json list"),
        ("non_preferred_output", "json list"),
    ),
}
_PAIRS_OF_TRL = (
    ("prompt", "json list"),
    ("chosen", "json list"),
    ("rejected", "json list"),
    ("tools", "string"),
)


def _feature(name: str, kind: str) -> dict[str, str]:
    return {"name": name, "list": "json"} if kind == "json list" else {"name": name, "dtype": kind}


# What stands under `dataset_info: features:` in a dataset card, by target.
FEATURES: Mapping[str, list[dict[str, str]]] = MappingProxyType(
    {target: [_feature(*column) for column in columns] for target, columns in _COLUMNS.items()}
)
# The same for pairs of `--pair-style trl`, which are no rows of `preference` as services have them.
TRL_PAIR_FEATURES: list[dict[str, str]] = [_feature(*column) for column in _PAIRS_OF_TRL]


def shape(row: Row) -> frozenset[str]:
    """Return every key of a row with the type of its value; null is no type."""
    found = set()
    ahead: list[tuple[str, Any]] = [("", row)]
    while ahead:
        path, value = ahead.pop()
        if value is None:
            continue
        found.add(f"{path}:{type(value).__name__}")
        if isinstance(value, dict):
            ahead += [(f"{path}.{key}", member) for key, member in value.items()]
        elif isinstance(value, list):
            ahead += [(f"{path}[]", member) for member in value]
    return frozenset(found)


def leading(shapes: Iterable[frozenset[str]]) -> list[int]:
    """Return the places of rows that show a key or type that none before them showed."""
    seen: set[str] = set()
    places = []
    for place, found in enumerate(shapes):
        if not found <= seen:
            seen |= found
            places.append(place)
            if len(places) == _MOST:
                break
    return places
