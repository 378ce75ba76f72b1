"""Raw request logs for the benchmarks: deterministic, quick to make, shaped like real traffic.

    python -m tests.benchmarks.generate DIRECTORY --gb 1 --batches 25

Columns are OpenPipe's `LoggedCall`. Sizes follow the quantiles of 8,257 recorded calls (requests
p50 508 B, p90 5.8 kB, p99 237 kB; responses 1.2 kB, 8.8 kB, 103 kB), and so do the 2.7 % of
errors. The largest tenth is scaled down where a batch could not hold it. Text is sliced out of
pools of random paragraphs, so making it costs little more than writing it.
"""

import argparse
import bisect
import itertools
import json
import random
import string
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("requestedAt", pa.timestamp("us", tz="UTC")),
        ("receivedAt", pa.timestamp("us", tz="UTC")),
        ("cacheHit", pa.bool_()),
        ("reqPayload", pa.string()),
        ("respPayload", pa.string()),
        ("statusCode", pa.int32()),
        ("errorMessage", pa.string()),
        ("durationMs", pa.int32()),
        ("inputTokens", pa.int32()),
        ("outputTokens", pa.int32()),
        ("finishReason", pa.string()),
        ("completionId", pa.string()),
        ("model", pa.string()),
        ("cost", pa.float64()),
        ("projectId", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("createdAt", pa.timestamp("us", tz="UTC")),
        ("updatedAt", pa.timestamp("us", tz="UTC")),
    ]
)
FIRST_AT = datetime(2023, 12, 15, tzinfo=UTC)
DAYS = 4
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
ROW_GROUP_EVENTS = 20_000
ROW_GROUP_BYTES = 64 << 20
POOL_BYTES = 12 << 20

# (share of calls, bytes): log-linear in between.
REQUEST_BYTES = ((0.0, 150), (0.5, 508), (0.9, 5_800), (0.99, 237_000), (1.0, 300_000))
RESPONSE_BYTES = ((0.0, 280), (0.5, 1_200), (0.9, 8_800), (0.99, 103_000), (1.0, 150_000))

_ENGLISH = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other time new some "
    "could these two may first then do any like my now over such our man me even most made after "
    "also did many off before must well back through years much where your way down should "
    "because long each just state people those too mr how little good world make very year still "
    "see own work men day get here old life both between being under three never know same last "
    "another while us might great go come since against right came take used himself few house "
    "American use place during high without again home around small however found Mrs part school "
    "thought went say general once upon war every does got united left number course until always "
    "away something fact water though less public put thing almost hand enough far took head yet "
    "better display modern order invoice customer delivery refund account address request model "
    "answer question table column value function return error please provide summary following "
    "example response system user data information details result list steps issue ticket team"
)
_FRENCH = (
    "le la les été déjà où être à très près élève naïve façon leçon garçon forêt hôtel côté vœu "
    "œuvre modèle réponse requête données problème système commande livraison facture problème "
    "après même année idée café société numéro général intérêt qualité sécurité propriété"
)
_JAPANESE = (
    "東京 大阪 注文 配送 請求書 お客様 返金 住所 質問 回答 モデル 関数 エラー 要約 データ 情報 "
    "結果 手順 問題 担当 確認 ありがとうございます してください について 以下の 例えば "
    "日本語 です。 ます。"
)


@dataclass(frozen=True, slots=True)
class Generated:
    """What one call of `generate` wrote; `raw_bytes` counts both payload columns."""

    batches: tuple[Path, ...]
    events: int
    raw_bytes: int


