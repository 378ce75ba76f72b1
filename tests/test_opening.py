"""One conversation, one opening, whatever came of each of its calls."""

import json
from contextlib import suppress

import pytest

from pipelines.chat.convert import to_example
from pipelines.chat.example import DroppedError, Example
from pipelines.identity import identify
from pipelines.opening import opening_of
from tests.chat.recorded import real_calls

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "A"}
TEXT = {"type": "text", "text": "q"}
MORE = {"role": "user", "content": "more"}


def spoken(role, text):
    return {"role": role, "parts": [{"text": text}]}


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(
            [
                {"messages": [SYSTEM, USER]},
                {"messages": [SYSTEM, USER, ANSWER, MORE], "n": 2},
                {"messages": [{**SYSTEM, "role": "developer"}, USER, {"role": "nobody"}]},
                json.dumps({"body": {"messages": [SYSTEM, USER | {"content": [TEXT]}]}}),
                {"system": "Be brief.", "messages": [USER, ANSWER, MORE], "max_tokens": 9},
                {
                    "system": [{"text": "Be brief."}],
                    "messages": [{"role": "user", "content": [{"text": "q"}]}],
                },
                {"instructions": "Be brief.", "input": "q"},
                {"instructions": "Be brief.", "input": [USER, {"type": "reasoning"}, MORE]},
                {"contents": "q", "config": {"system_instruction": "Be brief.", "seed": 1}},
                {"systemInstruction": spoken("", "Be brief."), "contents": [spoken("user", "q")]},
            ],
            id="any-api",
        ),
        pytest.param(
            [
                {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
                {
                    "messages": [{"role": "user", "content": [{"type": "input_audio"}]}, ANSWER],
                    "model": "m",
                },
            ],
            id="what-cannot-train",
        ),
        pytest.param(
            [
                {"messages": [SYSTEM]},
                {"messages": [SYSTEM, ANSWER]},
                {"messages": [SYSTEM, ANSWER, USER]},
            ],
            id="assistant-first",
        ),
        pytest.param([{"messages": [ANSWER]}, {"messages": [ANSWER, USER]}], id="bare-greeting"),
        pytest.param(
            [
                {"contents": [spoken("model", "A")]},
                {"contents": [spoken("model", "A"), spoken("user", "q")]},
            ],
            id="greeting-of-gemini",
        ),
    ],
)
def test_logs_of_one_conversation_have_one_opening(requests):
    assert len({opening_of(request) for request in requests}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [SYSTEM, USER]}, {"messages": [SYSTEM, MORE]}),
        ({"messages": [SYSTEM, USER]}, {"messages": [USER]}),
        ({"system": "x", "messages": [USER]}, {"messages": [USER]}),
        ({"input": ["a"]}, {"input": ["b"]}),
        ({"prompt": "a"}, {"prompt": "b"}),
        ("a", None),
    ],
)
def test_other_conversations_have_other_openings(one, other):
    assert opening_of(one) != opening_of(other)


def test_the_opening_of_a_real_call_is_that_of_its_example():
    found = 0
    for call in real_calls():
        with suppress(DroppedError):
            assert opening_of(call["input"]) == identify(to_example(call)).opening
            found += 1

    assert found > 200


def test_an_example_that_the_assistant_opens_has_the_opening_of_its_greeting():
    greeting, talk = Example((SYSTEM, ANSWER)), Example((SYSTEM, ANSWER, USER, ANSWER))

    assert identify(greeting).opening == identify(talk).opening
