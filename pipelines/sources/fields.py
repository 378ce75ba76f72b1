"""The SQL of an event's fields over one schema of batches."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipelines.config import FieldMapping, PayloadKind
from pipelines.engine import guarded, quote
from pipelines.errors import ContractError
from pipelines.expressions import parse_expression
from pipelines.sources.columns import (
    BINARY,
    BOOLEAN,
    FLOAT,
    INTEGER,
    LIST,
    MAP,
    NESTED,
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
from pipelines.sources.mapping import EventMapping, parse_mapped

PAYLOADS = ("request", "response")
NUMBERS = ("duration_ms", "input_tokens", "output_tokens", "cost")
_EXACT_DOUBLES, _EXACT_FLOATS = 2**53, 2**24  # below these every whole number is itself
_IDS = ("id", "completion_id", "project_id")
_TIMES = ("requested_at", "received_at", "updated_at")
_BOOLEANS = ("cache_hit", "is_error")
_FIELDS = (*_TIMES, *_IDS, "model", "status_code", *NUMBERS, *_BOOLEANS, "error_message",
           "finish_reason", "tags", *PAYLOADS)  # fmt: skip
_RECORDED = (*PAYLOADS, "tags", "requested_at")  # what a reject keeps in raw form


@dataclass(frozen=True, slots=True)
class EventSql:
    """SQL of an event's fields over one schema of batches.

    Attributes:
        fields: SQL per event field, typed and named as `filters.py` expects; unmapped fields
            are typed NULLs.
        derived: SQL of further fields, which reads the fields.
        recorded: SQL of what was recorded for a payload, tags or requested_at; it is to stand
            as `recorded_<field>` beside the fields. Of an expression it is the columns read.
        raw: SQL per recorded field giving it as a JSON value, for a reject; reads
            `recorded_<field>`.
        payloads: SQL per payload field giving the JSON text to splice, null for a reject; reads
            the field and `recorded_<field>`.
        time_column: requested_at's column when it is a plain timestamp, else None.
        zoned: whether that column has a zone.
        columns: every column that is read.
    """

    fields: Mapping[str, str]
    derived: Mapping[str, str]
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
        if name in mapping.derived:
            continue
        mapped = mapping.fields.get(name)
        origin = _Origin() if mapped is None else _origin(name, mapped, columns, batch)
        sql, family = origin.sql, origin.family
        used |= origin.columns
        if name in PAYLOADS:
            kind: PayloadKind = (mapped.kind if mapped else None) or "json"
            if family in NESTED and kind in ("json", "json_or_text"):
                kind = "struct"
            fields[name] = _text(sql, family, kind)
            payloads[name] = _payload(name, kind, may_fail=family == BINARY or origin.computed)
        elif name == "tags":
            tags = _tags(sql, family)
            if origin.computed:  # a failure is no absence of tags
                tags = f"case when {sql} is not null or {origin.recorded} is null then {tags} end"
            fields[name] = tags
        else:
            fields[name] = _typed(name, sql, family, batch)
        if name in _RECORDED:
            recorded[name] = origin.recorded
            raw[name] = _raw(f"recorded_{name}", origin.recorded_family)
        if name == "requested_at" and mapped and mapped.column and family in (TIME, ZONED_TIME):
            time_column, zoned = mapped.column, family == ZONED_TIME
    derived = {
        name: parse_expression(text, place=f"{mapping.origin} {name}", columns=_FIELDS).sql
        for name, text in mapping.derived.items()
    }
    check_names(used, columns, batch)
    whole = EventSql(fields, derived, recorded, raw, payloads, time_column, zoned, frozenset(used))
    return _without_bad_text(whole, mapping, columns)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a field comes from.

    Attributes:
        sql: its value; of an expression also NULL where that fails.
        family: of its column, OTHER for an expression, None where there is none.
        columns: what is read.
        recorded: what a reject shows: the column, or those that an expression reads; NULL where
            nothing was recorded, or the expression gives NULL without failing.
        recorded_family: of what was recorded.
        computed: whether it is an expression's.
    """

    sql: str = "null"
    family: str | None = None
    columns: frozenset[str] = frozenset()
    recorded: str = "null"
    recorded_family: str | None = None
    computed: bool = False


def _origin(name: str, mapped: FieldMapping, columns: Columns, batch: str) -> _Origin:
    """The origin of a mapped field in batches of these columns."""
    if mapped.column is not None:
        family = columns.family(mapped.column)
        if family is None:
            if mapped.optional:
                return _Origin()
            raise _absent(name, mapped.column, columns, batch)
        sql = quote(mapped.column)
        return _Origin(sql, family, frozenset({mapped.column}), sql, family)
    expression = parse_mapped(name, mapped)
    absent = expression.columns - set(columns.names)
    if absent and not mapped.optional:
        raise _absent(name, min(absent), columns, batch)
    read = sorted(expression.columns - absent)
    if name not in _RECORDED:
        sql = guarded(expression.sql, expression.columns, absent=absent)
        return _Origin(sql, OTHER, frozenset(read), computed=True)
    # In a list, a failure is told from a value that is NULL.
    listed = guarded(f"[{expression.sql}]", expression.columns, absent=absent)
    sql = f"{listed}[1]"
    if not read:
        return _Origin(sql, OTHER, frozenset(), sql, OTHER, computed=True)
    shown, family = quote(read[0]), columns.family(read[0])
    if len(read) > 1:
        shown = "{" + ", ".join(f"{quote(column)}: {quote(column)}" for column in read) + "}"
        family = STRUCT
    recorded = f"case when {listed} is null or {sql} is not null then {shown} end"
    return _Origin(sql, OTHER, frozenset(read), recorded, family, computed=True)


