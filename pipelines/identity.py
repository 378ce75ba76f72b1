"""What tells examples and records from others: hashes of what they say, not of how it was spelt."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.chat.example import Example, Message


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells an example from others, as hashes.

    Attributes:
        conversation: of all messages.
        prefixes: of the messages up to each earlier answer: what a shorter log would have been.
        input: of messages, tools, tool_choice and response_format before the answer.
        opening: of the messages that all logs of a conversation begin with.
    """

    conversation: bytes
    prefixes: tuple[bytes, ...]
    input: bytes
    opening: bytes


def identify(example: Example) -> Identity:
    """Return the hashes of an example; ids of tool calls and the spelling of JSON do not count."""
    # With other tools or another format the same answer is another lesson.
    chain, prefixes = hash_of([example.tools, example.response_format]), []
    ordinals: dict[str, int] = {}
    plain = [_plain(message, ordinals) for message in example.messages]
    before, answer = plain[: -example.answer_size], plain[-example.answer_size :]
    for message in before:
        chain = hash_of(message, chain)
        if message[0] == "assistant":
            prefixes.append(chain)
    asked = hash_of(example.tool_choice, chain)
    for message in answer:
        chain = hash_of(message, chain)
    return Identity(chain, tuple(prefixes), asked, hash_of(_opening(before)))


def identify_line(line: bytes, opening: bytes | None) -> Identity:
    """Return the identity of a record that is taken as it is, with its conversation's opening."""
    key = hashlib.blake2b(line, digest_size=16).digest()
    return Identity(key, (), key, opening or key)


def hash_of(value: object, before: bytes = b"") -> bytes:
    """Return the hash of plain data, whatever the order of keys, after what was hashed `before`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(before + text.encode(), digest_size=16).digest()


def _opening(before: Sequence[list[Any]]) -> list[list[Any]]:
    """The messages up to the first of a user.

    Where the assistant speaks first, what stands before: a log that ends with those words has
    the same opening as the logs that go on.
    """
    for place, (role, *_) in enumerate(before):
        if role == "user":
            return list(before[: place + 1])
        if role == "assistant":
            return list(before[: place or 1])
    return list(before)


def _plain(message: Message, ordinals: dict[str, int]) -> list[Any]:
    """What a message says, however it was spelt; ids of calls count as their place among them."""
    content = message.get("content")
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = "".join(part["text"] for part in content)
    calls = []
    for call in message.get("tool_calls") or ():
        ordinals[call["id"]] = len(ordinals)
        calls.append([call["function"]["name"], _value(call["function"].get("arguments"))])
    role = "system" if message["role"] == "developer" else message["role"]
    result_of = ordinals.get(message.get("tool_call_id", ""))
    return [role, content or "", calls, message.get("name"), result_of]


def _value(arguments: Any) -> Any:
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments
