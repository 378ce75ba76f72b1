"""From a batch's columns to the fields of an event: presets, detection, SQL of each field."""

import difflib
import functools
import importlib.resources
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import yaml

from pipelines.config import FieldMapping, PayloadKind, Source
from pipelines.engine import quote
from pipelines.errors import ConfigError, ContractError
from pipelines.expressions import parse_expression
from pipelines.sources.columns import (
    BINARY,
    BOOLEAN,
    FLOAT,
    INTEGER,
    LIST,
    MAP,
    OTHER,
    PAIR_LIST,
    STRUCT,
    TEXT,
    TEXT_LIST,
    TEXT_MAP,
    TIME,
    ZONED_TIME,
    Columns,
    bytes_column,
    check_names,
)

_NESTED = (STRUCT, MAP, TEXT_MAP, LIST, TEXT_LIST, PAIR_LIST)
_INTEGERS = ("status_code", "duration_ms", "input_tokens", "output_tokens")
_TIMES = ("requested_at", "received_at", "updated_at")
_BOOLEANS = ("cache_hit", "is_error")
PAYLOADS = ("request", "response")
_FIELDS = (*_TIMES, "id", "model", *_INTEGERS, *_BOOLEANS, "error_message", "completion_id",
           "finish_reason", "cost", "project_id", "tags", *PAYLOADS)  # fmt: skip
RECORDED = ("request", "response", "tags", "requested_at")  # what a reject keeps in raw form


@dataclass(frozen=True, slots=True)
class Preset:
    """A named, versioned mapping for one producer of logs."""

    name: str
    version: int
    fields: Mapping[str, FieldMapping]


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
            presets.append(Preset(document["name"], document["version"], fields))
    return tuple(presets)


@dataclass(frozen=True, slots=True)
class EventMapping:
    """The mapping that holds for an export, whatever batch it reads.

    Attributes:
        origin: `preset@version`, or `mapping` for one written in the config.
        fields: fields of an event that are mapped.
    """

    origin: str
    fields: Mapping[str, FieldMapping]

    def meaning(self) -> dict[str, object]:
        """Plain data for digests: what changes here changes records."""
        fields = {name: field.model_dump() for name, field in sorted(self.fields.items())}
        return {"origin": self.origin, "fields": fields}

    def reads(self, field: str, columns: Collection[str]) -> frozenset[str]:
        """Columns that one field is computed from."""
        mapping = self.fields.get(field)
        if mapping is None:
            return frozenset()
        if mapping.column is not None:
            return frozenset({mapping.column})
        place = f"source.mapping.{field}"
        return parse_expression(mapping.expression or "", place=place, columns=columns).columns


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
    return EventMapping(f"{preset.name}@{preset.version}", _with_kinds(fields, preset.fields))


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


@dataclass(frozen=True, slots=True)
class EventSql:
    """SQL of an event's fields over one schema of batches.

    Attributes:
        fields: SQL per event field, typed and named as `filters.py` expects; unmapped fields
            are typed NULLs.
        recorded: SQL of what was recorded for a payload, tags or requested_at; it is to stand
            as `recorded_<field>` beside the fields.
        raw: SQL per recorded field giving it as a JSON value, for a reject; reads
            `recorded_<field>`.
        payloads: SQL per payload field giving the JSON text to splice, null for a reject; reads
            the field and `recorded_<field>`.
        time_column: requested_at's column when it is a plain timestamp, else None.
        zoned: whether that column has a zone.
        columns: every column that is read.
    """

    fields: Mapping[str, str]
    recorded: Mapping[str, str]
    raw: Mapping[str, str]
    payloads: Mapping[str, str]
    time_column: str | None
    zoned: bool
    columns: frozenset[str]


def event_sql(mapping: EventMapping, columns: Columns, *, batch: str) -> EventSql:
    """Return the SQL that turns rows of a batch with these columns into events.

    Raises:
        ContractError: a needed column is absent, or of a type its field cannot take.
        ConfigError: an expression is wrong.
    """
    fields: dict[str, str] = {}
    recorded: dict[str, str] = {}
    raw: dict[str, str] = {}
    payloads: dict[str, str] = {}
    used: set[str] = set()
    time_column, zoned = None, False
    for name in _FIELDS:
        field = mapping.fields.get(name)
        sql, family = "null", None
        if field is not None:
            sql, family, read = _origin(name, field, columns, batch)
            used |= read
        if name in PAYLOADS:
            kind: PayloadKind = (field.kind if field else None) or "json"
            fields[name] = _text(sql, family, kind)
            payloads[name] = _payload(name, kind, family)
        elif name == "tags":
            fields[name] = _tags(sql, family)
        else:
            fields[name] = _typed(name, sql, family, batch)
        if name in RECORDED:
            recorded[name] = sql
            raw[name] = _raw(f"recorded_{name}", family)
        if name == "requested_at" and field and field.column and family in (TIME, ZONED_TIME):
            time_column, zoned = field.column, family == ZONED_TIME
    check_names(used, columns, batch)
    whole = EventSql(fields, recorded, raw, payloads, time_column, zoned, frozenset(used))
    return _without_bad_text(whole, mapping, columns)


def _origin(
    name: str, field: FieldMapping, columns: Columns, batch: str
) -> tuple[str, str | None, frozenset[str]]:
    """SQL of a field's raw value, its column's family, and the columns read."""
    if field.column is not None:
        family = columns.family(field.column)
        if family is None:
            if field.optional:
                return "null", None, frozenset()
            raise _absent(name, field.column, columns, batch)
        return quote(field.column), family, frozenset({field.column})
    place = f"source.mapping.{name}"
    expression = parse_expression(field.expression or "", place=place)
    for column in sorted(expression.columns - set(columns.names)):
        if field.optional:
            return "null", None, frozenset()
        raise _absent(name, column, columns, batch)
    return f"({expression.sql})", OTHER, expression.columns