def _without_bad_text(sql: EventSql, mapping: EventMapping, columns: Columns) -> EventSql:
    """Make rejects of nested values with bad text: NULL here, their bytes in a column beside."""
    fields, payloads = dict(sql.fields), dict(sql.payloads)
    recorded, raw = dict(sql.recorded), dict(sql.raw)
    for name in _RECORDED:
        mapped = mapping.fields.get(name)
        column = mapped.column if mapped is not None else None
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
    if name in _BOOLEANS:
        return f"cast({sql} as boolean)" if family == BOOLEAN else f"try_cast({sql} as boolean)"
    text = f"try(decode({sql}))" if family == BINARY else sql
    if name == "status_code":
        return _whole(text, family)
    if name in NUMBERS:
        return _number(text, family)
    if family == BINARY:  # an id keeps telling events apart
        return f"coalesce({text}, lower(hex({sql})))" if name in _IDS else text
    text = f"cast({sql} as varchar)"
    return _float_text(sql, text, is_id=name in _IDS) if family == FLOAT else text


def _float_text(sql: str, text: str, *, is_id: bool) -> str:
    """SQL of a float or decimal as text, the same as that of an integer of its value.

    pandas writes whole numbers as floats where one is missing. An id past what a float holds
    exactly may be that of several events, and tells none apart.
    """
    short = f"case when contains({text}, '.') and not contains({text}, 'e') "
    short += f"then rtrim(rtrim({text}, '0'), '.') else {text} end"
    whole = f"{sql} = trunc({sql}) and abs({sql}) < {_EXACT_DOUBLES}"
    found = f"case when {whole} then cast(cast({sql} as bigint) as varchar) else {short} end"
    if not is_id:
        return found
    most = f"case typeof({sql}) when 'FLOAT' then {_EXACT_FLOATS} else {_EXACT_DOUBLES} end"
    rounded = f"typeof({sql}) in ('FLOAT', 'DOUBLE') and not abs({sql}) < {most}"
    return f"case when {rounded} then null else {found} end"


def _whole(sql: str, family: str | None) -> str:
    """SQL of a BIGINT, null for what is none."""
    if family in (FLOAT, TEXT, BINARY):
        number = f"try_cast({sql} as double)"
        return f"case when {number} = trunc({number}) then try_cast({number} as bigint) end"
    return f"try_cast({sql} as bigint)"


def _number(sql: str, family: str | None) -> str:
    """SQL of a BIGINT, or of a DOUBLE where values may have a fraction; null for what is none."""
    if family in (None, INTEGER, BOOLEAN):
        return f"try_cast({sql} as bigint)"
    return f"nullif(try_cast({sql} as double), 'nan'::double)"


def _time(name: str, sql: str, family: str | None, batch: str) -> str:
    """SQL of an instant as a naive timestamp in UTC, null for what is no time.

    epoch_us of an infinite instant is null.
    """
    if family == ZONED_TIME:
        return f"make_timestamp(epoch_us(cast({sql} as timestamptz)))"
    if family in (INTEGER, FLOAT, BOOLEAN, *NESTED):
        raise ContractError(
            f"{batch}: {name} is mapped to a column of {family}, which is no time; use an "
            f"expression such as epoch_ms(column) or make_timestamp(column)",
            batch=batch,
        )
    if family in (TEXT, BINARY):
        # Text with an offset is an instant, text without is UTC: the engine's zone.
        text = sql if family == TEXT else f"try(decode({sql}))"
        return f"make_timestamp(epoch_us(try_cast({text} as timestamptz)))"
    return f"try_cast({sql} as timestamp)"


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
    if family not in NESTED:
        return f"to_json({text})"
    # NaN in a nested value would leave a line that is no JSON: its text then stands as a string.
    json = f"to_json({column})"
    text = f"cast({json} as varchar)"
    return f"case when strict_json({text}) then {json} else to_json({text}) end"


def _payload(name: str, kind: PayloadKind, *, may_fail: bool) -> str:
    """SQL of the JSON text to splice; it reads the field that `_text` gave."""
    spliced = {
        "json": f"json_payload({name})",
        "struct": f"json_payload({name})",
        "json_or_text": f"json_or_text_payload({name})",
        "text": f"coalesce(cast(to_json({name}) as varchar), 'null')",
    }[kind]
    if may_fail:  # no text: nothing was recorded, or it is not UTF-8, or an expression fails
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
