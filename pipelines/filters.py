"""Declared filters: validated as the config is loaded, compiled to bound DuckDB predicates."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from pipelines.errors import ConfigError

Comparator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "between", "contains", "not_contains", "starts_with",
    "in", "not_in", "exists", "not_exists", "last", "before", "after",
]  # fmt: skip
Scalar = Annotated[
    StrictStr
    | StrictBool
    | StrictInt
    | StrictFloat
    | Annotated[Decimal, Strict()]
    | Annotated[datetime, Strict()]
    | Annotated[date, Strict()],
    Field(union_mode="left_to_right"),  # or pydantic reads the text "2024-01-01" in JSON as a date
]

_Kind = Literal["text", "flag", "number", "time"]
_FIELDS: dict[str, _Kind] = {
    "request": "text",
    "response": "text",
    "model": "text",
    "completion_id": "text",
    "error_message": "text",
    "cache_hit": "flag",
    "status_code": "number",
    "duration_ms": "number",
    "cost": "number",
    "sent_at": "time",
    "requested_at": "time",
}
_TAG = "tags."
_COMPARATORS: dict[_Kind, tuple[Comparator, ...]] = {
    "text": (
        "=", "!=", "contains", "not_contains", "in", "not_in", "starts_with", "exists",
        "not_exists",
    ),
    "flag": ("=", "!=", "exists", "not_exists"),
    "number": ("=", "!=", "<", "<=", ">", ">=", "between"),
    "time": ("last", "before", "after", "between"),
}  # fmt: skip
# A condition over the column and its parameters; one that is NULL does not hold.
_CONDITIONS: dict[Comparator, str] = {
    "=": "{column} = {value}",
    "!=": "{column} is distinct from {value}",
    "<": "{column} < {value}",
    "<=": "{column} <= {value}",
    ">": "{column} > {value}",
    ">=": "{column} >= {value}",
    "between": "{column} between {low} and {high}",
    "contains": "contains({column}, {value})",
    "not_contains": "({column} is null or not contains({column}, {value}))",
    "starts_with": "starts_with({column}, {value})",
    "in": "{column} in ({values})",
    "not_in": "({column} is null or {column} not in ({values}))",
    "exists": "{column} is not null",
    "not_exists": "{column} is null",
    "last": "{column} >= {value}",
    "before": "{column} < {value}",
    "after": "{column} >= {value}",
}
_TIME_BETWEEN = "({column} >= {low} and {column} < {high})"
_LAST = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_MAX_INT = 2**63 - 1
_SAMPLE_SLICES = 1_000_000
_SHOWN_CHARS = 60


class EventFilter(BaseModel):
    """One condition on an event; the filters of a config must all hold.

    Attributes:
        field: `request`, `response`, `model`, `completion_id`, `error_message`, `tags.<name>`
            (all text, as recorded), `cache_hit`, `status_code`, `duration_ms`, `cost`, `sent_at`
            (also as `requested_at`).
        comparator: one that the field's kind has; numeric `between` includes both ends, a time's
            only the first, `before` excludes and `after` includes its moment.
        value: a list for `in`, `not_in` and `between`, absent for `exists` and `not_exists`,
            "15m", "24h" or "7d" for `last`. A time or date without zone is UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    comparator: Comparator
    value: Scalar | tuple[Scalar, ...] | None = None

    @field_validator("field")
    @classmethod
    def _check_field(cls, field: str) -> str:
        if field == "tags":
            raise ValueError("a tag is named, as in tags.prompt_id")
        if field not in _FIELDS and not field.startswith(_TAG):
            tags = (f"{_TAG}{field}", f"{_TAG}{field.partition('.')[2]}")
            nearest = _nearest(field, (*_FIELDS, *tags))
            known = f"{', '.join(_FIELDS)}, tags.<name>"
            raise ValueError(f"unknown field {_show(field)}{nearest or f'; known are {known}'}")
        return field

    @field_validator("comparator", mode="before")
    @classmethod
    def _check_comparator(cls, comparator: object) -> object:
        known = get_args(Comparator)
        if comparator not in known:
            nearest = _nearest(str(comparator).lower(), known) or f"; known are {' '.join(known)}"
            raise ValueError(f"unknown comparator {_show(comparator)}{nearest}")
        return comparator

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        kind = _kind(self.field)
        if self.comparator not in _COMPARATORS[kind]:
            usable = " ".join(_COMPARATORS[kind])
            raise ValueError(f"{self.field} has no comparator {self.comparator!r}; it has {usable}")
        _operands(self)
        return self


