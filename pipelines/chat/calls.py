"""Tool calls and their results: ids where none were recorded, and every call answered in time."""

from collections.abc import Iterator

from pipelines.chat.example import DroppedError, Message

_MINTED = "call_ids_minted"


def pair_calls(messages: list[Message], repairs: list[str]) -> list[Message]:
    """Return the messages with an id on every call and every result.

    Calls recorded without an id get `call_0001`, …; a result without an id belongs to the first
    such call that is still open, of its name if it has one.

    Raises:
        DroppedError: a result without a call, or a call without a result before the next turn.
    """
    ids = _fresh_ids(messages)
    paired: list[Message] = []
    open_calls: list[_Call] = []
    for message in messages:
        if message["role"] == "tool":
            call = _call_of(message, open_calls)
            open_calls.remove(call)
            paired.append({**message, "tool_call_id": call[0]})
            continue
        if open_calls:
            raise DroppedError("unanswered_tool_call")
        calls = message.get("tool_calls") or []
        if not calls:
            paired.append(message)
            continue
        named = [call if call["id"] else {**call, "id": next(ids)} for call in calls]
        if named != calls:
            repairs.append(_MINTED)
        paired.append({**message, "tool_calls": named})
        open_calls = [
            (new["id"], new["function"]["name"], not old["id"])
            for old, new in zip(calls, named, strict=True)
        ]
    return paired


_Call = tuple[str, str, bool]  # id, name, whether the id is ours


def _fresh_ids(messages: list[Message]) -> Iterator[str]:
    """Yield call_0001, … without the ids that were recorded."""
    taken = {call["id"] for message in messages for call in message.get("tool_calls") or []}
    number = 0
    while True:
        number += 1
        if (fresh := f"call_{number:04}") not in taken:
            yield fresh


def _call_of(result: Message, open_calls: list[_Call]) -> _Call:
    """Return the open call that a result answers."""
    call_id, name = result.get("tool_call_id"), result.get("name")
    for call in open_calls:
        if call[0] == call_id or (not call_id and call[2] and name in (None, call[1])):
            return call
    raise DroppedError("orphan_tool_result")
