"""Merge the stream of Gemini's `streamGenerateContent`."""

from collections.abc import Iterable
from typing import Any

from pipelines.chat.stream_events import (
    as_index,
    as_list,
    as_object,
    as_text,
    check_error,
    cut_off,
    load_json,
)

# CONTINUATION: the server asks for another call that goes on with the answer.
_OPEN = (None, "", "FINISH_REASON_UNSPECIFIED", "CONTINUATION")
_TEXT_KEYS = frozenset({"text", "thought"})


def merge_gemini(chunks: Iterable[Any]) -> dict[str, Any]:
    """Return the response of `GenerateContentResponse` chunks: their parts, the last of the rest.

    Text that follows text becomes one part, thoughts apart; a part that carries a signature
    stays alone, as https://ai.google.dev/gemini-api/docs/thought-signatures asks.
    """
    merged, candidates = dict[str, Any](), dict[int, dict[str, Any]]()
    for chunk in map(as_object, chunks):
        check_error(chunk)
        merged |= {key: value for key, value in chunk.items() if key != "candidates"}
        for candidate in map(as_object, as_list(chunk.get("candidates") or [])):
            index = as_index(candidate.get("index", 0))
            _add_candidate(candidates.setdefault(index, {}), candidate)
    if not candidates and not as_object(merged.get("promptFeedback") or {}).get("blockReason"):
        raise cut_off("no candidate")
    if any(candidate.get("finishReason") in _OPEN for candidate in candidates.values()):
        raise cut_off("no finishReason")
    settled = [_settle(candidates[index]) for index in sorted(candidates)]
    return {"candidates": settled, **merged} if settled else merged


def load_chunks(text: str) -> list[Any]:
    """Return the chunks of the JSON array that Gemini sends without `alt=sse`."""
    if not text.rstrip().endswith("]"):
        raise cut_off("an array without its end")
    return as_list(load_json(text))


def _add_candidate(into: dict[str, Any], candidate: dict[str, Any]) -> None:
    _add_content(into, as_object(candidate.get("content") or {}))
    known = {key: value for key, value in candidate.items() if value is not None}
    into.update(known | {"content": into["content"]})


def _add_content(into: dict[str, Any], content: dict[str, Any]) -> None:
    merged = into.setdefault("content", {"parts": []})
    for key, value in content.items():
        if key != "parts":
            merged[key] = value
            continue
        for part in map(as_object, as_list(value or [])):
            into.pop("finishReason", None)  # no end, if more comes after it
            _add_part(merged["parts"], part)


def _add_part(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    last = parts[-1] if parts else {}
    if _is_text(part) and _is_text(last) and bool(part.get("thought")) == bool(last.get("thought")):
        last["text"].append(as_text(part["text"]))
    elif _is_text(part):
        parts.append(part | {"text": [as_text(part["text"])]})
    else:
        parts.append(part)


def _is_text(part: dict[str, Any]) -> bool:
    return "text" in part and part.keys() <= _TEXT_KEYS


def _settle(candidate: dict[str, Any]) -> dict[str, Any]:
    content = candidate["content"]
    parts = [
        part | {"text": "".join(part["text"])} if _is_text(part) else part
        for part in content["parts"]
    ]
    return candidate | {"content": content | {"parts": parts}}
