"""Gemini's schemas (OpenAPI 3.0, types in capitals, counts as text) as JSON Schema."""

from typing import Any

_TYPES = frozenset(("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"))
_COUNTS = frozenset(
    f"{side}{of}"
    for side in ("min", "max")
    for of in ("Items", "Length", "Properties", "_items", "_length", "_properties")
)
_ONE = frozenset({"items", "additionalProperties", "additional_properties"})
_MANY = frozenset({"anyOf", "any_of", "prefixItems", "prefix_items"})


def to_json_schema(schema: Any) -> Any:
    """Return the schema with JSON Schema's types and counts; the rest is as recorded."""
    if not isinstance(schema, dict):
        return schema
    return {key: _value(key, value) for key, value in schema.items()}


def _value(key: str, value: Any) -> Any:
    """Return the value of one keyword."""
    if key == "type" and isinstance(value, str) and value in _TYPES:
        return value.lower()
    if key in _COUNTS and isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:20])
    if key in _ONE:
        return to_json_schema(value)
    if key in _MANY and isinstance(value, list):
        return [to_json_schema(each) for each in value]
    if key in {"properties", "$defs"} and isinstance(value, dict):
        return {name: to_json_schema(each) for name, each in value.items()}
    return value
