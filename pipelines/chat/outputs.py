"""What was recorded as a call's output: an error, a stream, or a response."""

import json
from typing import Any

from pipelines.chat.streams import is_chunk_list, is_stream, merge_chunks, merge_stream

# A body with one of these is an answer, whatever stands beside it.
CHAT_ANSWERS = ("choices", "candidates", "content", "output", "promptFeedback", "prompt_feedback")
_OTHER_ANSWERS = (
    "completion",
    "data",
    "embedding",
    "generation",
    "outputs",
    "results",
    "steps",
    "text",
)
_ERROR_TEXTS = ("message", "Message", "detail", "errors", "errorMessage", "error_message", "__type")


def parsed(value: object) -> object:
    """Return what a text says that is itself JSON of an object; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        inner = json.loads(value)
    except ValueError:
        return value
    return inner if isinstance(inner, dict) else value


def stream_text(output: object) -> str | None:
    """Return the text of a recorded stream, None for any other output."""
    if isinstance(output, str):
        return output if is_stream(output) else None
    if isinstance(output, list) and output:
        # Gemini streams without SSE are one array of chunks.
        text = json.dumps(output)
        return text if is_stream(text) else None
    return None


def read_output(output: object) -> object:
    """Return the response; a recorded stream is merged to one.

    Raises:
        DroppedError: a stream that is cut off, cannot be read, or ends in an error.
    """
    if isinstance(output, list) and is_chunk_list(output):
        return merge_chunks(output)
    text = stream_text(output)
    return output if text is None else merge_stream(text)


def is_error(output: object) -> bool:
    """Return whether there is no response: nothing, a text that is no stream, an error's body."""
    if isinstance(output, dict):
        return _is_error_body(output)
    return stream_text(output) is None and not is_chunk_list(output)


def _is_error_body(body: dict[str, Any]) -> bool:
    """Return whether an object is an error's body."""
    if body.get("error") or body.get("type") == "error":
        return True
    if any(body.get(key) is not None for key in (*CHAT_ANSWERS, *_OTHER_ANSWERS)):
        return False
    # Ollama's message is an object; an error's is text.
    return any(body.get(key) and not isinstance(body[key], dict) for key in _ERROR_TEXTS)
