"""Values as people write them in a config: sizes, counts, instants, durations, addresses."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from pipelines.windows import parse_duration

_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://[^\s/]+:(?P<port>\d{1,5})")
_LAST_PORT = 2**16 - 1
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)


def parse_bytes(value: object) -> int:
    """Return a size in bytes from `134217728`, "128MiB", "128MB" (10^6) or "1G" (10^9)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError('must be a size in bytes such as 134217728, "128MiB" or "1GB"')
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** ("KMGT".index(unit.upper()) + 1 if unit else 0))


def check_address(address: str) -> str:
    """Return the address of a Dask scheduler; the error of a wrong one does not quote it."""
    if "@" in address:
        raise ValueError("holds a user or a password; Dask takes certificates from its own config")
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > _LAST_PORT:
        raise ValueError("is no scheduler's address, such as tcp://host:8786")
    return address


def _count(value: object) -> object:
    if value is None or value == "auto":
        return None
    text = str(value).removesuffix(".0")
    if not text.isdecimal() or not text.strip("0"):
        raise ValueError("must be a whole number of at least 1, or auto")
    return value


def _instant(value: object) -> object:
    """Aware UTC from a YAML date or datetime or ISO text; a time without zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as exc:
            raise ValueError("must be a date or an ISO 8601 time") from exc
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime):
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError as exc:
            raise ValueError("must be an instant in the years 1 to 9999") from exc
    raise ValueError("must be a date or an ISO 8601 time")


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    return parse_duration(str(value))  # a bare number has no unit, and is refused with a hint


def _lag(value: object) -> object:
    return timedelta(0) if value in ("0", "0s", "0m", 0) else _duration(value)


def _duration_text(value: timedelta) -> str:
    return f"{int(value.total_seconds())}s"


# Schemas are for editors, so they describe what a file may say, not what becomes of it.
_TEXT = WithJsonSchema({"type": "string"}, mode="validation")
_TEXT_OR_ZERO = WithJsonSchema({"anyOf": [{"type": "string"}, {"const": 0}]}, mode="validation")
_TEXT_OR_NUMBER = WithJsonSchema({"type": ["string", "integer"]}, mode="validation")
Instant = Annotated[datetime, BeforeValidator(_instant), _TEXT]
Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_duration_text), _TEXT]
Lag = Annotated[timedelta, BeforeValidator(_lag), PlainSerializer(_duration_text), _TEXT_OR_ZERO]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0), _TEXT_OR_NUMBER]
Count = Annotated[Annotated[int, Field(ge=1, le=512)] | None, BeforeValidator(_count)]
Address = Annotated[str, AfterValidator(check_address)]
