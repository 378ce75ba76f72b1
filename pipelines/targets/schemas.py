"""Whether the parameters of a tool are a JSON schema, as far as services look (Draft 7)."""

from typing import Any

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_SCHEMAS = ("additionalItems", "additionalProperties", "contains", "else", "if", "not")
_MORE_SCHEMAS = ("propertyNames", "then")
_NAMED_SCHEMAS = ("$defs", "definitions", "patternProperties", "properties")
_SCHEMA_LISTS = ("allOf", "anyOf", "oneOf")
_COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
_NUMBERS = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum")
_TEXTS = ("$comment", "$id", "$ref", "$schema", "contentEncoding", "contentMediaType")
_MORE_TEXTS = ("description", "format", "pattern", "title")
_FLAGS = ("readOnly", "uniqueItems")


def is_schema(schema: Any) -> bool:
    """Tell whether a value says nothing that Draft 7's meta-schema forbids.

    One that is nested too deeply to be looked at is none.
    """
    try:
        return _is_schema(schema)
    except RecursionError:
        return False


def _is_schema(schema: Any) -> bool:
    if isinstance(schema, bool):
        return True
    return (
        isinstance(schema, dict)
        and _is_type(schema.get("type", "object"))
        and _are_names(schema.get("required", []))
        and isinstance(schema.get("enum", []), list)
        and isinstance(schema.get("examples", []), list)
        and _all(schema, _TEXTS + _MORE_TEXTS, lambda value: isinstance(value, str))
        and _all(schema, _FLAGS, lambda value: isinstance(value, bool))
        and _all(schema, _NUMBERS, _is_number)
        and _all(schema, _COUNTS, lambda value: _is_number(value) and value >= 0 == value % 1)
        and _all(schema, ("multipleOf",), lambda value: _is_number(value) and value > 0)
        and _all(schema, _SCHEMAS + _MORE_SCHEMAS, _is_schema)
        and _all(schema, ("items",), _is_schema_or_list)
        and _all(schema, _SCHEMA_LISTS, _is_schema_list)
        and _all(schema, _NAMED_SCHEMAS, _are_named_schemas)
        and _all(schema, ("dependencies",), _are_dependencies)
    )


def _all(schema: dict[str, Any], keys: tuple[str, ...], holds: Any) -> bool:
    return all(holds(schema[key]) for key in keys if key in schema)


def _is_type(value: Any) -> bool:
    if isinstance(value, str):
        return value in _TYPES
    return _are_names(value) and value != [] and _TYPES.issuperset(value)


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_schema_or_list(value: Any) -> bool:
    return _is_schema_list(value) if isinstance(value, list) else _is_schema(value)


def _is_schema_list(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_schema, value))


def _are_named_schemas(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


def _are_dependencies(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _are_names(needed) if isinstance(needed, list) else _is_schema(needed)
        for needed in value.values()
    )
