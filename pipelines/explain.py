"""What is wrong with a config, in sentences: the file, the key path, the nearest key."""

import difflib
import re
import types
import typing
from collections.abc import Iterator
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError

_SECRET = re.compile(r"storage|options?\b|secret|passw|token|credential|access", re.IGNORECASE)
_SHOWN_CHARS = 60
_MESSAGES = {  # for what pydantic says in Python's words
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "string_type": "must be text",
}


def explain(exc: ValidationError, origin: str, root: type[BaseModel]) -> Iterator[str]:
    """Yield one sentence for each error: file, key path, what is wrong, the value, the nearest key.

    Args:
        exc: pydantic's errors.
        origin: the file's name.
        root: the model that was validated.
    """
    errors = exc.errors(include_url=False)
    places = [_place(error["loc"]) for error in errors]
    for error, where in zip(errors, places, strict=True):
        if error["type"] == "string_type" and _has_better(where, places):
            continue  # the short form of a key that was given in its long form
        key_path = ".".join(str(part) for part in where)
        message = _MESSAGES.get(error["type"], error["msg"].removeprefix("Value error, "))
        if error["type"] == "string_pattern_mismatch":
            signs = "'_', no digit"
            if "-]" in error["ctx"]["pattern"]:
                signs = "'.', '_' and '-', no sign"
            message = f"must be letters, digits and {signs} first"
        secret = _SECRET.search(key_path) is not None
        if error["type"] == "extra_forbidden":
            keys = _keys_at(root, where[:-1])
            near = difflib.get_close_matches(str(where[-1]), keys, n=1, cutoff=0.4)
            message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
            known = ", ".join(keys)
            message += "" if near or not known else f"; known keys: {known}"
        elif error["type"] == "missing":
            yield f"{origin}: {key_path}: this key is needed"
            continue
        elif error["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
            near = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.4)
            message = f"must be one of {', '.join(choices)}"
            message += f"; did you mean {near[0]!r}?" if near else ""
        nested = error["type"] == "extra_forbidden" and isinstance(error["input"], list)
        hidden = secret or nested or isinstance(error["input"], dict | BaseModel)
        seen = "" if hidden else f" (seen: {shown(error['input'])})"
        yield f"{origin}: {key_path}: {message}{seen}" if where else f"{origin}: {message}"


def _has_better(where: list[int | str], places: list[list[int | str]]) -> bool:
    """Whether another error is at this place or below it."""
    return sum(place[: len(where)] == where for place in places) > 1


def _place(location: tuple[int | str, ...]) -> list[int | str]:
    """A location without pydantic's own parts."""
    return [part for part in location if not _is_type_tag(part)]


def _is_type_tag(part: object) -> bool:
    """Whether a location's part is pydantic's name of a union member, not a key of the user's."""
    text = str(part)
    return text in ("str", "PartitionExpression", "[key]") or "[" in text


def _keys_at(root: type[BaseModel], path: list[Any]) -> list[str]:
    """Keys that the model at `path` knows."""
    model: Any = root
    named = False  # whether the next part is a dict's key of the user's own
    for part in path:
        if isinstance(part, int) or named:
            named = False
            continue
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        field = model.model_fields.get(str(part))
        model = _model_in(field.annotation) if field else None
        named = field is not None and typing.get_origin(field.annotation) is dict
    known = isinstance(model, type) and issubclass(model, BaseModel)
    return list(model.model_fields) if known else []


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside an annotation such as `tuple[Model, ...] | None`, if any."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (_model_in(inner) for inner in typing.get_args(annotation))
    return next((model for model in found if model), None)


def shown(value: object) -> str:
    """Return a value as it is written in a message, cut to a line."""
    if value is None:
        return "nothing"
    text = str(value) if isinstance(value, date) else repr(value)
    text = re.sub(r"//[^/@\s]+@", "//…@", text)  # a user and a password
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
