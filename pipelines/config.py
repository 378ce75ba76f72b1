"""One export as a frozen, closed model, and the loader that explains what is wrong with a file."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipelines.documents import load_document
from pipelines.errors import ConfigError
from pipelines.explain import explain, shown
from pipelines.expressions import parse_expression
from pipelines.filters import EventFilter
from pipelines.layout import DatePath
from pipelines.storage_options import options_text
from pipelines.values import Address, Bytes, Count, Duration, Instant, Lag
from pipelines.windows import Grid

PayloadKind = Literal["json", "text", "json_or_text", "struct"]
ExtraField = Literal[
    "id",
    "requested_at",
    "received_at",
    "updated_at",
    "model",
    "status_code",
    "error_message",
    "completion_id",
    "finish_reason",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cost",
    "cache_hit",
    "project_id",
    "is_error",
]
EventField = Literal[ExtraField, "request", "response", "tags"]
Compression = Literal["gzip", "zstd", "none"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTITION_KEY = re.compile(r"date|hour|model|status|tags\..+", re.DOTALL)
_KEY_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _or_text(schema: dict[str, Any]) -> None:
    """Let a model's schema take a string too, for models with a short form."""
    full = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, full]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True
    )


class FieldMapping(_Frozen):
    """Where one field of an event comes from: a column or an SQL expression over columns.

    Attributes:
        column: name of the batch's column.
        expression: SQL expression over the batch's columns, instead of `column`.
        kind: how a payload is stored; only `request` and `response` have one.
        optional: a batch without the column reads it as NULL, instead of a ContractError.
    """

    model_config = ConfigDict(json_schema_extra=_or_text)

    column: str | None = None
    expression: str | None = None
    kind: PayloadKind | None = None
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> "FieldMapping":
        if (self.column is None) == (self.expression is None):
            raise ValueError("exactly one of `column` and `expression` is needed")
        return self


def _without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    try:
        options_text(options)
    except ConfigError as exc:
        raise ValueError(str(exc)) from exc
    return options


StorageOptions = Annotated[dict[str, Any], AfterValidator(_without_secrets)]


class Source(_Frozen):
    """Where batches lie, and the mapping from their columns to the fields of an event.

    Attributes:
        url: folder, prefix or glob of Parquet objects; `file://`, `s3://` or a path relative to
            the config file. What ends in `.parquet` is an object or a folder of them. A glob may
            hold `*`, `**`, `?`, `[a-z]`, `[!x]` and `{a,b}`.
        preset: name of a bundled mapping; found by column names when neither it nor `mapping`
            is given.
        mapping: fields of an event; on top of the preset's when there is one.
        date_path: Hive-style date folders below `url`, such as `year=%Y/month=%m`; lets a run
            list only the folders of its windows. The folder's date must be the event's.
        valid_times: half-open range of believable event times; others go to window `undated`.
        storage_options: passed to fsspec (endpoint_url, profile, …); never secrets.
        on_unreadable_batch: of a batch whose footer cannot be read: `fail` blocks the windows it
            may feed, `skip` records it. Damage behind a sound footer always fails the window.
    """

    url: str
    preset: str | None = None
    mapping: dict[EventField, FieldMapping] = Field(default_factory=dict)
    date_path: str | None = None
    valid_times: tuple[Instant, Instant] = (
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2100, 1, 1, tzinfo=UTC),
    )
    storage_options: StorageOptions = Field(default_factory=dict)
    on_unreadable_batch: Literal["fail", "skip"] = "fail"

    @field_validator("date_path")
    @classmethod
    def _known_directives(cls, template: str | None) -> str | None:
        if template is not None:
            try:
                DatePath(template)
            except ConfigError as exc:
                raise ValueError(str(exc)) from exc
        return template

    @model_validator(mode="after")
    def _kinds_only_on_payloads(self) -> "Source":
        for name, mapping in self.mapping.items():
            if mapping.kind is not None and name not in ("request", "response"):
                raise ValueError(f"mapping.{name}: only request and response have a `kind`")
        if self.valid_times[0] >= self.valid_times[1]:
            raise ValueError("valid_times: the first instant must be before the second")
        return self


