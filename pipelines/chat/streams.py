"""Recorded streams: tell one from other text, and merge it to the response it would have been."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from pipelines.chat.example import DroppedError
from pipelines.chat.stream_anthropic import merge_messages
from pipelines.chat.stream_bedrock import is_aws_stream, merge_aws
from pipelines.chat.stream_events import check_error, cut_off, read_recording, refuse
from pipelines.chat.stream_gemini import load_chunks, merge_gemini
from pipelines.chat.stream_openai import merge_chat, merge_responses

# Blank lines and comments, then a field of an event; prose such as `data: see below` is none.
_SSE = re.compile(
    r"""\ufeff?+ (?: (?: :[^\r\n]*+ )?+ [\r\n] )*+
    (?: data:\ ?+ (?: \{ | \[DONE\] | [\r\n] | \Z )
      | (?: event:\ ?+[\w.\-]+ | id:[^\r\n]*+ | retry:\ ?+\d+ )
        (?: \Z | [\r\n]++ (?: (?: data | event | id | retry )?+ : | \Z ) )
    )""",
    re.VERBOSE,
)
_ARRAY = re.compile(
    r"""\ufeff?+ \s*+ \[ \s*+ \{ \s*+ "
    (?: candidates | promptFeedback | usageMetadata | modelVersion | responseId | error ) "
    """,
    re.VERBOSE,
)
_GEMINI = frozenset({"candidates", "promptFeedback", "usageMetadata"})
_Api = Literal["chat", "responses", "messages", "gemini", "completions"]


def is_stream(text: str) -> bool:
    """Tell whether a text is a recorded stream, by its first lines alone."""
    return bool(_SSE.match(text) or _ARRAY.match(text)) or is_aws_stream(text)


def merge_stream(text: str) -> dict[str, Any]:
    """Return the response that a recorded stream spells, as if it had not been streamed.

    Raises:
        DroppedError: `stream_cut_off` without the event that ends it, `error_output` for an error
            event, `not_chat` for completions of plain text, `stream_unreadable` for the rest;
            `finish_length` and `arguments_not_json` where a tool's input can be no object.
    """
    if _ARRAY.match(text):
        return merge_gemini(load_chunks(text.removeprefix("\ufeff")))
    if is_aws_stream(text):
        return merge_aws(text)
    if not _SSE.match(text):
        refuse("not a recorded stream")
    recording = read_recording(text)
    if not recording.objects and not recording.done:
        raise cut_off("no event")
    match _detect_api(recording.objects):
        case "chat":
            return merge_chat(recording.objects, done=recording.done)
        case "responses":
            return merge_responses(recording.objects)
        case "messages":
            return merge_messages(recording.objects)
        case "gemini":
            return merge_gemini(recording.objects)
        case "completions":
            raise DroppedError("not_chat", "a completion of plain text")


def is_chunk_list(value: object) -> bool:
    """Tell whether a value is the chunks of a chat stream, recorded as a list."""
    return (
        isinstance(value, list)
        and value != []
        and all(
            isinstance(chunk, dict) and chunk.get("object") == "chat.completion.chunk"
            for chunk in value
        )
    )


def merge_chunks(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the response that a list of chunks spells; raises as `merge_stream`."""
    for chunk in chunks:
        check_error(chunk)
    return merge_chat(chunks, done=False)


def _detect_api(objects: Iterable[dict[str, Any]]) -> _Api:
    for value in objects:
        kind = value.get("type")
        if kind == "completion" or value.get("object") == "text_completion":
            return "completions"
        if isinstance(kind, str) and kind.startswith("response."):
            return "responses"
        if isinstance(kind, str) and kind.startswith(("message_", "content_block_")):
            return "messages"
        if isinstance(value.get("choices"), list):
            return "chat"
        if _GEMINI & value.keys():
            return "gemini"
    raise DroppedError("stream_unreadable", "events of an unknown API")
