"""A batch's columns, what they have in common, and which field of an event each is mapped to."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.config import FieldMapping
from pipelines.errors import ContractError
from pipelines.expressions import Expression, parse_expression

# A column's family decides how it is read; widths and units within one are reconciled.
TEXT, BINARY, INTEGER, FLOAT = "text", "binary", "integer", "float"
BOOLEAN, TIME, ZONED_TIME, OTHER = "boolean", "time", "zoned time", "other"
STRUCT, MAP, TEXT_MAP = "struct", "map", "map of text"
LIST, TEXT_LIST, PAIR_LIST = "list", "list of text", "list of pairs"
_SAME = {
    BINARY: TEXT,
    ZONED_TIME: TIME,
    FLOAT: INTEGER,
    TEXT_MAP: MAP,
}  # read side by side without loss
NESTED = (STRUCT, MAP, TEXT_MAP, LIST, TEXT_LIST, PAIR_LIST)


@dataclass(frozen=True, slots=True)
class Columns:
    """A batch's columns by name, with their families, in file order."""

    families: tuple[tuple[str, str], ...]

    def family(self, name: str) -> str | None:
        """Return the family of one column, None when the batch has none of that name."""
        return next((family for column, family in self.families if column == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in file order."""
        return tuple(name for name, _ in self.families)


def columns_of(schema: pa.Schema) -> Columns:
    """Return the columns of a Parquet schema as pyarrow reads it."""
    return Columns(tuple((field.name, _family(field.type)) for field in schema))


@dataclass(frozen=True, slots=True)
class EventMapping:
    """The mapping that holds for an export, whatever batch it reads.

    Attributes:
        origin: `preset@version`, or `mapping` for one written in the config.
        fields: fields of an event that are mapped.
        derived: other fields, as expressions over the event's own fields.
    """

    origin: str
    fields: Mapping[str, FieldMapping]
    derived: Mapping[str, str] = field(default_factory=dict)

    def meaning(self) -> dict[str, object]:
        """Plain data for digests: what changes here changes records."""
        fields = {name: field.model_dump() for name, field in sorted(self.fields.items())}
        return {"origin": self.origin, "fields": fields, "derived": dict(self.derived)}

    def gives(self, name: str) -> bool:
        """Whether events have this field; it is NULL where a batch lacks its optional column."""
        return name in self.fields or name in self.derived

    def reads(self, name: str, columns: Collection[str]) -> frozenset[str]:
        """Those of the columns that one field is computed from."""
        mapping = self.fields.get(name)
        if mapping is None:
            return frozenset()
        if mapping.column is not None:
            return frozenset({mapping.column}.intersection(columns))
        return parse_mapped(name, mapping).columns.intersection(columns)


def parse_mapped(name: str, mapped: FieldMapping) -> Expression:
    """Return the checked expression that a field is mapped to."""
    return parse_expression(mapped.expression or "", place=f"source.mapping.{name}")


def check_same_contract(
    mapping: EventMapping, first: Columns, other: Columns, *, batch: str
) -> None:
    """Refuse a batch whose mapped columns have another type than the first batch's.

    Raises:
        ContractError: names batch, column and both types.
    """
    for name, mapped in mapping.fields.items():
        if mapped.column is None:
            continue
        was, now = first.family(mapped.column), other.family(mapped.column)
        if was and now and _SAME.get(was, was) != _SAME.get(now, now):
            raise ContractError(
                f"{batch}: column {mapped.column!r} ({name}) is {now} here, {was} in other batches",
                batch=batch,
                column=mapped.column,
            )


def _family(kind: pa.DataType) -> str:
    """The family of an Arrow type."""
    if isinstance(kind, pa.UuidType):
        return OTHER  # not the bytes that it is stored as
    if isinstance(kind, pa.BaseExtensionType):
        return _family(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_timestamp(kind):
        return ZONED_TIME if kind.tz is not None else TIME
    tests = (
        (TEXT, (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
        (
            BINARY,
            (
                pa.types.is_binary,
                pa.types.is_large_binary,
                pa.types.is_binary_view,
                pa.types.is_fixed_size_binary,
            ),
        ),
        (BOOLEAN, (pa.types.is_boolean,)),
        (INTEGER, (pa.types.is_integer,)),
        (FLOAT, (pa.types.is_floating, pa.types.is_decimal)),
        (TIME, (pa.types.is_date,)),
        (TEXT_MAP, (_is_text_map,)),
        (MAP, (pa.types.is_map,)),
        (STRUCT, (pa.types.is_struct,)),
        (TEXT_LIST, (_is_list_of(_is_text),)),
        (PAIR_LIST, (_is_list_of(_is_pair),)),
        (LIST, (pa.types.is_list, pa.types.is_large_list)),
    )
    return next((family for family, checks in tests if any(c(kind) for c in checks)), OTHER)


def _is_list_of(is_item: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def check(kind: pa.DataType) -> bool:
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return listed and is_item(kind.value_type)

    return check


def _is_text(kind: pa.DataType) -> bool:
    return _family(kind) == TEXT


def _is_pair(kind: pa.DataType) -> bool:
    """Whether a list's items are rows of tags, as OpenPipe's table has them: name and value."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"name", "value"}


def _is_text_map(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) and _family(kind.item_type) == TEXT