class Destination(_Frozen):
    """The folder or prefix that belongs to this export alone.

    Attributes:
        url: `s3://…`, `file://…` or a path.
        storage_options: passed to fsspec (endpoint_url, profile, …); never secrets.
        keep_generations: how many of a window's newest generations keep their parts.
        grace: how long a part stays that no kept generation names, by the store's clock. A window
            whose export takes longer than half of it is not committed.
        strict_commit: refuse a store that writes over objects instead of creating them only.
    """

    url: str
    storage_options: StorageOptions = Field(default_factory=dict)
    keep_generations: Annotated[int, Field(ge=1)] = 1
    grace: Annotated[Duration, Field(gt=timedelta(0), json_schema_extra={"default": "1h"})] = (
        timedelta(hours=1)
    )
    strict_commit: bool = False


class WindowGrid(_Frozen):
    """The grid of windows.

    Attributes:
        every: width of a window, `15m`, `1h`, `1d`, `7d`, …
        start: first instant exported and origin of the grid; by default the grid starts at
            1970-01-01 and the first window is that of the oldest event.
        lag: how long after its end a window becomes due.
    """

    every: Duration
    start: Instant | None = None
    lag: Annotated[Lag, Field(json_schema_extra={"default": "20m"})] = timedelta(minutes=20)

    @property
    def grid(self) -> Grid:
        """Return the grid itself."""
        return Grid(self.every, self.start or _EPOCH)

    @field_validator("start")
    @classmethod
    def _whole_seconds(cls, start: datetime | None) -> datetime | None:
        if start is not None and start.microsecond:
            raise ValueError("must be a whole second")
        return start


class PartitionExpression(_Frozen):
    """A partition key computed by an SQL expression over the event's fields."""

    name: Annotated[str, Field(pattern=_KEY_NAME)]
    expression: str


class Sample(_Frozen):
    """Keep an event by a stable hash of its id.

    Attributes:
        fraction: share of ids kept, 0 to 1.
        seed: another seed keeps other ids.
    """

    fraction: Annotated[float, Field(ge=0, le=1)]
    seed: int = 0


class OrderBy(_Frozen):
    """Order of records in a partition; ties by batch path, then row."""

    model_config = ConfigDict(json_schema_extra=_or_text)

    field: Literal["requested_at"] = "requested_at"
    direction: Literal["asc", "desc"] = "asc"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            field, _, direction = value.strip().partition(" ")
            return {"field": field, "direction": direction.strip() or "asc"}
        return value


def _partition_key(value: object) -> object:
    if isinstance(value, str) and _PARTITION_KEY.fullmatch(value) is None:
        names = ["date", "hour", "model", "status", "tags.<name>"]
        near = difflib.get_close_matches(value, names, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"a partition key is one of {', '.join(names)}, or {{name, expression}}{hint}"
        )
    return value


