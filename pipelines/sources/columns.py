"""The columns of a batch: names, types, and what of them DuckDB can tell apart."""

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import ContractError

# A column's family decides how it is read; widths and units within one are reconciled.
TEXT, BINARY, INTEGER, FLOAT = "text", "binary", "integer", "float"
BOOLEAN, TIME, ZONED_TIME, OTHER = "boolean", "time", "zoned time", "other"
STRUCT, MAP, TEXT_MAP = "struct", "map", "map of text"
LIST, TEXT_LIST, PAIR_LIST = "list", "list of text", "list of pairs"
NESTED = (STRUCT, MAP, TEXT_MAP, LIST, TEXT_LIST, PAIR_LIST)
_BINARY_KINDS = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_ROW_COLUMNS = frozenset({"file_index", "file_row_number"})  # DuckDB's own, by which rows are named
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, family and full Arrow type as text."""

    name: str
    family: str
    type: str


@dataclass(frozen=True, slots=True)
class Columns:
    """A batch's columns in file order.

    Batches are read in one query only where all of this is equal: DuckDB casts what later files
    hold to the first one's types, and so rounds numbers and loses fields of a STRUCT.
    """

    all: tuple[Column, ...]

    def family(self, name: str) -> str | None:
        """Return the family of one column, None when the batch has none of that name."""
        return next((column.family for column in self.all if column.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in file order."""
        return tuple(column.name for column in self.all)

    def alike(self, name: str) -> tuple[str, ...]:
        """Return the columns that DuckDB may read where a query asks for `name`.

        It compares names without regard to the case of ASCII letters, and of two that are alike it
        renames the second: of `Model` and `model` it makes `Model` and `model_1`.
        """
        name = _folded(name)
        asked = {name, *(known for known in _repeated(self.names) if _is_renamed(known, name))}
        return tuple(known for known in self.names if _folded(known) in asked)


def columns_of(schema: pa.Schema) -> Columns:
    """Return the columns of a Parquet schema as pyarrow reads it."""
    return Columns(
        tuple(Column(field.name, _family(field.type), str(field.type)) for field in schema)
    )


def check_names(used: Collection[str], columns: Columns, batch: str) -> None:
    """Refuse columns that DuckDB would take for its own, or for each other.

    Raises:
        ContractError: names the batch and the columns.
    """
    for name in sorted(_ROW_COLUMNS):
        if taken := columns.alike(name):
            raise ContractError(
                f"{batch}: column {taken[0]!r} has a name that DuckDB keeps for itself"
            )
    for name in sorted(used):
        alike = columns.alike(name)
        if len(alike) > 1:
            raise ContractError(
                f"{batch}: column {name!r} is one of {', '.join(map(repr, alike))}, which DuckDB "
                f"cannot tell apart, for it sees no upper and lower case: rename all but one",
                batch=batch,
                column=name,
            )


@functools.lru_cache
def _repeated(names: tuple[str, ...]) -> tuple[str, ...]:
    """What several names have in common when folded; of nearly all batches nothing."""
    return tuple(name for name, count in Counter(map(_folded, names)).items() if count > 1)


def _is_renamed(repeated: str, name: str) -> bool:
    return name.startswith(repeated) and re.fullmatch(r"(_\d+)*", name[len(repeated) :]) is not None


def _folded(name: str) -> str:
    """A name as DuckDB compares it: only ASCII letters have a case."""
    return name.translate(_LOWER)


def bytes_column(name: str) -> str:
    """Return the name of the column that holds bad values of a nested column as bytes."""
    return f"not UTF-8 in {name}"


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text, also as a dictionary or as Parquet's JSON."""
    return _family(kind) == TEXT


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
        (BINARY, _BINARY_KINDS),
        (BOOLEAN, (pa.types.is_boolean,)),
        (INTEGER, (pa.types.is_integer,)),
        (FLOAT, (pa.types.is_floating, pa.types.is_decimal)),
        (TIME, (pa.types.is_date,)),
        (TEXT_MAP, (_is_text_map,)),
        (MAP, (pa.types.is_map,)),
        (STRUCT, (pa.types.is_struct,)),
        (TEXT_LIST, (_is_list_of(is_text),)),
        (PAIR_LIST, (_is_list_of(_is_pair),)),
        (LIST, (pa.types.is_list, pa.types.is_large_list)),
    )
    return next((family for family, checks in tests if any(c(kind) for c in checks)), OTHER)


def _is_list_of(is_item: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def check(kind: pa.DataType) -> bool:
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return listed and is_item(kind.value_type)

    return check


def _is_pair(kind: pa.DataType) -> bool:
    """Whether a list's items are rows of tags, as OpenPipe's table has them: name and value."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"name", "value"}


def _is_text_map(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) and _family(kind.item_type) == TEXT
