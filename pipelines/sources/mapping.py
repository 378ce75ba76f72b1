"""Which column, or expression over columns, each field of an event is mapped to."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pipelines.config import FieldMapping
from pipelines.expressions import Expression, parse_expression


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
