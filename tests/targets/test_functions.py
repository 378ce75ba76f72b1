"""Tools, calls and their arguments, as every target has them."""

import pytest

from pipelines.chat.example import DroppedError
from pipelines.targets import fireworks, mistral, openai, openpipe, together
from pipelines.targets.functions import parsed_arguments
from tests.targets.examples import ANSWER, USER, call, calls, example, result, tool

SERVICES = [openai, openpipe, together, fireworks, mistral]
LIMITED = [openai, openpipe, together, fireworks]


@pytest.mark.parametrize("target", SERVICES)
@pytest.mark.parametrize("name", ["", "get.weather", "get weather", "é", "f" * 65, "f\n"])
def test_names_are_at_most_64_letters_digits_dashes_and_underscores(target, name):
    for given in (
        example(tools=(tool(name),)),
        example(USER, calls(call("a", name)), result("a"), ANSWER),
    ):
        with pytest.raises(DroppedError, match="unsupported_tool"):
            target.to_row(given)


@pytest.mark.parametrize("target", SERVICES)
def test_a_name_of_64_characters_is_taken(target):
    name = "Az09_-" + "f" * 58

    row, _ = target.to_row(example(USER, calls(call("a", name)), tools=(tool(name),)))

    assert row["tools"][0]["function"]["name"] == name


@pytest.mark.parametrize("target", LIMITED)
def test_there_are_at_most_128_tools(target):
    tools = tuple(tool(f"f{number}") for number in range(129))

    row, _ = target.to_row(example(tools=tools[:128]))

    assert len(row["tools"]) == 128
    with pytest.raises(DroppedError, match="over_limit"):
        target.to_row(example(tools=tools))


def test_keys_of_a_tool_that_no_service_knows_are_counted():
    row, repairs = openai.to_row(example(tools=(tool(input_examples=[1], strict=None),)))

    assert row["tools"] == [tool()]
    assert repairs == ("tool_keys_removed",)


@pytest.mark.parametrize(
    ("number", "repairs"),
    [
        ("1.10", set()),
        ("1E+2", set()),
        ("-0.5e-3", set()),
        ("12345678901234567890.123", {"numbers_rounded"}),
        ("0.1234567890123456789", {"numbers_rounded"}),
        ("1e-400", {"numbers_rounded"}),
        ("1e-99999999999999999999", {"numbers_rounded"}),
    ],
)
def test_arguments_that_a_double_rounds_are_counted(number, repairs):
    made: set[str] = set()

    parsed = parsed_arguments(f'{{"n": [{number}]}}', made)

    assert parsed == {"n": [float(number)]}
    assert made == repairs


@pytest.mark.parametrize("arguments", ['{"a": 1, "a": 2}', '{"b": [{"a": 1, "a": 1}]}'])
def test_a_name_that_stands_twice_in_arguments_drops(arguments):
    with pytest.raises(DroppedError, match="arguments_not_json: a name twice"):
        parsed_arguments(arguments, set())
