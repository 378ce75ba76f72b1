"""One training example: a recorded call as OpenAI chat messages, or the reason why it is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

Message = dict[str, Any]
Reason = Literal[
    # What was recorded.
    "error_output",  # the output is an error, or there is none
    "no_choice",  # a response without a choice, candidate or message
    "not_chat",  # embeddings, completions of plain text, images, …: no chat request
    "unreadable_record",  # a line that is no record
    "stream_cut_off",  # a recorded stream without its end
    "stream_unreadable",
    "several_choices",  # more than one answer, none of them the one
    # The answer.
    "finish_length",
    "finish_content_filter",
    "empty_answer",
    "refusal",
    # The messages.
    "no_messages",
    "unsupported_role",
    "unsupported_content",
    "unsupported_tool",
    "tool_call_without_arguments",
    "arguments_not_json",
    "orphan_tool_result",
    "unanswered_tool_call",
    "wrong_turns",  # roles in an order that the service refuses
    "last_message_not_assistant",
    # The service.
    "over_limit",
    "too_few_messages",
    # The selection.
    "tag_filter",
    "where",
    "duplicate",
    "covered_by_longer",
    "over_max_rows",
    "no_pair",
]
REASONS: tuple[str, ...] = get_args(Reason)


class DroppedError(Exception):
    """A record becomes no row: `reason` is one of REASONS, `detail` holds no text of a payload."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation in OpenAI's chat format.

    Attributes:
        messages: all of them; the last one is the assistant's. Nobody changes them in place.
        tools: `[{"type": "function", "function": {"name", "description", "parameters"}}]`.
        tool_choice, response_format, parallel_tool_calls: as in a chat request.
        finish_reason: in OpenAI's words: stop, length, tool_calls, content_filter.
        tags: the record's.
        repairs: names of the safe repairs that were made.
        answer_size: how many messages at the end are the answer; a response may have several.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    finish_reason: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    repairs: tuple[str, ...] = ()
    answer_size: int = 1
