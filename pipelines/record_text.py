"""The text of one record: cut into its values as recorded, or parsed whatever it holds."""

import json
import re
from collections.abc import Sequence
from typing import Any

# Possessive: a string is read once, and none is too long or too full of escapes.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BRACKET = re.compile(rf'(?:[^"\[\]{{}}]++|{_STRING})*+([\[\]{{}}])', re.DOTALL)
_SCALAR = re.compile(rf'\s*+(?:{_STRING}|[^\s"\[\]{{}},]++)', re.DOTALL)
_TOKEN = re.compile(rf'\s*+({_STRING}|[\[\]{{}},:]|[^\s"\[\]{{}},:]++)', re.DOTALL)
_decode_at = json.JSONDecoder().raw_decode


def cut_record(line: bytes, keys: Sequence[str]) -> list[str]:
    """Return the value of each key as it stands in the line, character for character.

    Args:
        line: of a part, without its line end; it is JSON, and has the keys in this order.
        keys: `record_keys` of the manifest.

    Raises:
        ValueError: it is not such a line.
    """
    text = line.decode()
    start = len(keys[0]) + 4
    if not text.startswith(f'{{"{keys[0]}":') or not text.endswith("}"):
        raise ValueError("not a record")
    values = []
    for key in keys[1:]:
        marker = f',"{key}":'
        end = text.find(marker, start)
        if end < 0:
            raise ValueError("not a record with these keys")
        # The key with its quotes stands in no string, but may be a key of a payload too.
        if text.find(marker, end + 1) >= 0:
            end = text.index(marker, _value_end(text, start))
        values.append(text[start:end])
        start = end + len(marker)
    return [*values, text[start:-1]]


def _value_end(text: str, start: int) -> int:
    """The place after the JSON value that starts here."""
    try:
        return _decode_at(text, start)[1]
    except (ValueError, RecursionError):  # white space, too deep or too long a number
        pass
    if match := _SCALAR.match(text, start):
        return match.end()
    depth, place = 0, start
    while match := _BRACKET.match(text, place):
        place = match.end()
        depth += 1 if match[1] in {"[", "{"} else -1
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