class TextPool:
    """Text that is already escaped for a JSON string, sliced at sentence ends."""

    def __init__(self, sentences: Iterator[str], size_bytes: int) -> None:
        pieces: list[str] = []
        offsets = [0]
        for sentence in sentences:
            if offsets[-1] >= size_bytes:
                break
            pieces.append(sentence)
            offsets.append(offsets[-1] + len(sentence))
        self._text = "".join(pieces)
        self._offsets = offsets
        self._bytes_per_char = len(self._text.encode()) / len(self._text)

    def cut(self, rng: random.Random, size_bytes: int) -> str:
        """Return whole sentences of about `size_bytes`, at least one."""
        chars = min(int(size_bytes / self._bytes_per_char), self._offsets[-1] // 2)
        start = bisect.bisect_left(self._offsets, rng.random() * (self._offsets[-1] - chars))
        start = min(start, len(self._offsets) - 2)
        end = bisect.bisect_left(self._offsets, self._offsets[start] + chars, lo=start + 1)
        return self._text[self._offsets[start] : self._offsets[min(end, len(self._offsets) - 1)]]


@dataclass(frozen=True, slots=True)
class App:
    """One caller of models: its prompt, tools, languages and way of writing JSON are its own."""

    name: str
    system: str
    tools: str
    pool: TextPool
    separators: tuple[str, str]
    tags: tuple[tuple[str, str | None], ...]


def generate(
    directory: Path,
    *,
    raw_bytes: int,
    batches: int,
    seed: int = 7,
    hostile: float = 0.0,
    one_line: bool = False,
) -> Generated:
    """Write `batches` Parquet files of about `raw_bytes` of payloads in all, sorted by time.

    Args:
        directory: made if missing; files are `batch-00000.parquet` and so on.
        raw_bytes: JSON text of both payload columns, before Parquet's compression.
        batches: number of files.
        seed: same seed and sizes, same events.
        hostile: share of the payloads that are spoilt so that they are not strict JSON.
        one_line: no payload is pretty-printed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)  # noqa: S311 - test data, not secrets
    largest_bytes = max(raw_bytes // batches // 8, 4_000)
    traffic = Traffic(rng, largest_bytes=largest_bytes, one_line=one_line)
    span = timedelta(days=DAYS) / batches
    paths: list[Path] = []
    events = written_bytes = 0
    for number in range(batches):
        path = directory / f"batch-{number:05}.parquet"
        budget = (raw_bytes - written_bytes) // (batches - number)
        batch_events, batch_bytes = _write_batch(
            path,
            traffic,
            rng,
            budget_bytes=budget,
            start=FIRST_AT + span * number,
            span=span,
            hostile=hostile,
        )
        paths.append(path)
        events += batch_events
        written_bytes += batch_bytes
    return Generated(tuple(paths), events, written_bytes)


class Traffic:
    """An endless, deterministic source of request and response bodies."""

    def __init__(self, rng: random.Random, *, largest_bytes: int, one_line: bool) -> None:
        self._rng = rng
        self._one_line = one_line
        self._request_sizes = _size_table(REQUEST_BYTES, largest_bytes)
        self._response_sizes = _size_table(RESPONSE_BYTES, largest_bytes)
        words = _ENGLISH.split() + _made_up_words(rng, 5_000)
        english = TextPool(_sentences(rng, words), POOL_BYTES)
        accented = TextPool(_sentences(rng, words[:400] + _FRENCH.split() * 4), POOL_BYTES // 8)
        japanese = TextPool(_sentences(rng, _JAPANESE.split() + words[:40]), POOL_BYTES // 8)
        ascii_only = TextPool(
            map(_escape_non_ascii, _sentences(rng, words[:300] + _FRENCH.split() * 3)),
            POOL_BYTES // 8,
        )
        self._results = TextPool(_tool_results(rng, words), POOL_BYTES // 2)
        pools = [english] * 9 + [accented, japanese, ascii_only]
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


def spoil(text: str, way: int) -> str:
    """Return `text`, an object, made into something that is not strict JSON; `way` picks how."""
    return _SPOILERS[way % len(_SPOILERS)](text)


_SPOILERS: tuple[Callable[[str], str], ...] = (
    lambda text: text[:-1].rstrip() + ",}",
    lambda text: text[:-1].rstrip() + ", \n}",
    lambda text: text[:-1] + ', "score": NaN}',
    lambda text: text[:-1] + ', "score": -Infinity}',
    lambda text: text[:-1] + ', "half": "\\ud83d"}',
    lambda text: text[:-1] + ', "control": "\x01"}',
    lambda text: "\ufeff" + text,
    lambda text: "/* logged */ " + text,
    lambda text: text[: len(text) * 2 // 3],
    lambda text: text.replace('"', "'"),
    lambda text: "{" + text,
    lambda text: text + "\n" + text,
)

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


def _write_batch(
    path: Path,
    traffic: Traffic,
    rng: random.Random,
    *,
    budget_bytes: int,
    start: datetime,
    span: timedelta,
    hostile: float,
) -> tuple[int, int]:
    """Write one batch; return its number of events and bytes of payloads."""
    bodies: list[dict[str, Any]] = []
    group_bytes = written_bytes = events = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while written_bytes < budget_bytes:
            sent_at = start + span * (written_bytes / budget_bytes)
            event = traffic.call(sent_at.replace(microsecond=rng.randrange(1_000_000)))
            for column in ("reqPayload", "respPayload"):
                if hostile and event[column] and rng.random() < hostile:
                    event[column] = spoil(event[column], rng.randrange(len(_SPOILERS)))
            size_bytes = len((event["reqPayload"] + (event["respPayload"] or "")).encode())
            bodies.append(event)
            events += 1
            written_bytes += size_bytes
            group_bytes += size_bytes
            if len(bodies) == ROW_GROUP_EVENTS or group_bytes >= ROW_GROUP_BYTES:
                _write_row_group(writer, bodies)
                bodies, group_bytes = [], 0
        if bodies:
            _write_row_group(writer, bodies)
    return events, written_bytes


def _write_row_group(writer: pq.ParquetWriter, events: list[dict[str, Any]]) -> None:
    events.sort(key=lambda event: event["requestedAt"])
    writer.write_table(pa.Table.from_pylist(events, schema=SCHEMA))


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


def _made_up_words(rng: random.Random, count: int) -> list[str]:
    onsets = (*"bcdfghlmnprstvw", "st", "tr", "pl", "ch", "sh", "br")
    vowels = (*"aeiou", "ea", "ou", "io")
    codas = ("", "n", "r", "s", "t", "l", "nd", "ng", "tion", "ment", "ly", "ed")
    return [
        "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.choice((1, 2, 2, 3))))
        + rng.choice(codas)
        for _ in range(count)
    ]


def _sentences(rng: random.Random, words: list[str]) -> Iterator[str]:
    """Endless escaped sentences; phrases repeat, as they do in real text."""
    weights = [1 / (rank + 8) for rank in range(len(words))]
    drawn = rng.choices(words, weights, k=120_000)
    phrases = [" ".join(drawn[at : at + 3]) for at in range(0, len(drawn), 3)]
    ranks = [1 / (rank + 60) for rank in range(len(phrases))]
    ends = (". ", ". ", ". ", "? ", ": ", ".\\n", ".\\n\\n", ".\\n- ", ".\\n\\n```\\n\\t")
    while True:
        picked = rng.choices(phrases, ranks, k=4_096)
        at = 0
        while at < len(picked) - 6:
            length = rng.randint(2, 6)
            sentence = " ".join(picked[at : at + length])
            at += length
            style = rng.random()
            if style < 0.08:
                sentence = f'he said \\"{sentence}\\"'
            elif style < 0.25:
                sentence = sentence.replace(" ", ", ", 1)
            elif style < 0.3:
                sentence = f"{rng.randint(1, 99_999)} {sentence} ({rng.random():.4f})"
            yield sentence[:1].upper() + sentence[1:] + rng.choice(ends)


def _tool_results(rng: random.Random, words: list[str]) -> Iterator[str]:
    """Endless escaped JSON objects, as tools return them inside a string."""
    while True:
        result = {
            "id": rng.randrange(10**9),
            "title": " ".join(rng.choices(words[:600], k=5)),
            "price": round(rng.random() * 500, 2),
            "tags": rng.choices(words[:200], k=3),
            "updated": f"2023-12-{rng.randint(1, 28):02}T{rng.randrange(24):02}:00:00Z",
            "active": rng.random() < 0.5,
            "parent": None,
        }
        yield json.dumps(json.dumps(result))[1:-1] + "\\n"


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


def _escape_non_ascii(text: str) -> str:
    return "".join(char if char.isascii() else f"\\u{ord(char):04x}" for char in text)


def _uuid(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _token(rng: random.Random, prefix: str, length: int) -> str:
    return prefix + "".join(rng.choices(string.ascii_letters + string.digits, k=length))


def main(arguments: list[str] | None = None) -> None:
    """Write batches from the command line and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gb", type=float, default=1.0, help="gigabytes of payload text")
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--hostile", type=float, default=0.0, help="share of payloads to spoil")
    parser.add_argument("--one-line", action="store_true", help="pretty-print no payload")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    made = generate(
        options.directory,
        raw_bytes=int(options.gb * 1e9),
        batches=options.batches,
        seed=options.seed,
        hostile=options.hostile,
        one_line=options.one_line,
    )
    seconds = time.perf_counter() - start
    stored_bytes = sum(path.stat().st_size for path in made.batches)
    sys.stdout.write(
        f"{len(made.batches)} batches, {made.events:,} events, {made.raw_bytes / 1e6:,.0f} MB of"
        f" payloads in {stored_bytes / 1e6:,.0f} MB of Parquet,"
        f" {made.raw_bytes / 1e6 / seconds:,.0f} MB/s\n"
    )


if __name__ == "__main__":
    main()
