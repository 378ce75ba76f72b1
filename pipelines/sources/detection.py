"""Which mapping holds for a source: presets, and how one is told by the columns of a batch."""

import difflib
import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from pipelines.config import FieldMapping, Source
from pipelines.errors import ConfigError
from pipelines.sources.columns import Columns
from pipelines.sources.mapping import EventMapping


@dataclass(frozen=True, slots=True)
class Preset:
    """A named, versioned mapping for one producer of logs; `derived` is as in EventMapping."""

    name: str
    version: int
    fields: Mapping[str, FieldMapping]
    derived: Mapping[str, str]


@functools.cache
def list_presets() -> tuple[Preset, ...]:
    """Return the bundled presets by name."""
    folder = importlib.resources.files("pipelines.sources").joinpath("presets")
    presets = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            document = yaml.safe_load(entry.read_text("utf-8"))
            fields = {
                name: FieldMapping.model_validate(value)
                for name, value in document["fields"].items()
            }
            presets.append(
                Preset(document["name"], document["version"], fields, document["derived"])
            )
    return tuple(presets)


def resolve_mapping(source: Source, columns: Columns) -> EventMapping:
    """Return the mapping of a source, detected from the first batch's columns where none is named.

    Raises:
        ConfigError: unknown preset, or columns that fit no preset or several.
    """
    own: dict[str, FieldMapping] = {str(name): field for name, field in source.mapping.items()}
    if source.preset is not None:
        preset = next((p for p in list_presets() if p.name == source.preset), None)
        if preset is None:
            names = [p.name for p in list_presets()]
            near = difflib.get_close_matches(source.preset, names, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"source.preset: unknown preset {source.preset!r}{hint} (known: {', '.join(names)})"
            )
    elif {"request", "response"} <= source.mapping.keys():
        return EventMapping("mapping", _with_kinds(own))
    else:
        preset = detect_preset(columns)
    fields = {**preset.fields, **own}
    return EventMapping(
        f"{preset.name}@{preset.version}",
        _with_kinds(fields, preset.fields),
        {name: expression for name, expression in preset.derived.items() if name not in own},
    )


def detect_preset(columns: Columns) -> Preset:
    """Return the one preset whose needed columns are all there.

    Raises:
        ConfigError: none or several fit; shows the columns and the nearest preset.
    """
    fitting, missing = [], {}
    for preset in list_presets():
        needed = {
            field.column
            for field in preset.fields.values()
            if field.column is not None and not field.optional
        }
        missing[preset.name] = sorted(needed - set(columns.names))
        if not missing[preset.name]:
            fitting.append(preset)
    if len(fitting) == 1:
        return fitting[0]
    seen = ", ".join(columns.names)
    if fitting:
        names = ", ".join(preset.name for preset in fitting)
        raise ConfigError(f"source: several presets fit ({names}); name one. Columns: {seen}")
    nearest = min(missing, key=lambda name: len(missing[name]))
    raise ConfigError(
        f"source: no preset fits; give `preset` or `mapping`. Columns: {seen}. "
        f"Nearest preset: {nearest}, which also needs {', '.join(missing[nearest])}"
    )


def _with_kinds(
    fields: Mapping[str, FieldMapping], preset: Mapping[str, FieldMapping] | None = None
) -> dict[str, FieldMapping]:
    """Payload fields without a kind take the preset's, else `json` and `json_or_text`."""
    done = dict(fields)
    for name, default in (("request", "json"), ("response", "json_or_text")):
        if (field := done.get(name)) is not None and field.kind is None:
            kind = preset[name].kind if preset and name in preset else default
            done[name] = field.model_copy(update={"kind": kind})
    return done
