"""Give a bundle's file to a package that reads such files, and print what it says as JSON.

Runs in the venv of requirements.lock, as its own process: `checks.py CHECK OPTIONS URL…`, where
OPTIONS are storage options as JSON. Nothing of ours is imported: the verdict is theirs.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

os.environ |= {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # `datasets` calls S3 a place on the net like any other.
    "HF_HUB_OFFLINE": "0" if any("://" in argument for argument in sys.argv[3:]) else "1",
    "TOGETHER_DISABLE_TQDM": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
Row = dict[str, Any]


class RefusedError(Exception):
    """The package takes the file but makes something else of it."""


def lines(url: str) -> list[Row]:
    """Return the rows of a local file, or of the files in a folder, as JSON reads them."""
    found = sorted(Path(url).glob("*.jsonl")) if Path(url).is_dir() else [Path(url)]
    rows = []
    for path in found:
        with path.open(encoding="utf-8", newline="\n") as file:
            rows += [json.loads(line) for line in file]
    return rows


def check_together(url: str, _options: Row) -> int:
    """Together's own check of a file before it uploads it."""
    from together.lib.utils.files import check_file

    report = check_file(url)
    if not report["is_check_passed"]:
        raise RefusedError(report["message"])
    return int(report["num_samples"])


def check_mistral(url: str, _options: Row) -> int:
    """mistral-finetune's way: the V3 validator in finetuning mode, then its tokenizer."""
    from mistral_common.protocol.instruct.messages import FinetuningMessage
    from mistral_common.protocol.instruct.normalize import InstructRequestNormalizer
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.tool_calls import Tool
    from mistral_common.protocol.instruct.validator import MistralRequestValidatorV3, ValidationMode
    from pydantic import TypeAdapter

    messages_type: TypeAdapter[Any] = TypeAdapter(list[FinetuningMessage])
    tools_type: TypeAdapter[Any] = TypeAdapter(list[Tool])
    validator: Any = MistralRequestValidatorV3(ValidationMode.finetuning)
    normalizer = InstructRequestNormalizer.normalizer()
    rows = lines(url)
    for row in rows:
        _only(row, "messages", "tools")
        # What mistral-finetune's tokenize.py asks for before it calls the validator.
        if [message["role"] for message in row["messages"]].count("system") > 1:
            raise RefusedError("more than one system message")
        for tool in row.get("tools", ()):
            if {"name", "description", "parameters"} - tool["function"].keys():
                raise RefusedError("a tool without name, description or parameters")
        messages = messages_type.validate_python(row["messages"])
        tools = tools_type.validate_python(row.get("tools", []))
        validator.validate_messages(messages)
        validator._validate_tools(tools)
        if "image_url" not in json.dumps(row["messages"]):  # V3 is a text model
            request = ChatCompletionRequest.model_construct(messages=messages, tools=tools or None)
            _mistral_tokenizer().encode_instruct(normalizer.from_chat_completion_request(request))
    return len(rows)


@cache
def _mistral_tokenizer() -> Any:
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    return MistralTokenizer.v3(is_tekken=True).instruct_tokenizer


def check_openai(url: str, _options: Row) -> int:
    """The types of OpenAI's client, with no key that they do not name."""
    from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
    from pydantic import ConfigDict, TypeAdapter

    strict = ConfigDict(extra="forbid")
    messages_type: TypeAdapter[Any] = TypeAdapter(list[ChatCompletionMessageParam], config=strict)
    tools_type: TypeAdapter[Any] = TypeAdapter(list[ChatCompletionFunctionToolParam], config=strict)
    rows = lines(url)
    for row in rows:
        given, outputs = row, []
        if "input" in row:
            _only(row, "input", "preferred_output", "non_preferred_output")
            outputs = [row["preferred_output"], row["non_preferred_output"]]
            given = row["input"]
        _only(given, "messages", "tools", "parallel_tool_calls")
        for messages in (given["messages"], *outputs):
            _visit(messages_type.validate_python(messages))
        _visit(tools_type.validate_python(given.get("tools", [])))
        # FineTuneChatRequestInput knows one role less than a chat request.
        if any(message["role"] == "developer" for message in given["messages"]):
            raise RefusedError("the role developer")
        if ([given["messages"], *outputs])[-1][-1]["role"] != "assistant":
            raise RefusedError("no answer at the end")
        _check_functions(given.get("tools", []), given["messages"], *outputs)
    return len(rows)


