"""Server-sent events, and the checks that every merge makes of the JSON inside them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from pipelines.chat.example import DroppedError

_LINE_END = re.compile(r"\r\n|\n|\r")  # not splitlines(): a JSON string may hold U+2028


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `ended` is whether the blank line after it was recorded."""

    name: str
    data: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """The JSON objects of a stream in order, and whether `[DONE]` came after them."""

    objects: list[dict[str, Any]]
    done: bool


def read_events(text: str) -> Iterator[Event]:
    """Stream the events of a text; one without data is none.

    The rules are https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream,
    except that what follows the last blank line is kept: recordings are often stripped.
    """
    name, data = "", list[str]()
    for line in _LINE_END.split(text.removeprefix("\ufeff")):
        if not line:
            if data:
                yield Event(name, "\n".join(data), ended=True)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    if data:
        yield Event(name, "\n".join(data), ended=False)


def read_recording(text: str) -> Recording:
    """Return the objects of a stream; an event that the recording ends in is left out.

    Raises:
        DroppedError: an event says that the call failed, or holds no JSON object.
    """
    objects = list[dict[str, Any]]()
    for event in read_events(text):
        if event.data.startswith("[DONE]"):
            return Recording(objects, done=True)
        if event.name == "error":
            raise DroppedError("error_output", "an error event")
        try:
            value = as_object(load_json(event.data))
        except DroppedError:
            if event.ended:
                raise
            break
        check_error(value)
        objects.append(value)
    return Recording(objects, done=False)


def check_error(value: dict[str, Any]) -> None:
    """Raise a DroppedError for an object that says that the call failed."""
    if value.get("error") or value.get("type") == "error":
        raise DroppedError("error_output", "an error event")


def load_json(text: str | bytes) -> Any:
    """Return what a JSON text says; raise a DroppedError for any other text."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise DroppedError("stream_unreadable", "an event that is not JSON") from exc


def load_arguments(text: str, *, cut: bool) -> dict[str, Any]:
    """Return the arguments of a tool call; `cut` is whether the answer hit its token limit."""
    try:
        value = load_json(text)
    except DroppedError:
        value = None
    if isinstance(value, dict):
        return value
    if cut:
        raise DroppedError("finish_length", "arguments of a tool call")
    raise DroppedError("arguments_not_json", "arguments of a tool call")


def as_object(value: Any) -> dict[str, Any]:
    """Return a JSON object as it is; raise a DroppedError for anything else."""
    if not isinstance(value, dict):
        refuse("an object is missing")
    return value


def as_list(value: Any) -> list[Any]:
    """Return a JSON array as it is; raise a DroppedError for anything else."""
    if not isinstance(value, list):
        refuse("an array is missing")
    return value


def as_text(value: Any) -> str:
    """Return a JSON string as it is; raise a DroppedError for anything else."""
    if not isinstance(value, str):
        refuse("a text is missing")
    return value


def as_index(value: Any) -> int:
    """Return a position; raise a DroppedError for what is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse("an index is missing")
    return value


def refuse(detail: str) -> NoReturn:
    """Raise the DroppedError of a stream whose shape is unknown."""
    raise DroppedError("stream_unreadable", detail)


def cut_off(detail: str) -> DroppedError:
    """Return the error of a stream that has not come to its end."""
    return DroppedError("stream_cut_off", detail)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
