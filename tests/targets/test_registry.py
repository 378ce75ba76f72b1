"""All targets, and pairs."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest

from pipelines.chat.example import DroppedError
from pipelines.targets.columns import FEATURES, leading, shape
from pipelines.targets.preference import to_pair
from pipelines.targets.registry import TARGETS
from tests.targets.examples import (
    ANSWER,
    IMAGES,
    PLAIN,
    SYSTEM,
    USER,
    call,
    calls,
    example,
    message,
    tool,
)

NO = message("assistant", "No.")
GOOD = example(tools=(tool(),), parallel_tool_calls=False)
BAD = replace(GOOD, messages=(SYSTEM, USER, NO))
MADE = [target for target in TARGETS.values() if target.name != "records"]


def test_every_format_is_a_target_under_its_name():
    assert list(TARGETS) == [
        "records",
        "openai",
        "openpipe",
        "together",
        "fireworks",
        "mistral",
        "trl",
        "trl-completion",
        "axolotl",
        "llamafactory",
        "preference",
    ]
    assert all(target.name == name for name, target in TARGETS.items())


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_a_target_says_where_its_rules_were_read(target):
    assert target.source


def test_records_have_no_rows():
    with pytest.raises(TypeError):
        TARGETS["records"].to_row(example())


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_a_row_is_strict_json_and_the_same_every_time(target):
    for given in PLAIN.values():
        row, repairs = target.to_row(given)
        assert (row, repairs) == target.to_row(given)
        assert json.loads(json.dumps(row, allow_nan=False)) == row
        assert list(repairs) == sorted(set(repairs))


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_examples_stay_as_they_are(target):
    for given in (PLAIN | IMAGES).values():
        before = json.dumps([given.messages, given.tools])
        with suppress(DroppedError):
            target.to_row(given)
        assert json.dumps([given.messages, given.tools]) == before


@pytest.mark.parametrize("target", MADE, ids=lambda target: target.name)
def test_a_dataset_card_knows_every_column(target):
    names = {feature["name"] for feature in FEATURES[target.name]}
    rows = [target.to_row(given)[0] for given in PLAIN.values()]
    if target.needs_pairs:
        rows = [to_pair(GOOD, BAD)[0]]

    assert set().union(*rows) <= names
    assert FEATURES.keys() == TARGETS.keys()


def test_a_shape_is_keys_and_types():
    row = {"a": [{"b": 1}, {"b": None, "c": "x"}], "d": None}

    assert shape(row) == {":dict", ".a:list", ".a[]:dict", ".a[].b:int", ".a[].c:str"}


def test_rows_lead_that_show_something_new():
    shapes = [frozenset(names) for names in ("a", "a", "ab", "b", "c")]

    assert leading(shapes) == [0, 2, 4]


def test_no_more_than_a_hundred_rows_lead():
    assert leading(frozenset({str(place)}) for place in range(1_000)) == list(range(100))


def test_a_pair_is_one_input_and_two_answers():
    row, repairs = to_pair(GOOD, BAD)

    assert row == {
        "input": {"messages": [SYSTEM, USER], "tools": [tool()], "parallel_tool_calls": False},
        "preferred_output": [ANSWER],
        "non_preferred_output": [NO],
    }
    assert repairs == ()


def test_a_pair_of_trl_is_prompt_chosen_and_rejected():
    row, _ = to_pair(GOOD, BAD, "trl")

    assert row == {
        "prompt": [SYSTEM, USER],
        "chosen": [ANSWER],
        "rejected": [NO],
        "tools": json.dumps([tool()], ensure_ascii=False),
    }


@pytest.mark.parametrize("style", ["together", "fireworks"])
def test_a_pair_keeps_to_the_rules_of_its_service(style):
    row, _ = to_pair(GOOD, BAD, style)

    assert row["input"].keys() == {"messages", "tools"}


def test_repairs_of_both_sides_are_named_once():
    called = replace(GOOD, messages=(message("developer", "Hm."), USER, calls(call("a"))))
    answered = replace(GOOD, messages=(message("developer", "Hm."), USER, ANSWER))

    _, repairs = to_pair(answered, called, "fireworks")

    assert repairs == ("developer_to_system", "empty_content_added")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        pytest.param(GOOD, "no_pair", id="same-answer"),
        pytest.param(replace(BAD, messages=(USER, NO)), "no_pair", id="other-input"),
        pytest.param(replace(BAD, tools=None), "no_pair", id="other-tools"),
        pytest.param(
            replace(BAD, messages=(SYSTEM, USER)), "last_message_not_assistant", id="none"
        ),
    ],
)
def test_what_is_no_pair_is_dropped(other, reason):
    with pytest.raises(DroppedError) as caught:
        to_pair(GOOD, other)

    assert caught.value.reason == reason


@pytest.mark.parametrize("before", [(), (SYSTEM,), (USER, ANSWER)])
def test_an_input_ends_with_user_or_tool(before):
    with pytest.raises(DroppedError, match="wrong_turns"):
        to_pair(replace(GOOD, messages=(*before, ANSWER)), replace(GOOD, messages=(*before, NO)))
