"""OpenAI's rows."""

import pytest

from pipelines.chat.example import DroppedError, Example
from pipelines.targets import openai
from tests.chat.recorded import FUNCTION, chat, convert
from tests.targets.examples import (
    ANSWER,
    CHAT,
    PLAIN,
    USER,
    calls,
    example,
    image_part,
    message,
    part,
    reason_of,
    result,
    tool,
)


def test_a_plain_chat_is_its_messages_and_nothing_else():
    assert openai.to_row(example()) == ({"messages": list(CHAT)}, ())


def test_calls_results_and_tools_stay_as_recorded():
    given = PLAIN["call-and-result"]

    row, repairs = openai.to_row(given)

    assert row == {"messages": list(given.messages), "tools": list(given.tools)}
    assert repairs == ()


def test_developer_becomes_system_and_is_counted():
    row, repairs = openai.to_row(PLAIN["developer"])

    assert row["messages"][0] == {"role": "system", "content": "Be brief."}
    assert repairs == ("developer_to_system",)


def test_keys_that_the_format_does_not_know_are_left_out():
    row, repairs = openai.to_row(PLAIN["unknown-keys"])

    assert row["messages"] == [message("user", "Hi"), message("assistant", "Yes.")]
    assert repairs == ()


def test_the_examples_own_messages_stay_as_they_are():
    given = PLAIN["text-parts"]
    before = repr(given)

    openai.to_row(given)

    assert repr(given) == before


def test_names_stay():
    row, _ = openai.to_row(PLAIN["names"])

    assert row["messages"][0]["name"] == "anna"


def test_a_result_has_no_name():
    row, repairs = openai.to_row(PLAIN["named-result"])

    assert row["messages"][2] == result("a")
    assert repairs == ("name_removed",)


def test_a_result_of_a_function_of_2023_has_no_name():
    said = {"function_call": {"name": "weather", "arguments": "{}"}, "content": None}
    request = {
        "messages": [
            USER,
            {"role": "assistant", **said},
            {"role": "function", "name": "weather", "content": "sunny"},
        ],
        "functions": [FUNCTION],
    }

    row, repairs = openai.to_row(convert(request, chat()))

    assert row["messages"][2].keys() == {"role", "content", "tool_call_id"}
    assert repairs == ("name_removed",)


def test_a_detail_that_no_request_may_have_is_left_out():
    row, repairs = openai.to_row(example(message("user", [image_part(detail="original")]), ANSWER))

    assert row["messages"][0]["content"] == [image_part()]
    assert repairs == ("detail_removed",)


def test_one_text_part_becomes_the_text_and_several_stay():
    row, repairs = openai.to_row(PLAIN["text-parts"])

    assert row["messages"][0]["content"] == [part("Be"), part(" brief.")]
    assert row["messages"][1]["content"] == "Is it sunny?"
    assert repairs == ("text_parts_joined",)


def test_one_image_stays_a_list():
    row, _ = openai.to_row(example(message("user", [image_part()]), ANSWER))

    assert row["messages"][0]["content"] == [image_part()]


def test_parallel_tool_calls_stands_beside_tools_only():
    with_tools, _ = openai.to_row(example(tools=(tool(),), parallel_tool_calls=False))
    without, _ = openai.to_row(example(parallel_tool_calls=False))

    assert with_tools["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in without


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(example(message("critic", "?"), ANSWER), "unsupported_role", id="role"),
        pytest.param(example(USER), "last_message_not_assistant", id="no-answer"),
        pytest.param(example(USER, message("assistant", None)), "empty_answer", id="null-answer"),
        pytest.param(example(message("user", None), ANSWER), "unsupported_content", id="null-user"),
        pytest.param(example(message("user", 1), ANSWER), "unsupported_content", id="number"),
        pytest.param(example(message("user", ["a"]), ANSWER), "unsupported_content", id="no-part"),
        pytest.param(
            example(message("user", [{"type": "input_audio", "input_audio": {}}]), ANSWER),
            "unsupported_content",
            id="audio",
        ),
        pytest.param(
            example(USER, message("assistant", [image_part()])),
            "unsupported_content",
            id="image-of-the-assistant",
        ),
        pytest.param(
            example(message("user", [image_part("data:image/gif;base64,R0lG")]), ANSWER),
            "unsupported_content",
            id="gif",
        ),
        pytest.param(
            example(message("user", [image_part("data:image/png;base64,a+b?")]), ANSWER),
            "unsupported_content",
            id="no-base64",
        ),
        pytest.param(
            example(message("user", [image_part("gs://bucket/a.png")]), ANSWER),
            "unsupported_content",
            id="other-link",
        ),
        pytest.param(
            example(message("user", [image_part() for _ in range(11)]), ANSWER),
            "over_limit",
            id="eleven-images",
        ),
        pytest.param(
            example(
                message("user", [image_part("data:image/png;base64," + "A" * 13_333_340)]), ANSWER
            ),
            "over_limit",
            id="over-10-mb",
        ),
        pytest.param(
            example(USER, calls({"id": "a", "type": "custom", "custom": {}})),
            "unsupported_tool",
            id="custom-call",
        ),
        pytest.param(
            example(tools=({"type": "web_search"},)), "unsupported_tool", id="hosted-tool"
        ),
        pytest.param(example(tools=(tool(None),)), "unsupported_tool", id="no-name"),
        pytest.param(
            example(tools=(tool(parameters="{}"),)), "unsupported_tool", id="parameters-as-text"
        ),
    ],
)
def test_what_has_no_place_is_dropped_with_a_reason(given, reason):
    assert reason_of(openai.to_row, given) == reason


def test_an_example_without_messages_is_dropped():
    with pytest.raises(DroppedError, match="no_messages"):
        openai.to_row(Example(messages=()))


def test_links_to_images_are_taken():
    link = image_part("https://example.com/a.png")

    row, _ = openai.to_row(example(message("user", [part("?"), link]), ANSWER))

    assert row["messages"][0]["content"][1] == link


def test_an_image_that_is_only_a_string_becomes_an_object():
    given = {"type": "image_url", "image_url": "https://example.com/a.png"}

    row, _ = openai.to_row(example(message("user", [given]), ANSWER))

    assert row["messages"][0]["content"] == [image_part("https://example.com/a.png")]