def _check_functions(tools: list[Row], *conversations: list[Row]) -> None:
    """What OpenAI documents of functions beside their types: how many, and their names."""
    if len(tools) > 128:
        raise RefusedError("more than 128 tools")
    named = [tool["function"]["name"] for tool in tools]
    for messages in conversations:
        for message in messages:
            named += [call["function"]["name"] for call in message.get("tool_calls", ())]
    if not all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in named):
        raise RefusedError("a name that no function may have")


def check_openpipe(url: str, _options: Row) -> int:
    """The rules by which OpenPipe takes or refuses a row, in words of our own.

    Read in parseRowsToImport.ts and shared.types.ts of OpenPipe/OpenPipe@1da9a24; the values of
    tool_choice and response_format in the API's client 5.0.0, which is newer.
    """
    rows = lines(url)
    for row in rows:
        _only(row, "messages", "tools", "tool_choice", "response_format", "split", "metadata")
        if row.get("split", "TEST") not in ("TRAIN", "TEST"):
            raise RefusedError("split")
        if not row["messages"] or row["messages"][-1]["role"] != "assistant":
            raise RefusedError("the final message must be from the assistant")
        for message in row["messages"]:
            _check_openpipe_message(message)
        _check_openpipe_request(row)
        if not all(isinstance(value, str) for value in row.get("metadata", {}).values()):
            raise RefusedError("metadata that are no strings")
    return len(rows)


def _check_openpipe_request(row: Row) -> None:
    for tool in row.get("tools", []):
        _has(tool["function"], name=str, parameters=dict | None, description=str | None)
    choice, asked = row.get("tool_choice", "none"), row.get("response_format", {"type": "text"})
    if choice not in ("none", "auto", "required"):
        _has(choice["function"], name=str)
    if asked["type"] == "json_schema":
        _has(asked["json_schema"], name=str, schema=dict | None)
    elif asked["type"] not in ("text", "json_object"):
        raise RefusedError("response_format")


_OPENPIPE: dict[str, Any] = {
    "system": str,
    "user": str | list,
    "assistant": str | None,
    "tool": str,
}


def _check_openpipe_message(message: Row) -> None:
    role: str = message["role"]
    content: Any = message.get("content")
    if role not in _OPENPIPE or not isinstance(content, _OPENPIPE[role]):
        raise RefusedError(f"content of {role}")
    called = message.get("tool_calls")
    if not content and not called:
        raise RefusedError("a message with no content, function_call, or tool_calls")
    if content and called:
        raise RefusedError("more than one of content, function_call, tool_calls")
    if role == "tool":
        _has(message, tool_call_id=str)
    for call in called or ():
        _has(call, id=str)
        _has(call["function"], name=str, arguments=str)
    for part in content if isinstance(content, list) else ():
        _has(part, text=str) if part["type"] == "text" else _has(part["image_url"], url=str)
        if part.get("image_url", {}).get("detail", "auto") not in ("auto", "low", "high"):
            raise RefusedError("detail of an image")


def _has(value: Row, **kinds: Any) -> None:
    for key, kind in kinds.items():
        if not isinstance(value.get(key), kind):
            raise RefusedError(f"{key} is of another type")


def _visit(value: Any) -> None:
    """Look at everything: pydantic checks an Iterable only while somebody reads it."""
    if isinstance(value, dict):
        for member in value.values():
            _visit(member)
    elif value is not None and not isinstance(value, str | int | float):
        for member in value:
            _visit(member)


def check_datasets(url: str, options: Row) -> int:
    """`load_dataset` of a file or a folder with a dataset card, as a whole and streaming.

    A file may be on S3, with storage options.
    """
    whole = list(_load(url, options, streaming=False))
    streamed = list(_load(url, options, streaming=True))
    _compare(streamed, whole)
    if "://" not in url:
        _compare(whole, lines(url))
    return len(whole)


def _load(url: str, options: Row, *, streaming: bool) -> Iterable[Row]:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        whence: Row = {"path": "json", "data_files": url, "storage_options": options or None}
        if Path(url).is_dir():
            whence = {"path": url}
        yield from load_dataset(**whence, split="train", streaming=streaming, cache_dir=cache)


