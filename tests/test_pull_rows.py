"""Rows as lines that every reader of JSON takes, and takes alike."""

import json

import pytest

from pipelines.chat.example import DroppedError, Example
from pipelines.pull_rows import dump_row, example_as_data, example_from_data


@pytest.mark.parametrize(
    "value",
    [
        "\ud83d",
        {"\udc00": 1},
        2**63,
        -(2**63) - 1,
        [{"maximum": 10**30}],
        float("inf"),
        float("nan"),
    ],
    ids=repr,
)
def test_what_some_reader_refuses_or_alters_is_dropped(value):
    with pytest.raises(DroppedError) as caught:
        dump_row({"tools": [value]})

    assert caught.value.reason == "unsupported_content"


@pytest.mark.parametrize(
    "value",
    [
        2**63 - 1,
        -(2**63),
        1e308,
        "9" * 40,
        '{"n": 12345678901234567890, "s": "\\\\ud83d"}',
        "\u2028\u2029\x85\x00 😀",
        True,
        None,
    ],
    ids=repr,
)
def test_a_line_says_what_the_row_says(value):
    line = dump_row({"a": [value]})

    assert json.loads(line) == {"a": [value]}
    assert len(line.decode().splitlines()) == 1


def test_an_example_comes_back_from_its_data():
    messages = tuple({"role": role, "content": "x"} for role in ("user", "assistant", "assistant"))
    example = Example(messages, tools=({"type": "function"},), answer_size=2, repairs=("a",))

    assert example_from_data(dump_row(example_as_data(example))) == example
