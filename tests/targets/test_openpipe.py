"""OpenPipe's rows, which are OpenAI's and more, by stricter rules."""

import pytest

from pipelines.targets import openpipe
from tests.targets.examples import (
    ANSWER,
    CHAT,
    LONG_ID,
    SYSTEM,
    USER,
    call,
    calls,
    example,
    message,
    part,
    reason_of,
    result,
    tool,
)


def test_openpipe_adds_what_else_was_asked_and_the_tags():
    given = example(
        SYSTEM,
        USER,
        calls(call(LONG_ID)),
        result(LONG_ID),
        ANSWER,
        tools=(tool(),),
        tool_choice="auto",
        response_format={"type": "json_object"},
        parallel_tool_calls=True,
        tags={"prompt_id": "greet", "seen": None},
    )

    row, repairs = openpipe.to_row(given)

    assert row == {
        "messages": list(given.messages),
        "tools": list(given.tools),
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "metadata": {"prompt_id": "greet", "seen": ""},
        "split": None,
    }
    assert repairs == ()


def test_openpipe_leaves_out_what_was_not_asked():
    row, _ = openpipe.to_row(example())

    assert row == {"messages": list(CHAT), "metadata": {}, "split": None}


def test_openpipe_lists_of_text_are_texts_but_for_users():
    row, repairs = openpipe.to_row(
        example(
            message("system", [part("Be"), part(" brief.")]),
            message("user", [part("Sunny"), part("?")]),
            calls(call("a"), content=[]),
            result("a", [part("sun"), part("ny")]),
            message("assistant", [part("Ye"), part("s.")]),
        )
    )

    assert [message["content"] for message in row["messages"]] == [
        "Be brief.",
        [part("Sunny"), part("?")],
        "",
        "sunny",
        "Yes.",
    ]
    assert repairs == ("text_parts_joined",)


def test_openpipe_leaves_out_a_system_message_that_says_nothing():
    row, repairs = openpipe.to_row(example(message("system", ""), USER, ANSWER))

    assert row["messages"] == [USER, ANSWER]
    assert repairs == ("empty_system_removed",)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(example(message("user", ""), ANSWER), "unsupported_content", id="user"),
        pytest.param(
            example(message("user", [part("")]), ANSWER), "unsupported_content", id="user-part"
        ),
        pytest.param(
            example(USER, calls(call("a")), result("a", ""), ANSWER),
            "unsupported_content",
            id="result",
        ),
        pytest.param(
            example(USER, calls(call("a"), content="Let me see.")),
            "unsupported_content",
            id="text-beside-calls",
        ),
        pytest.param(
            example(USER, calls(call("a"), content="Hm."), result("a"), ANSWER),
            "unsupported_content",
            id="text-beside-calls-in-the-history",
        ),
        pytest.param(example(message("system", ""), ANSWER), "no_messages", id="answer-alone"),
    ],
)
def test_openpipe_drops_what_its_import_refuses(given, reason):
    assert reason_of(openpipe.to_row, given) == reason


@pytest.mark.parametrize(
    ("asked", "repairs"),
    [
        ({"tool_choice": "required"}, ()),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, ()),
        ({"tool_choice": {"type": "allowed_tools"}}, ("tool_choice_removed",)),
        ({"tool_choice": "any"}, ("tool_choice_removed",)),
        ({"response_format": {"type": "text"}}, ()),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, ()),
        ({"response_format": {"type": "json_schema"}}, ("response_format_removed",)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            ("response_format_removed",),
        ),
        ({"response_format": {"type": "grammar"}}, ("response_format_removed",)),
    ],
)
def test_openpipe_keeps_what_it_can_be_asked(asked, repairs):
    row, made = openpipe.to_row(example(**asked))

    assert {key: row[key] for key in asked if key in row} == ({} if repairs else asked)
    assert made == repairs
