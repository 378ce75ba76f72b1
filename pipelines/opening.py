"""What the records of one conversation begin with, told by their requests alone.

Whether the output is an answer, an error or a stream that was cut says nothing here, nor do later
messages: a record that could not train stands beside the others of its conversation.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pipelines.chat.convert import to_example
from pipelines.chat.example import DroppedError
from pipelines.chat.outputs import parsed
from pipelines.identity import hash_of, identify

_TURNS = ("contents", "messages", "input")
_INSTRUCTIONS = ("system", "instructions", "systemInstruction", "system_instruction")
_TEXT = MappingProxyType({"type": "text", "text": "x"})
# An answer of each API: what an API is, `to_example` tells by request and response.
_ANSWERS: tuple[dict[str, Any], ...] = (
    {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]},
    {"type": "message", "content": [dict(_TEXT)], "stop_reason": "end_turn"},
    {"output": {"message": {"content": [{"text": "x"}]}}, "stopReason": "end_turn"},
    {"object": "response", "output": [{"role": "assistant", "content": "x"}]},
    {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]},
)


def opening_of(request: object) -> bytes:
    """Return what keeps the records of one conversation together, or those of one input.

    Args:
        request: a record's input, parsed.

    Raises:
        RecursionError: it is nested too deep.
    """
    beginning = _beginning(_body(request))
    if beginning is None:
        return hash_of(request)
    for answer in _ANSWERS:
        try:
            return identify(to_example({"input": beginning, "output": answer})).opening
        except DroppedError:
            continue
    return hash_of(beginning)


def _body(request: object) -> object:
    """The request itself, where it was recorded as text or in an envelope of HTTP."""
    found = parsed(request)
    if isinstance(found, dict) and not any(name in found for name in (*_TURNS, *_INSTRUCTIONS)):
        body = parsed(found.get("body"))
        return body if isinstance(body, dict) else found
    return found


def _beginning(request: object) -> dict[str, Any] | None:
    """The instructions and the turns up to the first of a user; None where there are no turns."""
    if not isinstance(request, dict):
        return None
    name = next((name for name in _TURNS if request.get(name)), None)
    if name is None:
        return None
    instructions = _instructions(request)
    if isinstance(config := request.get("config"), dict):
        instructions["config"] = _instructions(config)
    turns = request[name]
    if not isinstance(turns, list):
        return instructions | {name: turns}
    is_begun = any(instructions.values())
    for place, turn in enumerate(turns):
        role = _role(turn)
        if role == "assistant" and (is_begun or place):
            turns = turns[:place]
            break
        if role in {"assistant", "user"}:
            turns = turns[: place + 1]
            break
    return instructions | {name: turns}


def _instructions(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: request[name] for name in _INSTRUCTIONS if request.get(name)}


def _role(turn: object) -> str:
    """Whose turn it is; the items of OpenAI's Responses that have no role are the model's."""
    if not isinstance(turn, dict):
        return "user" if isinstance(turn, str) else ""
    role = turn.get("role") or ("assistant" if "type" in turn else "user")
    return "assistant" if role == "model" else str(role)
