"""Calls of models as the benchmarks log them: requests, answers and errors, sized like real ones.

Sizes follow the quantiles of 8,257 recorded calls (requests p50 508 B, p90 5.8 kB, p99 237 kB;
responses 1.2 kB, 8.8 kB, 103 kB), and so do the 2.7 % of errors.
"""

import itertools
import json
import random
import string
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.benchmarks.prose import TextPool, make_pools

MODELS = (
    "gpt-4o-2024-08-06",
    "gpt-4o-mini",
    "gpt-4.1-mini",
    "claude-sonnet-4-20250514",
    "openpipe:support-router-v3",
    "meta-llama/Llama-3.3-70B-Instruct",
)
ERROR_SHARE = 0.027
PRETTY_SHARE = 0.4

# (share of calls, bytes): log-linear in between.
REQUEST_BYTES = ((0.0, 150), (0.5, 508), (0.9, 5_800), (0.99, 237_000), (1.0, 300_000))
RESPONSE_BYTES = ((0.0, 280), (0.5, 1_200), (0.9, 8_800), (0.99, 103_000), (1.0, 150_000))


@dataclass(frozen=True, slots=True)
class App:
    """One caller of models: its prompt, tools, languages and way of writing JSON are its own."""

    name: str
    system: str
    tools: str
    pool: TextPool
    separators: tuple[str, str]
    tags: tuple[tuple[str, str | None], ...]


