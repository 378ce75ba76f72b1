"""What a pull takes from an export and how it makes a bundle of it."""

import re
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
from pydantic_core import ErrorDetails

from pipelines.errors import ConfigError
from pipelines.explain import plain_message, shown
from pipelines.expressions import parse_expression
from pipelines.functions import nearest
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
SEEN_BY_WHERE = "a condition sees input, output and tags, all JSON text: tags ->> 'name' = 'x'"
REST = "train"


def _one_condition(where: str) -> str:
    try:
        parse_expression(where, place="where", columns=RECORD_FIELDS, boolean=True)
    except ConfigError as exc:
        raise ValueError(f"{str(exc).removeprefix('where: ')} ({SEEN_BY_WHERE})") from exc
    return where


def _in_order(given: dict[Any, Any]) -> dict[Any, Any]:
    return dict(sorted(given.items()))


class PullOptions(BaseModel):
    """Options of one pull; equal options and exports make equal files.

    Attributes:
        format: the service or trainer that the rows are for; `records` are as exported.
        start, end: choose the whole windows that overlap `[start, end)`.
        as_of: read what was committed then. generation: that of each window.
        partitions: Hive keys and values that parts must have.
        tags: values that a record's tags must have. What `tags` and `where` leave out is counted,
            and is not among the rejects, which are what a gate left out.
        where: SQL condition over `input`, `output` and `tags`, JSON text all three.
        conversations: `longest` leaves out what a longer log of the same conversation repeats; by
            default, but for `trl-completion`, of which only the last answer trains. A log with
            other tools or another response_format is another conversation.
        duplicates: which of several answers to one input stays: `last` by window, partition and
            line (the uppermost line where the export's `order_by` is descending).
        allow_finish: finish reasons of answers that are no whole ones, and are taken all the same.
        prune: texts that are removed from inputs, in this order; emptied messages go.
        split: fractions of `test` and `validation`; the rest is `train`.
        split_by_tag: the tag that keeps records together; by default, and where a record has no
            such tag, the opening of its conversation: all up to the first message of a user, or
            what stands before the assistant where that speaks first.
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
    partitions: Annotated[dict[str, str | None], AfterValidator(_in_order)] = Field(
        default_factory=dict
    )
    tags: Annotated[dict[str, str], AfterValidator(_in_order)] = Field(default_factory=dict)
    where: Annotated[str, AfterValidator(_one_condition)] | None = None
    conversations: Conversations | None = None
    duplicates: Duplicates = "last"
    allow_finish: tuple[FinishReason, ...] = ()
    prune: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    split: Annotated[dict[Literal["test", "validation"], Fraction], AfterValidator(_in_order)] = (
        Field(default_factory=dict)
    )
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
            "records": {"prune", "allow_finish", "conversations", "duplicates", "pair_style"},
            "preference": {"conversations", "duplicates"},
        }.get(self.format, {"pair_style"})
        # Prefect hands on every option, those with their defaults too.
        fields = type(self).model_fields
        if given := sorted(name for name in idle if getattr(self, name) != fields[name].default):
            raise ValueError(f"{', '.join(given)}: the format {self.format} has no use for it")
        if self.split_by_tag is not None and not self.split:
            raise ValueError("split_by_tag: there is no split; give its fractions, as test=0.1")
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
        problems = [_explain(error) for error in exc.errors(include_url=False)]
        raise ConfigError("; ".join(problems)) from None


def _explain(error: ErrorDetails) -> str:
    """One problem; the value is shown where it is one of a few words, and no text of a record's."""
    place = ".".join(str(step) for step in error["loc"] if step != "[key]")
    message = plain_message(error)
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        near = nearest(str(error["input"]), choices)
        message = f"must be one of {', '.join(choices)}{near} (seen: {shown(error['input'])})"
    elif error["type"] == "extra_forbidden":
        message = f"unknown option{nearest(place, PullOptions.model_fields)}"
    return f"{place}: {message}" if place else message
