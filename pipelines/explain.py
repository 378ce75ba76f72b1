"""What is wrong with a config, in sentences: the file, the key path, the nearest key."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_Place = tuple[int | str, ...]
_SECRET = re.compile(r"storage|options?\b|secret|passw|token|credential|access", re.IGNORECASE)
_SHOWN_CHARS = 60
_WHOLE = "must be a whole number"
_NUMBER = "must be a number"
_FLAG = "must be true or false"
_MESSAGES = {  # for what pydantic says in Python's words
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _FLAG,
    "bool_parsing": _FLAG,
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must be a list of {max_length} at most",
}
_SCALARS = ("bool", "int", "float", "decimal", "datetime", "date")  # what a filter compares with
_VALUE = "must be text, a number, true or false, or a time"


def explain(exc: ValidationError, origin: str, root: type[BaseModel]) -> Iterator[str]:
    """Yield one sentence for each error: file, key path, what is wrong, the value, the nearest key.

    Args:
        exc: pydantic's errors.
        origin: the file's name.
        root: the model that was validated.
    """
    for error, where, said in _told_once(exc.errors(include_url=False)):
        message = said
        key_path = ".".join(str(part) for part in where)
        if error["type"] == "string_pattern_mismatch":
            signs = "'_', no digit"
            if "-]" in error["ctx"]["pattern"]:
                signs = "'.', '_' and '-', no sign"
            message = f"must be letters, digits and {signs} first"
        secret = _SECRET.search(key_path) is not None or key_path == "address"
        if error["type"] == "extra_forbidden":
            keys = _keys_at(root, where[:-1])
            near = difflib.get_close_matches(str(where[-1]), keys, n=1, cutoff=0.4)
            message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
            known = ", ".join(keys)
            message += "" if near or not known else f"; known keys: {known}"
        elif error["type"] == "missing":
            what = "value" if isinstance(where[-1], int) else "key"
            yield f"{origin}: {key_path}: this {what} is needed"
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


def plain_message(error: ErrorDetails) -> str:
    """Return what pydantic says of a value, in words of a config instead of Python's."""
    message = _MESSAGES.get(error["type"])
    if message is None:
        return error["msg"].removeprefix("Value error, ")
    bounds = error.get("ctx", {}).items()
    return message.format(**{k: f"{v:g}" if isinstance(v, float) else v for k, v in bounds})


def _told_once(errors: Iterable[ErrorDetails]) -> Iterator[tuple[ErrorDetails, _Place, str]]:
    """Each error with its place and message; one where a choice of types makes several."""
    by_place: dict[_Place, list[ErrorDetails]] = {}
    for error in errors:
        by_place.setdefault(_place(error["loc"]), []).append(error)
    for where, found in by_place.items():
        is_above = any(place != where and place[: len(where)] == where for place in by_place)
        if is_above and (len(found) > 1 or found[0]["type"] == "string_type"):
            continue  # a type that was not meant, such as the short form of a key's long one
        message = " or ".join(
            plain_message(error).removeprefix("must be " if number else "")
            for number, error in enumerate(found)
        )
        if len(found) > 1 and "value" in where:  # a filter's
            message = f"{_VALUE}, or a list of these" if where[-1] == "value" else _VALUE
        yield found[0], where, message


def _place(location: tuple[int | str, ...]) -> _Place:
    """A location without pydantic's own parts."""
    return tuple(part for n, part in enumerate(location) if not _is_type_tag(part, location[:n]))


def _is_type_tag(part: object, before: _Place) -> bool:
    """Whether a location's part is pydantic's name of a union member, not a key of the user's."""
    text = str(part)
    if "value" in before and text in _SCALARS:  # of a filter
        return True
    return text in ("str", "PartitionExpression", "[key]") or "[" in text


def _keys_at(root: type[BaseModel], path: Iterable[int | str]) -> list[str]:
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