@dataclass(frozen=True, slots=True)
class Predicate:
    """One compiled condition.

    Attributes:
        sql: a WHERE condition over the event's fields, simple enough that DuckDB prunes row groups
            by it. NULL counts as false, so whoever asks which events fail it asks
            `(sql) is not true`, never `not (sql)`.
        params: the value of each `$name` in `sql`; names differ between the filters of a config.
        reason: field and comparator without any value, such as "model =": counted in the ledger.
        fields: the columns that `sql` reads.
    """

    sql: str
    params: dict[str, object]
    reason: str
    fields: frozenset[str]


def compile_filters(
    filters: Sequence[EventFilter], *, now: datetime | None
) -> tuple[Predicate, ...]:
    """Return a predicate for each filter, in order.

    Text reads VARCHAR columns named like the fields, a tag the VARCHAR `tags` (a flat JSON object
    or NULL), times the TIMESTAMP `requested_at` in UTC. A tag that is JSON null is NULL.

    Args:
        filters: all must hold.
        now: what `last` counts back from; without a zone it is UTC.

    Raises:
        ConfigError: a `last` filter without `now`, or one that reaches before the year 1.
    """
    return tuple(_compile(index, item, now) for index, item in enumerate(filters))


def compile_sample(fraction: float, seed: int, id_sql: str = "id") -> Predicate:
    """Return the predicate that keeps about `fraction` of the events, by a hash of their ids.

    The same fraction and seed keep the same events on every machine and DuckDB version, a larger
    fraction keeps all that a smaller one does, and an event without id is not kept. In Python:

        digest = hashlib.md5(f"{seed}:{id}".encode()).digest()
        kept = int.from_bytes(digest[8:], "little") % 1_000_000 < round(fraction * 1_000_000)

    Args:
        fraction: above 0 to 1, in steps of a millionth.
        seed: another seed keeps other events.
        id_sql: a column or checked expression; a number or UUID is hashed as DuckDB prints it.

    Raises:
        ConfigError: the fraction is out of range.
    """
    if not 0 < fraction <= 1 or not (limit := round(fraction * _SAMPLE_SLICES)):
        raise ConfigError(f"sample.fraction: {fraction} is not from 0.000001 to 1")
    return Predicate(
        sql=f"({id_sql}) is not null and md5_number_lower(concat($sample_salt, {id_sql}))"
        f" % {_SAMPLE_SLICES} < $sample_limit",
        params={"sample_salt": f"{seed}:", "sample_limit": limit},
        reason="sample",
        fields=frozenset({"id"}),
    )


def tag_pointer(field: str) -> str:
    """Return the JSON pointer to the tag of a field `tags.<name>`.

    A pointer takes every name literally; a path such as $.a reads dots and wildcards.
    """
    return "/" + field.removeprefix(_TAG).replace("~", "~0").replace("/", "~1")


