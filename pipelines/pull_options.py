"""What a pull takes from an export and how it makes a bundle of it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pipelines.errors import ConfigError
from pipelines.expressions import parse_expression
from pipelines.selection import Conversations, Duplicates
from pipelines.values import Instant

TargetName = Literal[
    "records", "openai", "openpipe", "together", "fireworks", "mistral", "trl", "trl-completion",
    "axolotl", "llamafactory", "preference",
]  # fmt: skip
PairStyle = Literal["openai", "together", "fireworks", "trl"]
FinishReason = Literal["length", "content_filter"]
SplitName = Literal["train", "test", "validation"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
RECORD_FIELDS = ("input", "output", "tags")
REST = "train"


def _one_condition(where: str) -> str:
    try:
        parse_expression(where, place="where", columns=RECORD_FIELDS, boolean=True)
    except ConfigError as exc:
        raise ValueError(str(exc)) from exc
    return where


class PullOptions(BaseModel):
    """Options of one pull; equal options and exports make equal files.

    Attributes:
        format: the service or trainer that the rows are for; `records` are as exported.
        start, end: choose the whole windows that overlap `[start, end)`.
        as_of: read what was committed then. generation: that of each window.
        partitions: Hive keys and values that parts must have.
        tags: values that a record's tags must have.
        where: SQL condition over `input`, `output` and `tags`, JSON text all three.
        conversations: `longest` leaves out what a longer log of the same conversation repeats; by
            default, but for `trl-completion`, of which only the last answer trains.
        duplicates: which of several answers to one input stays: `last` by window, part and line
            (the uppermost line where the export's `order_by` is descending).
        allow_finish: finish reasons of answers that are no whole ones, and are taken all the same.
        prune: texts that are removed from inputs, in this order; emptied messages go.
        split: fractions of `test` and `validation`; the rest is `train`.
        split_by_tag: the tag that keeps records together; by default the conversation's opening.
        seed: of splits, and of the choice when there are more than `max_rows`.
        max_rows: rows of the bundle.
        chosen, rejected: `preference` alone: tag and value that tell the better and worse answer.
        pair_style: the service that the pairs are for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    format: TargetName = "records"
    start: Instant | None = None
    end: Instant | None = None
    as_of: Instant | None = None
    generation: Annotated[int, Field(ge=1)] | None = None
    partitions: dict[str, str | None] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    where: Annotated[str, AfterValidator(_one_condition)] | None = None
    conversations: Conversations | None = None
    duplicates: Duplicates = "last"
    allow_finish: tuple[FinishReason, ...] = ()
    prune: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    split: dict[Literal["test", "validation"], Fraction] = Field(default_factory=dict)
    split_by_tag: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    max_rows: Annotated[int, Field(ge=1)] | None = None
    chosen: tuple[str, str] | None = None
    rejected: tuple[str, str] | None = None
    pair_style: PairStyle = "openai"

    @property
    def only_longest(self) -> bool:
        """Return whether a log is left out that a longer one repeats."""
        if self.conversations is None:
            return self.format != "trl-completion"
        return self.conversations == "longest"

    @model_validator(mode="after")
    def _no_idle_options(self) -> "PullOptions":
        idle = {
            "records": {"prune", "allow_finish", "conversations", "duplicates"},
            "preference": {"conversations", "duplicates"},
        }.get(self.format, set())
        if given := sorted(idle & self.model_fields_set):
            raise ValueError(f"{', '.join(given)}: the format {self.format} has no use for it")
        if self.chosen is not None and self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same tag and value")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "PullOptions":
        if sum(self.split.values()) >= 1:
            raise ValueError("split: the fractions add up to 1 or more, and none is left to train")
        pairs = self.chosen is not None and self.rejected is not None
        if pairs != (self.format == "preference") or (self.chosen is None) != (
            self.rejected is None
        ):
            raise ValueError(
                "chosen and rejected go with the format preference, which needs both: a tag and "
                "the value that tells the better answer, and the worse one"
            )
        return self


def parse_options(given: Mapping[str, Any]) -> PullOptions:
    """Return checked options.

    Raises:
        ConfigError: names each option that does not fit, and why.
    """
    try:
        return PullOptions.model_validate(dict(given))
    except ValidationError as exc:
        problems = []
        for error in exc.errors(include_input=False, include_url=False):
            place = ".".join(str(step) for step in error["loc"])
            message = error["msg"].removeprefix("Value error, ")
            problems.append(f"{place}: {message}" if place else message)
        raise ConfigError("; ".join(problems)) from None