def _without_bad_text(sql: EventSql, mapping: EventMapping, columns: Columns) -> EventSql:
    """Make rejects of nested values with bad text: NULL here, their bytes in a column beside."""
    fields, payloads = dict(sql.fields), dict(sql.payloads)
    recorded, raw = dict(sql.recorded), dict(sql.raw)
    for name in RECORDED:
        field = mapping.fields.get(name)
        column = field.column if field is not None else None
        if column is None or columns.family(bytes_column(column)) is None:
            continue
        value, held = recorded[name], quote(bytes_column(column))
        recorded[name] = (
            f"case when {value} is not null or {held} is not null "
            f"then {{'value': {value}, 'bytes': {held}}} end"
        )
        if name == "tags":
            fields[name] = f"case when {held} is null then {fields[name]} end"
        value, held = f"recorded_{name}.value", f"recorded_{name}.bytes"
        sound, bad = _raw(value, columns.family(column)), _raw(held, BINARY)
        raw[name] = f"case when {held} is null then {sound} else {bad} end"
        if name in payloads:
            payloads[name] = f"case when {held} is null then {payloads[name]} end"
    return replace(sql, fields=fields, recorded=recorded, raw=raw, payloads=payloads)


def _absent(name: str, column: str, columns: Columns, batch: str) -> ContractError:
    near = difflib.get_close_matches(column, columns.names, n=1, cutoff=0.6)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return ContractError(
        f"{batch}: no column {column!r}, which {name} is mapped to{hint}. "
        f"Mark the field `optional: true` if batches may lack it",
        batch=batch,
        column=column,
    )


def _typed(name: str, sql: str, family: str | None, batch: str) -> str:
    """SQL of a field that is no payload, in the type filters and partitions expect."""
    if name in _TIMES:
        return _time(name, sql, family, batch)
    if name in _INTEGERS:
        return f"cast({sql} as bigint)"
    if name in _BOOLEANS:
        return f"cast({sql} as boolean)"
    if name == "cost":
        return f"cast({sql} as double)"
    if family == BINARY:
        return f"try(decode({sql}))"
    return f"cast({sql} as varchar)"


def _time(name: str, sql: str, family: str | None, batch: str) -> str:
    """SQL of an instant as a naive timestamp in UTC."""
    if family == ZONED_TIME:
        return f"make_timestamp(epoch_us(cast({sql} as timestamptz)))"
    if family in (INTEGER, FLOAT, BOOLEAN, *_NESTED):
        raise ContractError(
            f"{batch}: {name} is mapped to a column of {family}, which is no time; use an "
            f"expression such as epoch_ms(column) or make_timestamp(column)",
            batch=batch,
        )
    if family in (TEXT, BINARY):
        # Text with an offset is an instant, text without is UTC: the engine's zone.
        text = sql if family == TEXT else f"try(decode({sql}))"
        return f"make_timestamp(epoch_us(try_cast({text} as timestamptz)))"
    return f"cast({sql} as timestamp)"


def _text(sql: str, family: str | None, kind: PayloadKind) -> str:
    """SQL of a payload as recorded text; null too where bytes are not UTF-8."""
    if family == BINARY:
        return f"try(decode({sql}))"
    return f"cast(to_json({sql}) as varchar)" if kind == "struct" else f"cast({sql} as varchar)"


def _raw(column: str, family: str | None) -> str:
    """SQL of a recorded value as JSON: text as a string, other types as DuckDB writes them."""
    if family == BINARY:
        return (
            f"coalesce(to_json(try(decode({column}))), "
            f"case when {column} is not null then to_json({{'base64': base64({column})}}) end)"
        )
    text = f"cast({column} as varchar)"
    if family not in _NESTED:
        return f"to_json({text})"
    # NaN in a nested value would leave a line that is no JSON: its text then stands as a string.
    json = f"to_json({column})"
    text = f"cast({json} as varchar)"
    return f"case when strict_json({text}) then {json} else to_json({text}) end"


def _payload(name: str, kind: PayloadKind, family: str | None) -> str:
    """SQL of the JSON text to splice; it reads the field that `_text` gave."""
    spliced = {
        "json": f"json_payload({name})",
        "struct": f"json_payload({name})",
        "json_or_text": f"json_or_text_payload({name})",
        "text": f"coalesce(cast(to_json({name}) as varchar), 'null')",
    }[kind]
    if family == BINARY:  # no text: nothing was recorded, or bytes that are not UTF-8
        return f"case when {name} is not null or recorded_{name} is null then {spliced} end"
    return spliced


def _tags(sql: str, family: str | None) -> str:
    """SQL of tags as a flat JSON object's text, null where they are none."""
    if family is None:
        return "'{}'"
    if family == BINARY:
        text = f"try(decode({sql}))"  # null too where bytes are not UTF-8
        return (
            f"case when {sql} is null then '{{}}' "
            f"when {text} is not null then tags_from_text({text}) end"
        )
    known = {
        TEXT_MAP: f"coalesce(cast(to_json({sql}) as varchar), '{{}}')",
        MAP: f"tags_from_text(cast(to_json({sql}) as varchar))",
        STRUCT: f"tags_from_text(cast(to_json({sql}) as varchar))",
        TEXT_LIST: f"tags_from_list(cast({sql} as varchar[]))",
        PAIR_LIST: f"tags_from_pairs({sql})",
        LIST: f"case when {sql} is null then '{{}}' end",  # of what is no tag: a reject
    }
    return known.get(family, f"tags_from_text(cast({sql} as varchar))")


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
