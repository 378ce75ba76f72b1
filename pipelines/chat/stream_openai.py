"""Merge the streams of OpenAI's two chat APIs, and of the many that speak like the first."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from pipelines.chat.stream_events import as_index, as_list, as_object, cut_off, refuse

_NEVER = frozenset({"choices", "object", "obfuscation"})
_LATEST = frozenset({"usage", "system_fingerprint"})
_ONCE = frozenset({"role", "id", "type", "index"})  # proxies repeat them in each chunk
_FINAL = ("response.completed", "response.incomplete", "response.failed")
_NO_TEXT = {"text": ""}
_TEXT_KEYS = {"type", "text"}


class _Text(list[str]):
    """A string in pieces, joined once: adding to a long string again and again is quadratic."""


def merge_chat(chunks: Sequence[dict[str, Any]], *, done: bool) -> dict[str, Any]:
    """Return the chat completion of `chat.completion.chunk` objects.

    As `openai.lib.streaming.chat` accumulates, except that roles, ids and names which a proxy
    repeats are not strung together. A choice without a finish_reason is cut off even where `[DONE]`
    came (`done`): proxies send it when the model's stream breaks off, and servers that end an
    answer say why.
    """
    head, choices = dict[str, Any](), dict[int, dict[str, Any]]()
    for chunk in chunks:
        _add_head(head, chunk)
        # Azure's first chunk and the usage's last one have no choices.
        for choice in map(as_object, as_list(chunk.get("choices") or [])):
            index = as_index(choice.get("index", 0))
            _add_choice(choices.setdefault(index, {"index": index, "message": {}}), choice)
    if not all(choice.get("finish_reason") for choice in choices.values()):
        raise cut_off("no finish_reason")
    if not choices and not done:
        raise cut_off("neither [DONE] nor a choice")
    return {
        **head,
        "object": "chat.completion",
        "choices": [_settle_choice(choices[index]) for index in sorted(choices)],
    }


def merge_responses(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the response that the last event of the Responses API carries."""
    for event in events:
        if event.get("type") in _FINAL:
            return as_object(event.get("response"))
    raise cut_off("no response.completed")


def _add_head(head: dict[str, Any], chunk: dict[str, Any]) -> None:
    for key, value in chunk.items():
        if key in _NEVER or (value is None and key in head):
            continue
        if key in _LATEST or not head.get(key):  # Azure's first chunk has `"id": ""`
            head[key] = value


def _add_choice(into: dict[str, Any], choice: dict[str, Any]) -> None:
    for key, value in choice.items():
        if key in {"index", "message"}:
            continue
        if key == "delta":
            _add_delta(into["message"], as_object(value or {}))
        elif key == "logprobs":
            if value:
                into[key] = into.get(key) or {}
                _add_delta(into[key], as_object(value))
        elif value:
            into[key] = value


def _add_delta(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        before = into.get(key)
        if value is None or (before and key in _ONCE):
            into.setdefault(key, None)
        elif key == "tool_calls":
            into[key] = before or []
            _add_calls(into[key], as_list(value))
        elif key in _ONCE:
            into[key] = value
        elif before is None:
            into[key] = _first(value)
        elif key != "name" or _settle(before) != value:
            into[key] = _more(before, value)


def _more(before: Any, value: Any) -> Any:
    match before, value:
        case _Text(), str():
            before.append(value)
        case dict(), dict():
            _add_delta(before, value)
        case _Text(), list():
            first = [{"type": "text", "text": before}] if any(before) else []
            return _joined(first, map(as_object, value))
        case list(), str():
            return _joined(before, [{"type": "text", "text": value}])
        case list(), list():
            return _joined(before, value)
        case (int() | float(), int() | float()):
            return value
        case _:
            refuse("a delta of another type than the one before")
    return before


def _first(value: Any) -> Any:
    if isinstance(value, str):
        return _Text([value])
    if isinstance(value, dict):
        into = dict[str, Any]()
        _add_delta(into, value)
        return into
    return _joined([], value) if isinstance(value, list) else value


def _joined(parts: list[Any], more: Iterable[Any]) -> list[Any]:
    """Add parts; a text goes on with the text before it, as Mistral's are pieces of one."""
    for part in more:
        last = parts[-1] if parts else None
        if not _is_text(part, str):
            parts.append(part)
        elif _is_text(last, _Text) and last | _NO_TEXT == part | _NO_TEXT:
            last["text"].append(part["text"])
        else:
            parts.append(part | {"text": _Text([part["text"]])})
    return parts


def _is_text(part: Any, kind: type) -> TypeGuard[dict[str, Any]]:
    is_part = isinstance(part, dict) and part.get("type") == "text"
    return is_part and isinstance(part.get("text"), kind)


def _add_calls(calls: list[dict[str, Any]], fragments: list[Any]) -> None:
    for fragment in map(as_object, fragments):
        index = fragment.get("index")
        same = [call for call in calls if index is None or call["index"] == as_index(index)]
        call = same[-1] if same else None
        # Some servers give every call of an answer the same index, or none: a new id is a new call.
        if call is None or (
            fragment.get("id") and call.get("id") not in (None, "", fragment["id"])
        ):
            call = {"index": len(calls) if index is None else as_index(index)}
            calls.append(call)
        _add_delta(call, {key: value for key, value in fragment.items() if key != "index"})


def _settle_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, **choice["message"]}
    message["role"] = message["role"] or "assistant"
    message["content"] = _plain(message["content"])
    if calls := message.get("tool_calls"):
        ordered = sorted(calls, key=lambda call: as_index(call["index"]))
        message["tool_calls"] = [
            {"type": "function"} | {key: value for key, value in call.items() if key != "index"}
            for call in ordered
        ]
    else:
        message.pop("tool_calls", None)
    if message.get("function_call", ...) is None:
        del message["function_call"]
    settled = {"logprobs": None, "finish_reason": None, **choice, "message": message}
    return as_object(_settle(settled))


def _plain(content: Any) -> Any:
    """Return the text of a list of nothing but that one text."""
    if isinstance(content, _Text) or not isinstance(content, list) or len(content) != 1:
        return content
    (part,) = content
    return part["text"] if _is_text(part, _Text) and part.keys() == _TEXT_KEYS else content


def _settle(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {key: _settle(item) for key, item in value.items()}
    return [_settle(item) for item in value] if isinstance(value, list) else value
