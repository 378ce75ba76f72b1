"""Mistral's rows, as mistral-finetune and the V3 request validator of mistral-common take them."""

import hashlib
import re
from typing import Any

from pipelines.chat.example import DroppedError, Example, Message
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import check_functions, function_tools
from pipelines.targets.images import ImageRules, check_images
from pipelines.targets.messages import (
    join_text,
    known_messages,
    system_first,
    text_or_calls,
    without_none,
)
from pipelines.targets.schemas import is_schema

_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
# docs.mistral.ai text_vision_finetuning: `image_url` is a link or base64 data; from users only.
_IMAGES = ImageRules(
    formats=frozenset({"jpeg", "jpg", "png", "webp", "gif"}),
    max_images=None,
    max_bytes=None,
    links=True,
)
_AFTER = {
    "system": ("user", "assistant"),
    "user": ("user", "assistant"),
    "assistant": ("user", "assistant", "tool"),
    "tool": ("user", "assistant", "tool"),
}


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages` and `tools`.

    Call ids are 9 letters or digits, the same for the same id of a conversation. An answer is text
    or calls, never both (V3). Texts of an answer are pieces of one text, as the SDKs put them
    together, and are joined with nothing between them; so are those of a tool result. Texts of a
    user or the system are blocks of their own: an empty line stands between them, where
    mistral-common puts it for V3.
    """
    repairs: set[str] = set()
    messages = known_messages(example, repairs)
    system_first(messages)
    said = (message for message in messages if message["role"] in ("assistant", "tool"))
    join_text(said, repairs)
    join_text(messages, repairs, "\n\n")
    check_images(messages, _IMAGES)
    text_or_calls(messages)
    _check_turns(messages)
    tools = _tools(example, repairs)
    check_functions(messages, tools, max_tools=None)
    _rename_calls(messages, repairs)
    row = {"messages": [without_none(message) for message in messages], "tools": tools}
    return without_none(row), tuple(sorted(repairs))


def _check_turns(messages: list[Message]) -> None:
    # System and tools are written with the first message of a user; and the validator does not
    # see calls in the first message of all.
    if next(message["role"] for message in messages if message["role"] != "system") != "user":
        raise DroppedError("wrong_turns", "no user at the start")
    awaited = 0  # results that the calls before still need
    previous: Message | None = None
    for message in messages:
        role = message["role"]
        if previous is not None and role not in _AFTER[previous["role"]]:
            raise DroppedError("wrong_turns", f"{role} after {previous['role']}")
        if role == "tool":
            awaited -= 1
        elif role == "assistant":
            if awaited != 0:
                raise DroppedError("unanswered_tool_call")
            if not message["content"] and "tool_calls" not in message:
                raise DroppedError("empty_answer")
            awaited = len(message.get("tool_calls", ()))
        previous = message


def _rename_calls(messages: list[Message], repairs: set[str]) -> None:
    """Give every id of a call its own 9 characters; ids that have them stay."""
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    ids = {call["id"] or "": "" for call in calls}
    ids |= {message["tool_call_id"] or "": "" for message in messages if message["role"] == "tool"}
    taken = {name for name in ids if _CALL_ID.fullmatch(name)}
    for name in ids:
        ids[name] = name if name in taken else _short_id(name, taken)
        taken.add(ids[name])
    if any(old != new for old, new in ids.items()):
        repairs.add("call_ids_shortened")
    for call in calls:
        call["id"] = ids[call["id"] or ""]
    for message in messages:
        if message["role"] == "tool":
            message["tool_call_id"] = ids[message["tool_call_id"] or ""]


def _short_id(name: str, taken: set[str]) -> str:
    """Return the first 9 digits of a hash that no other id of the conversation has."""
    tries = 0
    while True:
        text = f"{tries}:{name}".encode("utf-8", "surrogatepass")
        short = hashlib.sha256(text).hexdigest()[:9]
        if short not in taken:
            return short
        tries += 1


def _tools(example: Example, repairs: set[str]) -> list[dict[str, Any]] | None:
    tools = function_tools(example, repairs)
    for tool in tools or ():
        function = tool["function"]
        if "description" not in function:
            function["description"] = ""  # what mistral-common itself takes a missing one for
            repairs.add("description_added")
        if "parameters" not in function:
            function["parameters"] = {}  # "if the function has no parameters pass an empty dict"
            repairs.add("parameters_added")
        if not is_schema(function["parameters"]):
            raise DroppedError("unsupported_tool", "parameters that are no JSON schema")
    return tools


TARGET = Target(
    name="mistral",
    to_row=to_row,
    max_file_bytes=512_000_000,
    max_rows=10_000_000,
    min_rows=10,
    source=(
        "mistral-finetune finetune/data/tokenize.py, utils/validate_data.py; mistral-common 1.13.1 "
        "MistralRequestValidatorV3; docs.mistral.ai text_vision_finetuning, known-limitations"
    ),
)
