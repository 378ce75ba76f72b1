"""Rules that dispose of an event, and the SQL that turns rows of batches into lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.config import ExportConfig, PartitionExpression
from pipelines.engine import compose, guarded, parameters_of, quote
from pipelines.errors import ConfigError
from pipelines.expressions import parse_expression
from pipelines.filters import compile_filters, compile_sample, tag_pointer
from pipelines.sources.columns import Columns
from pipelines.sources.fields import NUMBERS, PAYLOADS, EventSql, event_sql
from pipelines.sources.mapping import EventMapping

EXPORTED = 0
_WHERE_FIELDS = (
    "id", "requested_at", "sent_at", "received_at", "updated_at", "model", "status_code",
    "request", "response", "tags", "error_message", "completion_id", "finish_reason",
    "duration_ms", "input_tokens", "output_tokens", "cost", "cache_hit", "project_id", "is_error",
)  # fmt: skip
_FIELD_OF = {"sent_at": "requested_at"}
_DATE_KEYS = {"date": "%Y-%m-%d", "hour": "%H"}


@dataclass(frozen=True, slots=True)
class Disposition:
    """What becomes of an event: a column of the ledger, and the reason where it is split."""

    column: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """The dispositions of an export, in the order in which the first that applies is taken.

    Attributes:
        dispositions: by number; 0 is exported.
        drops: numbers and conditions of the rules that need no payload check.
        rejects: numbers and conditions of rejects.
        superseded, duplicate: numbers that the table of losers uses.
        params: values bound to the conditions.
        reads_payload: whether a drop reads request or response, which then must be decoded for
            every event; otherwise dropped events' payloads are never read.
        partition_keys: names of the keys, in order.
        partition_values: SQL of their values.
    """

    dispositions: tuple[Disposition, ...]
    drops: tuple[tuple[int, str], ...]
    rejects: tuple[tuple[int, str], ...]
    superseded: int
    duplicate: int
    params: Mapping[str, object] = field(default_factory=dict)
    reads_payload: bool = False
    partition_keys: tuple[str, ...] = ()
    partition_values: tuple[str, ...] = ()

    @property
    def first_reject(self) -> int:
        """The smallest number that is a reject; larger ones are rejects too."""
        return self.rejects[0][0]


def compile_rules(
    config: ExportConfig, mapping: EventMapping, *, now: datetime, undated: bool = False
) -> Rules:
    """Return the rules of an export, or those of its pseudo-window `undated`, all rejects.

    Raises:
        ConfigError: a rule needs a field that the mapping does not give.
    """
    dispositions = [Disposition("exported")]
    drops: list[tuple[int, str]] = []
    rejects: list[tuple[int, str]] = []
    params: dict[str, object] = {}
    read: set[str] = set()

    def add(rules: list[tuple[int, str]], column: str, reason: str, condition: str) -> None:
        dispositions.append(Disposition(column, reason))
        rules.append((len(dispositions) - 1, condition))

    if undated:
        add(rejects, "rejected", "event_time_missing", "recorded_requested_at is null")
        add(rejects, "rejected", "event_time_invalid", "requested_at is null")
        add(rejects, "rejected", "event_time_out_of_range", "requested_at is not null")
        return Rules(tuple(dispositions), (), tuple(rejects), superseded=0, duplicate=0)

    superseded = len(dispositions)
    add(drops, "superseded", "", f"lost = {superseded}")
    for predicate in compile_filters(config.filters, now=now):
        _need(mapping, predicate.fields, f"filter {predicate.reason}")
        read |= predicate.fields
        params |= predicate.params
        add(drops, "filtered", predicate.reason, f"({predicate.sql}) is not true")
    if config.where is not None:
        expression = parse_expression(
            config.where, place="where", columns=_WHERE_FIELDS, boolean=True
        )
        _need(mapping, expression.columns, "where")
        read |= expression.columns
        holds = guarded(expression.sql, expression.columns)
        add(drops, "filtered", "where", f"({holds}) is not true")
    if config.exclude_errors:
        _need(mapping, {"is_error"}, "exclude_errors")
        add(drops, "errors_excluded", "", "is_error is true")
    if config.sample is not None:
        _need(mapping, {"id"}, "sample")
        predicate = compile_sample(config.sample.fraction, config.sample.seed)
        params |= predicate.params
        add(drops, "sampled_out", "", f"({predicate.sql}) is not true")
    duplicate = len(dispositions)
    add(drops, "duplicate", "", f"lost = {duplicate}")
    for name in PAYLOADS:
        add(rejects, "rejected", f"{name}_not_json", f"{name}_json is null")
    add(rejects, "rejected", "tags_not_object", "tags is null")
    for name in config.extra_fields:
        _need(mapping, {name}, "extra_fields")
    if config.order_by is not None:
        _need(mapping, {config.order_by.field}, "order_by")
    keys, values, tags = _partitions(config, mapping)
    params |= tags
    return Rules(
        tuple(dispositions),
        tuple(drops),
        tuple(rejects),
        superseded,
        duplicate,
        params,
        bool(read & set(PAYLOADS)),
        keys,
        values,
    )


@dataclass(frozen=True, slots=True)
class Scan:
    """What one query reads: local files of one schema, and the rows that may belong.

    Attributes:
        files: local paths.
        paths: the batches' own paths, as rejects name them.
        first_batch: number of the first of them among the window's batches.
        rows: half-open row range, for a single file; all rows when there are several.
        columns: their columns.
    """

    files: tuple[str, ...]
    paths: tuple[str, ...]
    first_batch: int
    rows: tuple[int, int]
    columns: Columns


@dataclass(frozen=True, slots=True)
class Query:
    """A composed statement and the values bound to it."""

    sql: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reshape:
    """Composes the queries of one window of an export.

    Attributes:
        start, end: half-open range of event times, naive UTC; for `undated` the valid times.
        undated: whether the events outside of it are wanted instead.
    """

    config: ExportConfig
    mapping: EventMapping
    rules: Rules
    start: datetime
    end: datetime
    undated: bool = False

    def lines(self, scan: Scan, *, losers: bool) -> Query:
        """Query of records and rejects (and of dropped events when a drop reads payloads)."""
        sql = event_sql(self.mapping, scan.columns, batch=scan.paths[0])
        values = "".join(
            f"case when disposition = 0 then {value} end as p{number},\n    "
            for number, value in enumerate(self.rules.partition_values)
        )
        raw = ", ".join(f"'{name}': {value}" for name, value in sql.raw.items())
        text = compose(
            "reshape_events",
            disposed_events=self._disposed(sql, losers=losers),
            partition_values=values,
            record=_record(self.config),
            reason=self._reason(),
            detail=self._detail(),
            raw="{" + raw + "}",
        )
        first_reject = {"first_reject": self.rules.first_reject, "paths": list(scan.paths)}
        return self._bind(text, scan, first_reject)

    def counts(self, scan: Scan) -> Query:
        """Query of the window's events by batch."""
        sql = event_sql(self.mapping, scan.columns, batch=scan.paths[0])
        text = compose("count_events", window_events=self._window_events(sql, losers=False))
        return self._bind(text, scan)

    def dropped(self, scan: Scan, *, losers: bool) -> Query | None:
        """Query of counts of dropped events; None when no rule drops or `lines` has them all."""
        drops = [rule for rule in self.rules.drops if losers or not self._by_losers(rule)]
        if not drops or self.rules.reads_payload:
            return None
        sql = event_sql(self.mapping, scan.columns, batch=scan.paths[0])
        text = compose(
            "count_dropped",
            window_events=self._window_events(sql, losers=losers),
            dispositions=_cases(drops),
        )
        return self._bind(text, scan)

    def condition(self, scan: Scan) -> Query | None:
        """Query of the config's `where` alone, None when it has none."""
        if self.config.where is None:
            return None
        where = parse_expression(self.config.where, place="where", columns=_WHERE_FIELDS)
        sql = event_sql(self.mapping, scan.columns, batch=scan.paths[0])
        events = self._window_events(sql, losers=False)
        return self._bind(compose("condition", window_events=events, where=where.sql), scan)

    def ids(self, scan: Scan) -> Query:
        """Query of the window's ids, and of what says which copy of each is the newest."""
        sql = event_sql(self.mapping, scan.columns, batch=scan.paths[0])
        text = compose("collect_ids", window_events=self._window_events(sql, losers=False))
        return self._bind(text, scan)

    def keys(self, scan: Scan, *, losers: bool) -> Query:
        """Query of the hashes of what would be exported if nothing were a duplicate."""
        sql = event_sql(self.mapping, scan.columns, batch=scan.paths[0])
        key, keyed = _record(self.config), "true"
        if self.config.remove_duplicates == "input":
            key, keyed = "request_json", "recorded_request is not null"  # none is no equal input
        disposed = self._disposed(sql, losers=losers)
        text = compose("collect_keys", disposed_events=disposed, key=key, keyed=keyed)
        return self._bind(text, scan)

    def _disposed(self, sql: EventSql, *, losers: bool) -> str:
        drops = [rule for rule in self.rules.drops if losers or not self._by_losers(rule)]
        # A duplicate is told after the payload checks: a reject is never the first copy.
        early = [rule for rule in drops if rule[0] != self.rules.duplicate]
        late = [rule for rule in drops if rule[0] == self.rules.duplicate]
        kept = "true"
        if not self.rules.reads_payload:
            kept = " and ".join(f"({condition}) is not true" for _, condition in drops) or "true"
            early, late = [], []
        return compose(
            "disposed_events",
            window_events=self._window_events(sql, losers=losers),
            request_json=sql.payloads["request"],
            response_json=sql.payloads["response"],
            kept=kept,
            dispositions=_cases([*early, *self.rules.rejects, *late]),
        )

    def _window_events(self, sql: EventSql, *, losers: bool) -> str:
        fields = [f"{value} as {name}" for name, value in sql.fields.items()]
        fields += [f"{value} as recorded_{name}" for name, value in sql.recorded.items()]
        derived = "".join(f"({value}) as {name}, " for name, value in sql.derived.items())
        inside = "requested_at >= $start and requested_at < $end"
        pruning = ""
        if self.undated:
            inside = "requested_at is null or requested_at < $start or requested_at >= $end"
        elif "requested_at" not in self.mapping.fields:
            inside = "true"
        elif sql.zoned:
            # The raw column too: DuckDB prunes row groups by it, not by what is computed from it.
            column = f"cast({quote(sql.time_column or '')} as timestamptz)"  # of nanoseconds too
            pruning = f"and {column} >= $start::timestamptz and {column} < $end::timestamptz"
        join = "left join losers on losers.batch = all_events.batch and losers.row = all_events.row"
        return compose(
            "window_events",
            fields=",\n            ".join(fields),
            in_window=inside,
            derived=derived,
            time_pruning=pruning,
            losers=join if losers else "",
            lost="losers.disposition" if losers else "null::integer",
        )

    def _by_losers(self, rule: tuple[int, str]) -> bool:
        return rule[0] in (self.rules.superseded, self.rules.duplicate)

    def _reason(self) -> str:
        names = ", ".join(
            f"'{d.reason}'" for d in self.rules.dispositions[self.rules.first_reject :]
        )
        return f"[{names}][1 + disposition - $first_reject]"

    def _detail(self) -> str:
        if self.undated:
            return (
                "case when recorded_requested_at is null then 'no event time' "
                "when requested_at is null then 'not a time' else 'outside valid_times' end"
            )
        cases = ""
        for name in PAYLOADS:
            mapped = self.mapping.fields.get(name)
            if mapped is not None and mapped.expression is not None:
                failed = "'the expression that it is mapped to fails'"
                cases += f"when {name}_json is null and {name} is null then {failed} "
            cases += f"when {name}_json is null then malformed_detail({name}) "
        return f"case {cases}else 'not a JSON object of tags' end"

    def _bind(self, text: str, scan: Scan, more: Mapping[str, object] | None = None) -> Query:
        params = {
            **self.rules.params,
            "batches": list(scan.files),
            "first_batch": scan.first_batch,
            "first_row": scan.rows[0],
            "end_row": scan.rows[1],
            "start": self.start,
            "end": self.end,
            **(more or {}),
        }
        used = parameters_of(text)
        return Query(text, {name: value for name, value in params.items() if name in used})


