"""Together's and Fireworks' rows."""

import pytest

from pipelines.chat.example import DroppedError
from pipelines.targets import fireworks, together
from tests.targets.examples import (
    ANSWER,
    IMAGES,
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


def test_together_has_no_key_but_messages_and_tools():
    row, _ = together.to_row(
        example(
            tools=(tool(),), parallel_tool_calls=True, tool_choice="auto", response_format={"a": 1}
        )
    )

    assert row.keys() == {"messages", "tools"}


def test_together_leaves_out_a_content_that_is_null():
    row, repairs = together.to_row(PLAIN["call"])

    assert row["messages"][1].keys() == {"role", "tool_calls"}
    assert repairs == ()


def test_together_makes_all_messages_lists_when_one_has_an_image():
    row, repairs = together.to_row(IMAGES["image"])

    assert [message["content"] for message in row["messages"]] == [
        [part("Be brief.")],
        [part("What is it?"), image_part(detail="low")],
        [part("Yes.")],
    ]
    assert repairs == ("text_as_parts",)


def test_together_makes_all_messages_texts_when_none_has_an_image():
    row, repairs = together.to_row(PLAIN["text-parts"])

    assert [message["content"] for message in row["messages"]] == [
        "Be brief.",
        "Is it sunny?",
        "Yes.",
    ]
    assert repairs == ("text_parts_joined",)


def test_together_counts_names_that_it_does_not_know():
    row, repairs = together.to_row(PLAIN["names"])

    assert row["messages"][0] == message("user", "Hi")
    assert repairs == ("name_removed",)


def test_together_keeps_the_name_of_a_tool():
    row, repairs = together.to_row(
        example(USER, calls(call("a")), result("a", name="get_weather"), ANSWER)
    )

    assert row["messages"][2]["name"] == "get_weather"
    assert repairs == ()


def test_fireworks_has_no_names():
    for given in (PLAIN["named-result"], PLAIN["names"]):
        row, repairs = fireworks.to_row(given)
        assert not any("name" in message for message in row["messages"])
        assert "name_removed" in repairs


@pytest.mark.parametrize("target", [together, fireworks])
@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/gif;base64,R0lG"])
def test_images_are_data_of_a_known_format(target, url):
    with pytest.raises(DroppedError, match="unsupported_content"):
        target.to_row(example(message("user", [image_part(url)]), ANSWER))


def test_together_takes_ten_images_and_no_more():
    ten = message("user", [image_part() for _ in range(5)])

    together.to_row(example(ten, ANSWER, ten, ANSWER))

    with pytest.raises(DroppedError, match="over_limit"):
        together.to_row(example(ten, ANSWER, ten, ANSWER, message("user", [image_part()]), ANSWER))


def test_fireworks_content_is_text_everywhere_but_beside_images():
    row, repairs = fireworks.to_row(IMAGES["image-and-call"])

    assert [type(message["content"]) for message in row["messages"]] == [list, str, str, str]
    assert repairs == ("empty_content_added",)


def test_fireworks_joins_text_parts_without_anything_between():
    row, repairs = fireworks.to_row(PLAIN["text-parts"])

    assert row["messages"][0]["content"] == "Be brief."
    assert repairs == ("text_parts_joined",)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_fireworks_drops_a_system_message_that_is_not_the_first(role):
    with pytest.raises(DroppedError, match="wrong_turns"):
        fireworks.to_row(example(SYSTEM, USER, ANSWER, message(role, "Shout."), USER, ANSWER))


def test_fireworks_takes_jpg_as_a_name_of_jpeg():
    url = "data:image/jpg;base64,/9j/4AAQ"

    row, _ = fireworks.to_row(example(message("user", [image_part(url)]), ANSWER))

    assert row["messages"][0]["content"] == [image_part(url)]