def _compile(index: int, item: EventFilter, now: datetime | None) -> Predicate:
    prefix = f"f{index}_"
    params: dict[str, object] = {}
    column = field = "requested_at" if _kind(item.field) == "time" else item.field
    if item.field.startswith(_TAG):
        params[f"{prefix}tag"] = tag_pointer(item.field)
        column, field = f"json_extract_string(tags, ${prefix}tag)", "tags"
    operands = _operands(item)
    if item.comparator == "last":
        operands = [_count_back(item, now)]
    names = [f"{prefix}value"]
    if item.comparator in {"between", "in", "not_in"}:
        names = [f"{prefix}value_{position}" for position in range(len(operands))]
    params.update(zip(names, operands, strict=False))
    marks = [f"${name}" for name in names]
    is_span = item.comparator == "between" and _kind(item.field) == "time"
    condition = _TIME_BETWEEN if is_span else _CONDITIONS[item.comparator]
    sql = condition.format(
        column=column, value=marks[0], low=marks[0], high=marks[-1], values=", ".join(marks)
    )
    return Predicate(sql, params, f"{item.field} {item.comparator}", frozenset({field}))


def _count_back(item: EventFilter, now: datetime | None) -> datetime:
    if now is None:
        raise ConfigError(
            f"filter {item.field} last {item.value}: there is no moment to count from"
        )
    try:
        return _utc(now) - _duration(item.value)
    except OverflowError as exc:
        raise ConfigError(f"filter {item.field} last {item.value}: reaches too far back") from exc


def _kind(field: str) -> _Kind:
    return _FIELDS.get(field, "text")


def _operands(item: EventFilter) -> list[object]:
    """The values as DuckDB shall see them; a ValueError says which value does not fit."""
    value, comparator, kind = item.value, item.comparator, _kind(item.field)
    if comparator in {"exists", "not_exists"}:
        if value is not None:
            raise ValueError(f"{comparator} takes no value, found {_show(value)}")
        return []
    if comparator in {"in", "not_in", "between"}:
        if not isinstance(value, tuple) or not value:
            raise ValueError(f"{comparator} takes a list of values, found {_show(value)}")
        operands = [_operand(item.field, kind, one) for one in value]
        if comparator == "between":
            _check_span(kind, operands)
        return operands
    if value is None or isinstance(value, tuple):
        raise ValueError(f"{comparator} takes one value, found {_show(value)}")
    return [_duration(value) if comparator == "last" else _operand(item.field, kind, value)]


def _operand(field: str, kind: _Kind, value: Scalar) -> object:
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "flag" and isinstance(value, bool):
        return value
    if kind == "number" and isinstance(value, int | float | Decimal):
        return _number(field, value)
    if kind == "time" and isinstance(value, str | date):
        return _instant(value)
    wanted = {"text": "text, in quotes", "flag": "true or false", "number": "a number"}
    raise ValueError(
        f"{field} is compared with {wanted.get(kind, 'a time or date')}, found {_show(value)}"
    )


def _number(field: str, value: float | Decimal) -> int | float:
    """Never a DECIMAL: casting a column to the type of one such as 0.000000001 can overflow."""
    number = float(value) if isinstance(value, Decimal) else value
    if isinstance(value, bool) or not -_MAX_INT <= number <= _MAX_INT:  # NaN fails this too
        raise ValueError(f"{field} is compared with a finite number, found {_show(value)}")
    return int(value) if value == int(number) else number


def _instant(value: str | date) -> datetime:
    """A moment as UTC without zone, like the column it meets."""
    try:
        if isinstance(value, str):
            return _utc(datetime.fromisoformat(value))
        if isinstance(value, datetime):
            return _utc(value)
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{_show(value)} is not an ISO 8601 time or date") from exc
    return datetime.combine(value, time())


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _duration(value: object) -> timedelta:
    match = _LAST.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"last takes a duration such as 15m, 24h or 7d, found {_show(value)}")
    return int(match[1]) * _UNITS[match[2]]


def _check_span(kind: _Kind, operands: list[object]) -> None:
    match operands:
        case [int() | float() as low, int() | float() as high] if low <= high:
            return
        case [datetime() as start, datetime() as end] if start < end:
            return
    order = "the first before the second" if kind == "time" else "the smaller one first"
    raise ValueError(f"between takes two values, {order}")


def _nearest(name: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _show(value: object) -> str:
    shown = repr(value) if isinstance(value, str | tuple | None) else str(value)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"