class Traffic:
    """An endless, deterministic source of request and response bodies."""

    def __init__(self, rng: random.Random, *, largest_bytes: int, one_line: bool) -> None:
        self._rng = rng
        self._one_line = one_line
        self._request_sizes = _size_table(REQUEST_BYTES, largest_bytes)
        self._response_sizes = _size_table(RESPONSE_BYTES, largest_bytes)
        pools, self._results = make_pools(rng)
        self._apps = [_make_app(rng, number, pool) for number, pool in enumerate(pools)]

    def call(self, sent_at: datetime) -> dict[str, Any]:
        """Return one event: every column of `SCHEMA` by name."""
        rng = self._rng
        app = rng.choice(self._apps)
        model = rng.choice(MODELS)
        request = self._request(app, model, _draw(rng, self._request_sizes))
        received_at = sent_at + timedelta(milliseconds=rng.randint(180, 30_000))
        event: dict[str, Any] = {
            "id": _uuid(rng),
            "requestedAt": sent_at,
            "receivedAt": received_at,
            "cacheHit": rng.random() < 0.04,
            "reqPayload": request,
            "durationMs": (received_at - sent_at) // timedelta(milliseconds=1),
            "inputTokens": len(request) // 4,
            "model": model,
            "projectId": "5f1c7a52-6f0b-4b55-9d0e-3b8a0d9f2c11",
            "tags": [*app.tags, ("prompt_id", f"{app.name}-v{rng.randint(1, 4)}")],
            "createdAt": received_at,
            "updatedAt": received_at,
        }
        if rng.random() < ERROR_SHARE:
            return event | self._error()
        return event | self._answer(app, model, received_at, _draw(rng, self._response_sizes))

    def _request(self, app: App, model: str, size_bytes: int) -> str:
        rng = self._rng
        comma, colon = app.separators
        head = f'{{"model"{colon}"{model}"{comma}"messages"{colon}['
        tail = f']{comma}"temperature"{colon}{rng.choice(("0", "0.2", "0.7", "1.0"))}'
        if size_bytes > len(app.tools) + 1_000:
            tail += f'{comma}"tools"{colon}{app.tools}{comma}"tool_choice"{colon}"auto"'
        tail += f'{comma}"max_tokens"{colon}{rng.choice((256, 1024, 4096))}}}'
        room = size_bytes - len(head) - len(tail)
        messages: list[str] = []
        if room > len(app.system) + 80:
            messages.append(_message("system", app.system, app))
            room -= len(app.system) + 40
        turns = 1 + min(room // 1_500, rng.randint(0, 40)) // 2 * 2
        for turn in range(turns):
            share = max(room // turns - 40, 12)
            if turn % 2 and rng.random() < 0.4:
                call_id = _token(rng, "call_", 24)
                result = self._results.cut(rng, max(share - 220, 40))
                messages.append(_tool_call_message(call_id, app.pool.cut(rng, 60), app))
                messages.append(_tool_message(call_id, result, app))
            else:
                role = "assistant" if turn % 2 else "user"
                messages.append(_message(role, app.pool.cut(rng, share), app))
        return head + comma.join(messages) + tail

    def _answer(self, app: App, model: str, at: datetime, size_bytes: int) -> dict[str, Any]:
        rng = self._rng
        completion_id = _token(rng, "chatcmpl-", 29)
        calls_tool = rng.random() < 0.15
        finish_reason = (
            "tool_calls" if calls_tool else ("stop" if rng.random() < 0.95 else "length")
        )
        pretty = rng.random() < PRETTY_SHARE and not self._one_line
        template = _ANSWERS[calls_tool, pretty]
        text = app.pool.cut(rng, max(size_bytes - len(template), 20))
        if calls_tool:
            text = f'{{\\"query\\": \\"{_plain(text[:300])}\\", \\"limit\\": 10}}'
        tokens = len(text) // 4 + 1
        body = template % {
            "id": completion_id,
            "created": int(at.timestamp()),
            "model": model,
            "text": text,
            "call_id": _token(rng, "call_", 24),
            "finish_reason": finish_reason,
            "tokens": tokens,
            "fingerprint": _token(rng, "fp_", 10),
        }
        return {
            "respPayload": body,
            "statusCode": 200,
            "errorMessage": None,
            "outputTokens": tokens,
            "finishReason": finish_reason,
            "completionId": completion_id,
            "cost": round(tokens * 6e-07, 9),
        }

    def _error(self) -> dict[str, Any]:
        status, code, message = self._rng.choice(_ERRORS)
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        indent = None if self._one_line else 2
        body = None if status is None else json.dumps({"error": error}, indent=indent)
        return {
            "respPayload": body,
            "statusCode": status,
            "errorMessage": message,
            "outputTokens": None,
            "finishReason": None,
            "completionId": None,
            "cost": 0.0,
        }


_ERRORS = (
    (400, "context_length_exceeded", "This model's maximum context length is 16385 tokens."),
    (401, "invalid_api_key", "Incorrect API key provided."),
    (404, "model_not_found", "The model `gpt-5-nano-x` does not exist."),
    (429, "rate_limit_exceeded", "Rate limit reached for requests, please try again in 1s."),
    (500, "server_error", "The server had an error while processing your request. Sorry!"),
    (None, "", "Connection error."),
)


def _answer_template(*, calls_tool: bool, pretty: bool) -> str:
    message: dict[str, Any] = {"role": "assistant", "content": "%(text)s", "refusal": None}
    if calls_tool:
        function = {"name": "search_orders", "arguments": "%(text)s"}
        call = {"id": "%(call_id)s", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
    answer = {
        "id": "%(id)s",
        "object": "chat.completion",
        "created": "%(created)d",
        "model": "%(model)s",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "%(finish_reason)s",
            }
        ],
        "usage": {
            "prompt_tokens": 1830,
            "completion_tokens": "%(tokens)d",
            "total_tokens": 2210,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "%(fingerprint)s",
    }
    separators = None if pretty else (",", ":")
    text = json.dumps(answer, indent=2 if pretty else None, separators=separators)
    return text.replace('"%(created)d"', "%(created)d").replace('"%(tokens)d"', "%(tokens)d")


_ANSWERS = {
    (calls_tool, pretty): _answer_template(calls_tool=calls_tool, pretty=pretty)
    for calls_tool in (False, True)
    for pretty in (False, True)
}


def _size_table(quantiles: tuple[tuple[float, int], ...], largest_bytes: int) -> list[int]:
    """Spell out a quantile function in thousandths, capped."""
    table: list[int] = []
    for (low, low_bytes), (high, high_bytes) in itertools.pairwise(quantiles):
        steps = round((high - low) * 1_000)
        for step in range(steps):
            size_bytes = low_bytes * (high_bytes / low_bytes) ** ((step + 0.5) / steps)
            table.append(min(int(size_bytes), largest_bytes))
    return table


def _draw(rng: random.Random, table: list[int]) -> int:
    return table[int(rng.random() * len(table))]


def _make_app(rng: random.Random, number: int, pool: TextPool) -> App:
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"{verb}_{noun}",
                "description": f"Use this to {verb} {noun} of the customer's account.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "query": {"type": "string", "description": f"What {noun} to {verb}."},
                        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                    },
                    "required": ["query"],
                    "additionalProperties": False,
                },
            },
        }
        for verb, noun in itertools.islice(
            itertools.product(("search", "update", "cancel"), ("orders", "invoices", "refunds")),
            2 + number % 7,
        )
    ]
    separators = (", ", ": ") if number % 2 else (",", ":")
    tags: list[tuple[str, str | None]] = [("app", f"app-{number}")]
    if number % 3 == 0:
        tags += [("$sdk", "python"), ("$sdk.version", "5.0.0")]
    if number % 5 == 0:
        tags.append(("experiment", None))
    return App(
        name=f"app-{number}",
        system=pool.cut(rng, rng.choice((200, 400, 900, 2_500))),
        tools=json.dumps(tools, separators=separators),
        pool=pool,
        separators=separators,
        tags=tuple(tags),
    )


def _message(role: str, text: str, app: App) -> str:
    comma, colon = app.separators
    return f'{{"role"{colon}"{role}"{comma}"content"{colon}"{text}"}}'


def _tool_call_message(call_id: str, query: str, app: App) -> str:
    comma, colon = app.separators
    return (
        f'{{"role"{colon}"assistant"{comma}"content"{colon}null{comma}"tool_calls"{colon}['
        f'{{"id"{colon}"{call_id}"{comma}"type"{colon}"function"{comma}"function"{colon}'
        f'{{"name"{colon}"search_orders"{comma}"arguments"{colon}'
        f'"{{\\"query\\": \\"{_plain(query)}\\"}}"}}}}]}}'
    )


def _tool_message(call_id: str, result: str, app: App) -> str:
    comma, colon = app.separators
    return (
        f'{{"role"{colon}"tool"{comma}"tool_call_id"{colon}"{call_id}"{comma}'
        f'"content"{colon}"{result}"}}'
    )


def _plain(text: str) -> str:
    """Drop escapes and quotes, so that the text can stand inside a string in a string."""
    return text.replace("\\", "").replace('"', "")


def _uuid(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _token(rng: random.Random, prefix: str, length: int) -> str:
    return prefix + "".join(rng.choices(string.ascii_letters + string.digits, k=length))
