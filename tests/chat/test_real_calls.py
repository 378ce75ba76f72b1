"""What becomes of the 300 real calls that the package bundles, each drop looked at."""

import json
from collections import Counter

import pytest

from pipelines.chat.example import REASONS
from tests.chat.recorded import convert, outcome, real_calls

TABLE = {
    # The three errors and three prompts of the API before Messages.
    ("anthropic", "completions"): {"error_output": 3, "not_chat": 3},
    # 3 documents with citations, 1 search result in a tool's result, 1 tool added in mid-talk.
    ("anthropic", "messages"): {
        "converted": 35,
        "error_output": 4,
        "finish_length": 4,
        "unsupported_content": 5,
    },
    ("aws_bedrock", "converse"): {"converted": 11, "error_output": 1, "finish_length": 4},
    # Titan's inputText is a prompt.
    ("aws_bedrock", "invoke_model"): {"converted": 7, "finish_length": 4, "not_chat": 1},
    ("azure", "chat_completions"): {
        "converted": 12,
        "error_output": 1,
        "finish_content_filter": 1,
    },
    ("azure", "embeddings"): {"error_output": 1, "not_chat": 1},
    ("deepseek", "chat_completions"): {"converted": 2},
    ("google_gemini", "generate_content"): {"converted": 11},
    ("google_gemini", "interactions"): {"not_chat": 3},
    ("google_vertex", "generate_content"): {"converted": 4},
    ("local", "chat_completions"): {"converted": 3},
    ("local", "completions"): {"not_chat": 2},
    # Four were asked with n=2.
    ("openai", "chat_completions"): {
        "converted": 121,
        "error_output": 4,
        "finish_length": 2,
        "several_choices": 4,
    },
    ("openai", "completions"): {"not_chat": 2},
    ("openai", "embeddings"): {"error_output": 2},
    # OpenAI's code interpreter (2), tool search (4) and tools without JSON arguments (2).
    ("openai", "responses"): {
        "converted": 32,
        "error_output": 1,
        "finish_length": 1,
        "unsupported_tool": 8,
    },
}


@pytest.fixture(scope="module")
def outcomes():
    counts: dict[tuple[str, str], Counter[str]] = {}
    for call in real_calls():
        key = (call["tags"]["provider"], call["tags"]["kind"])
        counts.setdefault(key, Counter())[outcome(call["input"], call["output"])] += 1
    return counts


@pytest.mark.parametrize("key", TABLE, ids="/".join)
def test_each_real_call_converts_or_drops_for_its_reason(outcomes, key):
    assert outcomes[key] == TABLE[key]


def test_the_table_holds_every_real_call(outcomes):
    total: Counter[str] = sum(outcomes.values(), Counter())

    assert outcomes.keys() == TABLE.keys()
    assert total.total() == 300
    assert total.keys() - {"converted"} <= set(REASONS)


def test_real_examples_are_json_and_end_with_the_answer():
    kept = [call for call in real_calls() if outcome(call["input"], call["output"]) == "converted"]
    examples = [convert(call["input"], call["output"], call["tags"]) for call in kept]

    assert {example.messages[-1]["role"] for example in examples} == {"assistant"}
    for example in examples:
        json.dumps([*example.messages, *(example.tools or ())], allow_nan=False)


def test_repairs_of_the_real_calls_are_counted():
    repairs: Counter[str] = Counter()
    for call in real_calls():
        if outcome(call["input"], call["output"]) == "converted":
            repairs.update(convert(call["input"], call["output"]).repairs)

    assert repairs == {
        "reasoning_removed": 22,
        "call_ids_minted": 9,
        "functions_to_tools": 2,
        "empty_tool_calls_removed": 2,
    }


def _texts(value):
    """Every string in a payload."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_no_text_is_invented():
    for call in real_calls():
        if isinstance(call["output"], str) or outcome(call["input"], call["output"]) != "converted":
            continue
        recorded = {*_texts(call["input"]), *_texts(call["output"])}
        for message in convert(call["input"], call["output"]).messages:
            if isinstance(message["content"], str) and message["role"] != "tool":
                assert message["content"] in recorded
