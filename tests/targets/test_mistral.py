"""Mistral's rows, and what is a JSON schema to it."""

import re

import jsonschema  # type: ignore[import-untyped] # Prefect brings it
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.chat.example import DroppedError
from pipelines.targets import mistral
from pipelines.targets.schemas import is_schema
from tests.targets.examples import (
    ANSWER,
    LONG_ID,
    PLAIN,
    SYSTEM,
    USER,
    call,
    calls,
    example,
    image_part,
    message,
    part,
    result,
    tool,
)

CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")


def ids_of(row):
    made = [call["id"] for message in row["messages"] for call in message.get("tool_calls", ())]
    used = [message["tool_call_id"] for message in row["messages"] if message["role"] == "tool"]
    return made, used


def test_call_ids_are_nine_letters_or_digits_and_results_follow():
    row, repairs = mistral.to_row(
        example(
            USER,
            calls(call(LONG_ID), call("")),
            result(""),
            result(LONG_ID),
            ANSWER,
        )
    )

    made, used = ids_of(row)
    assert all(CALL_ID.fullmatch(name) for name in made)
    assert used == made[::-1]
    assert len(set(made)) == 2
    assert repairs == ("call_ids_shortened",)


def test_the_same_id_becomes_the_same_id_whatever_else_is_there():
    first, _ = mistral.to_row(example(USER, calls(call(LONG_ID))))
    second, _ = mistral.to_row(
        example(USER, calls(call("x"), call(LONG_ID)), result("x"), result(LONG_ID), ANSWER)
    )

    assert ids_of(first)[0][0] == ids_of(second)[0][1]


def test_ids_that_are_good_stay():
    row, repairs = mistral.to_row(
        example(USER, calls(call("abcDEF123")), result("abcDEF123"), ANSWER)
    )

    assert ids_of(row) == (["abcDEF123"], ["abcDEF123"])
    assert repairs == ()


def test_a_made_id_is_never_one_that_is_taken():
    (taken,), _ = ids_of(mistral.to_row(example(USER, calls(call(LONG_ID))))[0])

    row, _ = mistral.to_row(
        example(USER, calls(call(LONG_ID), call(taken)), result(LONG_ID), result(taken), ANSWER)
    )

    made, used = ids_of(row)
    assert made == used
    assert made[1] == taken != made[0]


def test_tools_get_a_description_and_parameters():
    row, repairs = mistral.to_row(example(tools=(tool(description=None, parameters=None),)))

    assert row["tools"][0]["function"] == {
        "name": "get_weather",
        "description": "",
        "parameters": {},
    }
    assert repairs == ("description_added", "parameters_added")


def test_text_parts_are_joined_as_mistral_joins_them():
    row, repairs = mistral.to_row(
        example(
            message("user", [part("a"), part("b")]),
            calls(call("abcdefghi")),
            result("abcdefghi", [part("c"), part("d")]),
            message("assistant", [part("e"), part("f")]),
        )
    )

    assert row["messages"][0]["content"] == "a\n\nb"
    assert row["messages"][2]["content"] == "cd"
    assert row["messages"][3]["content"] == "ef"
    assert repairs == ("text_parts_joined",)


def test_images_stay_with_the_user():
    link = image_part("https://example.com/a.png")

    row, _ = mistral.to_row(example(message("user", [part("?"), link]), ANSWER))

    assert row["messages"][0]["content"] == [part("?"), link]


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        pytest.param(
            example(USER, calls(call("a"), content="Let me see.")),
            "unsupported_content",
            id="text-beside-calls",
        ),
        pytest.param(example(SYSTEM, SYSTEM, USER, ANSWER), "wrong_turns", id="two-systems"),
        pytest.param(
            example(USER, ANSWER, SYSTEM, USER, ANSWER), "wrong_turns", id="system-in-between"
        ),
        pytest.param(example(ANSWER), "wrong_turns", id="answer-alone"),
        pytest.param(
            example(calls(call("a")), result("a"), ANSWER), "wrong_turns", id="calls-first"
        ),
        pytest.param(example(SYSTEM, ANSWER), "wrong_turns", id="no-user"),
        pytest.param(example(USER, message("assistant", "")), "empty_answer", id="empty-answer"),
        pytest.param(
            example(USER, calls(call("a")), USER, ANSWER), "unanswered_tool_call", id="no-result"
        ),
        pytest.param(example(USER, result("a"), ANSWER), "wrong_turns", id="result-after-user"),
        pytest.param(
            example(USER, ANSWER, result("a"), ANSWER), "unanswered_tool_call", id="result-too-many"
        ),
        pytest.param(
            example(USER, calls(call("a", "get.weather"))), "unsupported_tool", id="name-called"
        ),
        pytest.param(example(tools=(tool("x" * 65),)), "unsupported_tool", id="name-too-long"),
        pytest.param(
            example(tools=(tool(parameters={"type": "OBJECT"}),)),
            "unsupported_tool",
            id="upper-case-type",
        ),
    ],
)
def test_what_the_validator_refuses_is_dropped(dropped, reason):
    with pytest.raises(DroppedError) as caught:
        mistral.to_row(dropped)

    assert caught.value.reason == reason


def test_an_empty_text_beside_calls_is_no_text():
    row, _ = mistral.to_row(example(USER, calls(call("abcdefghi"), content="")))

    assert row["messages"][1]["tool_calls"][0]["id"] == "abcdefghi"


def test_the_same_conversation_gives_the_same_row():
    assert mistral.to_row(PLAIN["parallel-calls"]) == mistral.to_row(PLAIN["parallel-calls"])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, -1, 2.0, 2.5, "object", "string", "a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "type", "items", "properties"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_KEYS = sorted(jsonschema.Draft7Validator.META_SCHEMA["properties"])


@settings(deadline=None, max_examples=500)
@given(schema=st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=2))
def test_schemas_are_what_draft_7_says(schema):
    try:
        jsonschema.Draft7Validator.check_schema(schema)
        expected = True
    except jsonschema.SchemaError:
        expected = False

    assert is_schema(schema) is expected


def test_a_schema_without_end_is_none():
    schema: dict[str, object] = {}
    schema["not"] = schema

    assert not is_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": ["string", "null"], "enum": ["a"], "default": 1, "x-note": {"type": 5}},
        {
            "properties": {"a": {"items": [{}, False]}},
            "$defs": {"b": {"anyOf": [{"type": "null"}]}},
        },
    ],
)
def test_a_usual_schema_is_one(schema):
    assert is_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"properties": {"a": {"type": "OBJECT"}}},
        {"items": {"required": "a"}},
        {"required": ["a", "a"]},
        {"exclusiveMinimum": True},
        {"minLength": 1.5},
        {"anyOf": []},
        {"type": []},
        {"type": ["null", "null"]},
        {"description": None},
    ],
)
def test_what_draft_7_forbids_is_no_schema(schema):
    assert not is_schema(schema)
