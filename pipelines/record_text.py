"""The text of one record: cut into its values as recorded, or parsed whatever it holds."""

import json
import re
from collections.abc import Sequence
from typing import Any

# Possessive: a string is read once, and none is too long or too full of escapes.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BRACKET = re.compile(rf'(?:[^"\[\]{{}}]++|{_STRING})*+([\[\]{{}}])'.encode(), re.DOTALL)
_SCALAR = re.compile(rf'\s*+(?:{_STRING}|[^\s"\[\]{{}},]++)'.encode(), re.DOTALL)
_TOKEN = re.compile(rf'\s*+({_STRING}|[\[\]{{}},:]|[^\s"\[\]{{}},:]++)', re.DOTALL)
_OPENING = (b"[", b"{")


def cut_record(line: bytes, keys: Sequence[str]) -> list[bytes]:
    """Return the value of each key as it stands in the line, byte for byte.

    Args:
        line: of a part, without its line end; it is JSON, and has the keys in this order.
        keys: `record_keys` of the manifest.

    Raises:
        ValueError: it is not such a line.
    """
    markers = [f',"{key}":'.encode() for key in keys[1:]]
    start = len(keys[0]) + 4
    if not line.startswith(f'{{"{keys[0]}":'.encode()) or not line.endswith(b"}"):
        raise ValueError("not a record")
    values = []
    for marker in markers:
        end = line.find(marker, start)
        if end < 0:
            raise ValueError("not a record with these keys")
        # The key's text with its quotes stands in no string, but may be a key of a payload too.
        if line.find(marker, end + 1) >= 0:
            end = line.index(marker, _value_end(line, start))
        values.append(line[start:end])
        start = end + len(marker)
    return [*values, line[start:-1]]


def _value_end(line: bytes, start: int) -> int:
    """The place after the JSON value that starts here."""
    if match := _SCALAR.match(line, start):
        return match.end()
    depth, place = 0, start
    while match := _BRACKET.match(line, place):
        place = match.end()
        depth += 1 if match[1] in _OPENING else -1
        if depth <= 0:
            return place
    raise ValueError("a value without an end")


def parse_record(line: bytes) -> Any:
    """Return what a line means; numbers too large for Python's own are infinite.

    Lone surrogate escapes become lone surrogates, of equal keys the last one stays, and no value
    is too deep.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (RecursionError, ValueError):
        # Too deep, or an integer of more than 4,300 digits (sys.set_int_max_str_digits).
        pass
    try:
        return _parse_deep(line.decode())
    except (LookupError, TypeError) as exc:
        raise ValueError("not JSON") from exc


def _parse_deep(text: str) -> Any:
    """Parse what is valid but too much for `json`, without recursion; ten times slower."""
    found: list[Any] = []
    open_values: list[Any] = [found]
    keys: list[str | None] = [None]  # of the open objects, the key that waits for its value
    for match in _TOKEN.finditer(text):
        token = match[1]
        if token in {"]", "}"}:
            open_values.pop()
            keys.pop()
            continue
        if token in {",", ":"}:
            continue
        holder = open_values[-1]
        if isinstance(holder, dict) and keys[-1] is None:
            keys[-1] = json.loads(token)
            continue
        value = {"[": list, "{": dict}[token]() if token in {"[", "{"} else _parse_scalar(token)
        if isinstance(holder, dict):
            holder[keys[-1]] = value
            keys[-1] = None
        else:
            holder.append(value)
        if token in {"[", "{"}:
            open_values.append(value)
            keys.append(None)
    return found[0]


def _parse_scalar(token: str) -> Any:
    try:
        return json.loads(token)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return float(token)
