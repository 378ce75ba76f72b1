"""Rows and examples as lines of JSON, and the file of records that are left out."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.chat.example import DroppedError, Example
from pipelines.errors import ConfigError
from pipelines.local import local_errors
from pipelines.targets.base import Target

_MANY_DIGITS = re.compile("[0-9]{19}")  # fewer are within 64 bits
_INT64 = range(-(2**63), 2**63)


def example_as_data(example: Example) -> dict[str, Any]:
    """Return plain data that `example_from_data` reads."""
    return {
        name: getattr(example, name)
        for name in (
            *("messages", "tools", "tool_choice", "response_format", "parallel_tool_calls"),
            *("finish_reason", "repairs", "answer_size"),
        )
    } | {"tags": dict(example.tags)}


def example_from_data(data: bytes) -> Example:
    """Return the example of plain data as JSON text."""
    found = json.loads(data)
    tools = found.pop("tools")
    messages, repairs = tuple(found.pop("messages")), tuple(found.pop("repairs"))
    return Example(
        messages=messages, repairs=repairs, tools=None if tools is None else tuple(tools), **found
    )


def dump_row(row: Mapping[str, Any]) -> bytes:
    """One line of JSON, with the line breaks of Unicode escaped: some readers split at them.

    Raises:
        DroppedError: it holds what some reader of JSON refuses or alters: half a surrogate pair,
            a number that JSON cannot write, an integer beyond 64 bits.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        for mark in ("\u0085", "\u2028", "\u2029"):
            text = text.replace(mark, f"\\u{ord(mark):04x}")
        line = text.encode()
    except UnicodeEncodeError as exc:
        raise DroppedError("unsupported_content", "a lone surrogate") from exc
    except ValueError as exc:
        raise DroppedError("unsupported_content", "a number that JSON cannot hold") from exc
    if _MANY_DIGITS.search(text) and not _fits_64_bits(row):
        raise DroppedError("unsupported_content", "an integer beyond 64 bits")
    return line


def _fits_64_bits(value: object) -> bool:
    """Return whether every integer in a value does."""
    if isinstance(value, Mapping):
        return all(map(_fits_64_bits, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_fits_64_bits, value))
    return not isinstance(value, int) or value in _INT64


def dump_fitting(row: Mapping[str, Any], target: Target) -> bytes:
    """One line of JSON that fits into a file of the service.

    Raises:
        DroppedError: it does not, or `dump_row` refuses it.
    """
    data = dump_row(row)
    if len(data) + 1 > (target.max_file_bytes or 2**62):
        raise DroppedError("over_limit", "one row is larger than a file may be")
    return data


_REJECT = b'{"reason": '  # how each line of a file of rejects begins


class Rejects:
    """The file of what is left out; it is there even where nothing is."""

    def __init__(self, path: Path) -> None:
        """Begin the file.

        Raises:
            ConfigError: it cannot be written there, or something else is there.
        """
        self._path = path
        try:
            with path.open("ab+") as found:
                found.seek(0)
                if found.read(len(_REJECT)) not in (b"", _REJECT):
                    raise ConfigError(f"--rejects: {path} holds something else; name a new file")
            self._file = path.open("wb")
        except OSError as exc:
            raise ConfigError(
                f"--rejects: cannot write {path} ({exc.strerror}); name a file in a folder that is "
                f"there and may be written"
            ) from exc

    def write(self, reason: str, detail: str, record: bytes) -> None:
        """Add a record, which is JSON."""
        with local_errors("write", f"file://{self._path}"):
            head = json.dumps({"reason": reason, "detail": detail})
            self._file.write(head[:-1].encode() + b', "record": ' + record + b"}\n")

    def close(self) -> None:
        """Close the file."""
        with local_errors("write", f"file://{self._path}"):
            self._file.close()
