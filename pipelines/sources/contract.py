"""Whether batches of other types can be one source."""

from collections.abc import Iterable

from pipelines.errors import ContractError
from pipelines.sources.columns import (
    BINARY,
    FLOAT,
    INTEGER,
    MAP,
    TEXT,
    TEXT_MAP,
    TIME,
    ZONED_TIME,
    Columns,
)
from pipelines.sources.mapping import EventMapping

_SAME = {
    BINARY: TEXT,
    ZONED_TIME: TIME,
    FLOAT: INTEGER,
    TEXT_MAP: MAP,
}  # one contract: each is read as what it is, and both give the same values


def check_same_contract(mapping: EventMapping, batches: Iterable[tuple[str, Columns]]) -> None:
    """Refuse a batch whose mapped columns have another type than in batches before it.

    Args:
        mapping: says which columns matter.
        batches: path and columns of one batch of each kind.

    Raises:
        ContractError: names batch, column and both types.
    """
    first: dict[str, tuple[str, str]] = {}
    for batch, columns in batches:
        for name, field in mapping.fields.items():
            now = columns.family(field.column) if field.column is not None else None
            if field.column is None or now is None:
                continue
            other, was = first.setdefault(field.column, (batch, now))
            if _SAME.get(was, was) != _SAME.get(now, now):
                raise ContractError(
                    f"{batch}: column {field.column!r} ({name}) is {now} here, {was} in {other}",
                    batch=batch,
                    column=field.column,
                )