def _record(config: ExportConfig) -> str:
    """SQL of a record's line."""
    extras = "".join(f", ',\"{name}\":', {_extra(name)}" for name in config.extra_fields)
    return (
        "concat('{\"input\":', request_json, ',\"output\":', response_json, "
        f"',\"tags\":', tags{extras}, '}}', chr(10))"
    )


def _extra(name: str) -> str:
    """SQL of an extra field's JSON text; times are ISO 8601 in UTC."""
    value = name
    if name in ("requested_at", "received_at", "updated_at"):
        value = f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    elif name in NUMBERS:
        return f"number_json({name})"
    return f"coalesce(to_json({value})::varchar, 'null')"


def _partitions(
    config: ExportConfig, mapping: EventMapping
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, object]]:
    """Names and SQL values of the partition keys, and what is bound to them."""
    keys: list[str] = []
    values: list[str] = []
    params: dict[str, object] = {}
    for key in config.partition_by:
        if isinstance(key, PartitionExpression):
            place = f"partition_by {key.name}"
            expression = parse_expression(key.expression, place=place, columns=_WHERE_FIELDS)
            _need(mapping, expression.columns, place)
            keys.append(key.name)
            text = f"cast(({expression.sql}) as varchar)"
            values.append(guarded(text, expression.columns))
            continue
        keys.append(key)
        if key in _DATE_KEYS:
            _need(mapping, {"requested_at"}, f"partition_by {key}")
            values.append(f"strftime(requested_at, '{_DATE_KEYS[key]}')")
        elif key.startswith("tags."):
            _need(mapping, {"tags"}, f"partition_by {key}")
            name = f"key{len(keys)}_tag"
            params[name] = tag_pointer(key)
            values.append(f"json_extract_string(tags, ${name})")
        else:
            name = {"status": "status_code"}.get(key, key)
            _need(mapping, {name}, f"partition_by {key}")
            values.append(f"cast({name} as varchar)")
    return tuple(keys), tuple(values), params


def _need(
    mapping: EventMapping, fields: Sequence[str] | set[str] | frozenset[str], what: str
) -> None:
    for name in sorted(fields):
        needed = _FIELD_OF.get(name, name)
        if not mapping.gives(needed):
            raise ConfigError(f"{what}: the source maps no field {needed!r}")


def _cases(rules: Sequence[tuple[int, str]]) -> str:
    return "\n            ".join(f"when {condition} then {number}" for number, condition in rules)