class ExportConfig(_Frozen):
    """A named job: what to read, what to keep, how to write it, where to.

    Attributes:
        name: the export's name; the destination's owner record holds it.
        filters: conditions that an event must all meet.
        where: one SQL boolean expression over the event's fields, for what filters cannot say.
        partition_by: Hive keys, in order; empty writes all parts into one folder.
        compression: of parts; `gzip` everything reads, `zstd` is smaller and faster.
        compression_level: the codec's own level; by default 1 for gzip (ISA-L); for zstd a
            quick one of our own, about as small as 3.
        target_part_bytes: a part closes at this many bytes before compression.
        extra_fields: event fields added to a record after input, output and tags.
        exclude_errors: leave out events that the mapping calls errors.
        remove_duplicates: drop equal records, or equal inputs, within a window.
        order_by: `requested_at asc` or `desc`; by default batch path, then row.
        memory_limit: bytes DuckDB may hold; the process needs up to 512 MB more.
        threads: DuckDB threads of one shard; `auto`, the default, gives each worker its share of
            the cores.
        executor: where shards run: here, in processes of this machine, or on a Dask cluster.
        workers: local processes; `auto`, the default, is as many as there is work and room for.
        address: of the Dask scheduler, `tcp://host:8786`.
        max_partitions: more partitions than this in one window is an error.
        max_reject_ratio: more rejects than this share of a window's events is an error.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: Source
    destination: Destination
    filters: tuple[EventFilter, ...] = ()
    where: str | None = None
    window: WindowGrid | None = None
    partition_by: tuple[
        Annotated[str | PartitionExpression, BeforeValidator(_partition_key)], ...
    ] = ()
    compression: Compression = "gzip"
    compression_level: int | None = None
    target_part_bytes: Bytes = 128 * 1024**2
    extra_fields: tuple[ExtraField, ...] = ()
    exclude_errors: bool = False
    remove_duplicates: Literal["record", "input", "none"] = "none"
    sample: Sample | None = None
    order_by: OrderBy | None = None
    memory_limit: Bytes = 1024**3
    threads: Count = None
    executor: Literal["threads", "processes", "dask"] = "processes"
    workers: Count = None
    address: Address | None = None
    max_partitions: Annotated[int, Field(ge=1)] = 10_000
    max_reject_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01

    @model_validator(mode="after")
    def _consistent(self) -> "ExportConfig":
        names = [key if isinstance(key, str) else key.name for key in self.partition_by]
        for label, values in (("partition_by", names), ("extra_fields", self.extra_fields)):
            folded = [value.lower() for value in values]
            if repeated := next((v for v in folded if folded.count(v) > 1), None):
                raise ValueError(f"{label}: {repeated!r} stands there twice")
        # A reader's partition column would hide the record's own key.
        if hidden := {"input", "output", "tags", *self.extra_fields} & {n.lower() for n in names}:
            raise ValueError(f"partition_by: {min(hidden)!r} is a key of the record already")
        if self.workers is not None and self.executor != "processes":
            raise ValueError("workers: are local processes; they need executor: processes")
        if self.address is not None and self.executor != "dask":
            raise ValueError("address: is that of a Dask scheduler; it needs executor: dask")
        levels = {"gzip": range(4), "zstd": range(1, 23), "none": range(0)}[self.compression]
        if self.compression_level is not None and self.compression_level not in levels:
            allowed = f"{levels[0]} to {levels[-1]}" if levels else "no level"
            raise ValueError(f"compression_level: {self.compression} takes {allowed}")
        return self


def load_config(path: Path) -> ExportConfig:
    """Read one YAML file; relative `url`s are resolved against its folder.

    Raises:
        ConfigError: names the file, every bad key's path, the value seen and the nearest key.
    """
    try:
        document = load_document(path.read_text("utf-8"))
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 text") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        hint = ""
        if re.search(r"comparator: *[!><]", path.read_text("utf-8")):
            hint = "; comparators such as '!=' and '>=' need quotes in YAML"
        raise ConfigError(f"{path}{_yaml_place(exc)}{hint}") from exc
    return parse_config(document, origin=str(path), base=path.resolve().parent)


def _yaml_place(exc: yaml.YAMLError) -> str:
    """Line, column and problem, without the line itself: it may hold a secret."""
    if not isinstance(exc, yaml.MarkedYAMLError) or (mark := exc.problem_mark) is None:
        return ": not valid YAML"
    return f": line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {exc.problem}"


def parse_config(document: object, *, origin: str, base: Path) -> ExportConfig:
    """Validate a config given as plain data; `origin` stands in messages, `base` roots paths."""
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: an export is a mapping of keys, not {shown(document)}")
    for section in ("source", "destination"):
        part = document.get(section)
        if isinstance(part, dict) and isinstance(part.get("url"), str):
            document = {**document, section: {**part, "url": resolve_url(part["url"], base)}}
    try:
        config = ExportConfig.model_validate(document)
    except ValidationError as exc:
        raise ConfigError("\n".join(explain(exc, origin, ExportConfig))) from exc
    if config.where is not None:
        parse_expression(config.where, place=f"{origin}: where", boolean=True)
    return config


def resolve_url(url: str, base: Path) -> str:
    """Return `url` absolute: a path without scheme is relative to `base`."""
    if "://" in url:
        return url
    return os.path.normpath(base / Path(url).expanduser()) if url else url


def meaning_digest(meaning: Mapping[str, Any]) -> str:
    """Return the sha256 of plain data, independent of key order."""
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
