"""Any recorded call as a training example: which API it was, and what cannot train."""

from collections.abc import Mapping
from typing import Any, Protocol

from pipelines.chat import anthropic, bedrock, gemini, openai_chat, responses
from pipelines.chat.example import DroppedError, Example
from pipelines.chat.outputs import CHAT_ANSWERS, is_error, parsed, read_output
from pipelines.chat.shapes import as_object


class _Api(Protocol):
    """A module that knows one API."""

    def is_request(self, request: Mapping[str, Any], response: object) -> bool:
        """Return whether the call has this API's shape."""

    def to_example(
        self,
        request: Mapping[str, Any],
        response: Mapping[str, Any],
        tags: Mapping[str, str | None],
    ) -> Example:
        """Return the call as an example."""


_APIS: tuple[_Api, ...] = (gemini, anthropic, responses, bedrock, openai_chat)
_ASKS = ("messages", "contents", "input", "instructions", "previous_response_id", "conversation")
_OTHER_OBJECTS = ("list", "text_completion", "interaction", "embedding")


def to_example(record: object) -> Example:
    """Return the record's call as an example; `check_example` says whether it may train.

    Args:
        record: `input`, `output` and `tags` as exported, parsed.

    Raises:
        DroppedError: it has no honest form as chat messages.
    """
    if not isinstance(record, Mapping) or not {"input", "output"} <= set(record):
        raise DroppedError("unreadable_record", "no input and output")
    try:
        return _converted(record)
    except RecursionError:
        raise DroppedError("unreadable_record", "nested too deep") from None


def _converted(record: Mapping[str, Any]) -> Example:
    """Find the API by the shapes of request and response, and convert."""
    output = _unwrapped(record["output"])
    if is_error(output):
        raise DroppedError("error_output")
    request = _unwrapped(record["input"])
    if not isinstance(request, dict) or not _asks_for_chat(request):
        raise DroppedError("not_chat")
    if isinstance(output, str) and output.lstrip().startswith("event: interaction."):
        raise DroppedError("not_chat", "interaction")
    response = read_output(output)
    body = as_object(response)
    if is_error(body):
        raise DroppedError("error_output")
    if body.get("object") in _OTHER_OBJECTS or _is_moderation(body):
        raise DroppedError("not_chat")
    for api in _APIS:
        if api.is_request(request, body):
            return api.to_example(request, body, _tags(record.get("tags")))
    raise DroppedError("no_choice")


def _asks_for_chat(request: Mapping[str, Any]) -> bool:
    """Return whether a request may be one for chat; a prompt that is an object is stored there."""
    return any(key in request for key in _ASKS) or isinstance(request.get("prompt"), dict)


def _is_moderation(body: Mapping[str, Any]) -> bool:
    """Return whether a body says what is wrong with a text, and is no answer to it."""
    return "results" in body and not any(key in body for key in CHAT_ANSWERS)


def _unwrapped(payload: object) -> object:
    """Return the body of a payload that was recorded as text, or in an envelope of HTTP."""
    found = parsed(payload)
    if not isinstance(found, dict) or any(key in found for key in (*_ASKS, *CHAT_ANSWERS)):
        return found
    body = parsed(found.get("body"))
    return body if isinstance(body, dict) else found


def _tags(tags: object) -> Mapping[str, str | None]:
    """Return the record's tags."""
    return {key: value for key, value in as_object(tags).items() if isinstance(value, str | None)}