def check_trl(url: str, options: Row) -> int:
    """TRL's functions on loaded rows, with two of the chat templates that TRL brings."""
    from importlib.resources import files

    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl.data_utils import apply_chat_template, is_conversational, maybe_extract_prompt

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0}, "?")))
    rows = list(_load(url, options, streaming=False))
    for loaded in rows:
        row = {key: value for key, value in loaded.items() if value is not None}
        if not is_conversational(row):
            raise RefusedError("not conversational")
        tools = row.pop("tools", None)
        tools = json.loads(tools) if isinstance(tools, str) else tools
        row = maybe_extract_prompt(row)
        # qwen2_5 writes arguments with tojson, glm4moe goes through their items.
        for name in ("qwen2_5", "glm4moe"):
            tokenizer.chat_template = (
                files("trl").joinpath("chat_templates", f"{name}.jinja").read_text("utf-8")
            )
            formatted = apply_chat_template(row, tokenizer, tools=tools)
            _find_text(row, "".join(formatted.values()))
    return len(rows)


def _find_text(row: Row, text: str) -> None:
    for key in ("messages", "prompt", "completion", "chosen", "rejected"):
        for message in row.get(key, ()):
            if message["content"].strip() not in text:
                raise RefusedError(f"the chat template lost a content of {key}")
            for call in message.get("tool_calls") or ():
                if '\\"' in text and isinstance(call["function"]["arguments"], str):
                    raise RefusedError("arguments are text in text")


def check_pandas(url: str, options: Row) -> int:
    """`read_json(lines=True)`."""
    import pandas

    frame = pandas.read_json(url, lines=True, storage_options=options or None)
    _compare(frame.astype(object).where(frame.notna(), None).to_dict("records"), lines(url))
    return len(frame)


def check_duckdb(url: str, _options: Row) -> int:
    """`read_json` with everything detected, and once more with every column as JSON."""
    import duckdb

    con = duckdb.connect()
    detected = con.sql("select * from read_json($1, format = 'newline_delimited')", params=[url])
    names = detected.columns
    count = len(detected.fetchall())
    typed = dict.fromkeys(names, "JSON")
    found = con.sql(
        "select * from read_json($1, format = 'newline_delimited', columns = $2)",
        params=[url, typed],
    ).fetchall()
    values = [
        {name: json.loads(text) for name, text in zip(names, row, strict=True) if text is not None}
        for row in found
    ]
    _compare(values, lines(url))
    return count


def _only(row: Row, *keys: str) -> None:
    if unknown := row.keys() - set(keys):
        raise RefusedError(f"unknown keys {sorted(unknown)}")


def _compare(found: Iterable[Any], expected: Iterable[Any]) -> None:
    """Refuse rows that came out different.

    A key without a value is as good as no key, but in the arguments of a call.
    """
    for place, (row, original) in enumerate(zip_longest(found, expected), start=1):
        if _valued(row) != _valued(original):
            raise RefusedError(f"row {place} came out different")


def _valued(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: member if key == "arguments" else _valued(member)
            for key, member in value.items()
            if member is not None
        }
    if isinstance(value, list):
        return [_valued(member) for member in value]
    return value


CHECKS: dict[str, Callable[[str, Row], int]] = {
    "datasets": check_datasets,
    "duckdb": check_duckdb,
    "mistral": check_mistral,
    "openai": check_openai,
    "openpipe": check_openpipe,
    "pandas": check_pandas,
    "together": check_together,
    "trl": check_trl,
}


def main(name: str, options: str, *urls: str) -> None:
    """Print `[{"ok", "rows", "detail"}]`, one for each URL, as the last line."""
    print(json.dumps([verdict(name, url, json.loads(options)) for url in urls]))


def verdict(name: str, url: str, options: Row) -> Row:
    """Return what a check says of one file."""
    try:
        return {"ok": True, "rows": CHECKS[name](url, options), "detail": ""}
    except Exception as exc:  # noqa: BLE001 - whatever a package raises is its verdict
        return {"ok": False, "rows": None, "detail": f"{type(exc).__name__}: {exc}"[:5000]}


if __name__ == "__main__":
    main(*sys.argv[1:])
