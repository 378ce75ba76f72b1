"""Which examples stay: each conversation once, each input once, splits without leaks."""

from typing import Any

import pytest

from pipelines.chat.example import Example
from pipelines.engine import connect
from pipelines.identity import identify
from pipelines.selection import Match, Selection, place_of, split_of


def talk(*contents, system="be brief", **more):
    """A conversation: user and assistant in turns."""
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return Example(({"role": "system", "content": system}, *turns), **more)


@pytest.fixture
def selection():
    with connect(memory_limit=400_000_000, threads=1) as con:
        yield Selection(con, seed=7)


def kept(selection, examples, *, only_longest=True, duplicates="last", max_rows=None):
    """The numbers of the examples that stay, and the counts of the others."""
    for number, example in enumerate(examples):
        selection.add(identify(example), number, 1)
    left_out = selection.select(only_longest=only_longest, duplicates=duplicates, max_rows=max_rows)
    return [row.start for row in selection.kept()], left_out


MULTI_TURN = [
    talk("a", "A"),
    talk("a", "A", "b", "B"),
    talk("a", "A", "b", "B", "c", "C"),
    talk("a", "A", "b", "other"),
    talk("x", "X"),
]


def test_the_longest_log_of_each_conversation_stays(selection):
    assert kept(selection, MULTI_TURN) == ([2, 3, 4], {"covered_by_longer": 2})


def test_order_does_not_matter_for_the_longest(selection):
    assert kept(selection, MULTI_TURN[::-1]) == ([0, 1, 2], {"covered_by_longer": 2})


def test_all_conversations_stay_when_asked(selection):
    found = kept(selection, MULTI_TURN, only_longest=False, duplicates="keep")

    assert found == ([0, 1, 2, 3, 4], {})


@pytest.mark.parametrize(
    ("duplicates", "stay"), [("last", [2, 3]), ("first", [0, 3]), ("keep", [0, 1, 2, 3])]
)
def test_of_answers_to_one_input_one_stays(selection, duplicates, stay):
    examples = [talk("a", "one"), talk("a", "two"), talk("a", "three"), talk("b", "four")]

    found, left_out = kept(selection, examples, duplicates=duplicates)

    assert found == stay
    assert sum(left_out.values()) == 4 - len(stay)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": ({"type": "function", "function": {"name": "f"}},)},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"system": "be long"},
    ],
)
def test_what_was_asked_is_more_than_messages(selection, more):
    assert kept(selection, [talk("a", "A"), talk("a", "A", **more)])[0] == [0, 1]


def test_ids_of_calls_and_the_spelling_of_arguments_do_not_tell_conversations_apart(selection):
    def call(call_id, arguments):
        function = {"name": "f", "arguments": arguments}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        }

    first = ({"role": "user", "content": "a"}, call("1", '{"x": 1, "y": 2}'))
    result = {"role": "tool", "tool_call_id": "2", "content": "r"}
    again = (
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        call("2", '{"y":2,"x":1}'),
    )
    answer = {"role": "assistant", "content": "done"}

    assert kept(selection, [Example(first), Example((*again, result, answer))])[0] == [1]


def test_most_rows_are_chosen_by_lot_and_stay_in_order(selection):
    examples = [talk(str(number), "A") for number in range(100)]

    found, left_out = kept(selection, examples, max_rows=10)

    assert found == sorted(found)
    assert len(found) == 10
    assert found != list(range(10))
    assert left_out == {"over_max_rows": 90}


def test_pairs_are_the_newest_better_and_worse_answer_to_an_input(selection):
    sides = ["rejected", "chosen", "chosen", "rejected", "chosen"]
    examples = [talk("a", str(n)) for n in range(4)] + [talk("b", "alone")]
    for number, (example, side) in enumerate(zip(examples, sides, strict=True)):
        selection.add(identify(example), number, 1, side=side)

    matches = list(selection.match_pairs())
    for match in matches:
        selection.add_pair(match, 9, 1, (), ())
    left_out = selection.select_pairs(max_rows=None)

    assert matches == [Match(2, chosen=(2, 1), rejected=(3, 1))]
    assert [row.start for row in selection.kept()] == [9]
    assert left_out == {"duplicate": 2, "no_pair": 1}


def test_many_pairs_are_matched_in_pieces(selection):
    for number in range(25_000):
        for side in ("chosen", "rejected"):
            selection.add(identify(talk(str(number), side)), number, 1, side=side)

    for place, match in enumerate(selection.match_pairs()):
        if place % 2:
            selection.refuse_pair(match, "over_limit")
        else:
            selection.add_pair(match, place, 1, ("fixed",), ("a",))
    left_out = selection.select_pairs(max_rows=10_000)

    assert len(list(selection.kept())) == 10_000
    assert left_out == {"over_limit": 25_000, "over_max_rows": 5_000}
    assert selection.count_repairs() == {"fixed": 10_000}


def test_splits_have_their_shares_and_keep_to_them():
    places = [place_of(7, str(number).encode()) for number in range(20_000)]
    splits = [split_of(place, {"test": 0.1, "validation": 0.2}, "train") for place in places]

    assert 0.09 < splits.count("test") / 20_000 < 0.11
    assert 0.19 < splits.count("validation") / 20_000 < 0.21
    assert place_of(7, b"1") == place_of(7, b"1") != place_of(8, b"1")
    # A larger share only adds: what was in test stays there.
    larger = [split_of(place, {"test": 0.2}, "train") for place in places]
    assert all(b == "test" for a, b in zip(splits, larger, strict=True) if a == "test")


def test_every_log_of_a_conversation_falls_into_one_split():
    openings = {identify(example).opening for example in MULTI_TURN[:4]}

    assert len(openings) == 1
    assert identify(MULTI_TURN[4]).opening not in openings


def test_many_examples_are_flushed_in_pieces(selection):
    examples = [talk(str(number % 20_000), "A") for number in range(25_000)]

    found, left_out = kept(selection, examples)

    assert len(found) == 20_000
    assert left_out == {"duplicate": 5_000}


def test_whose_message_it_is_and_which_call_a_result_is_of_tell_inputs_apart():
    def named(name):
        messages = (
            {"role": "user", "content": "hi", "name": name},
            {"role": "assistant", "content": "x"},
        )
        return identify(Example(messages)).input

    def answered(first, second):
        calls = [
            {"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for i in "ab"
        ]
        results = [{"role": "tool", "tool_call_id": i, "content": "r" + i} for i in (first, second)]
        texts = [results[0] | {"content": "30"}, results[1] | {"content": "5"}]
        messages: tuple[dict[str, Any], ...] = (
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            *texts,
            {"role": "assistant", "content": "done"},
        )
        return identify(Example(messages)).input

    assert named("alice") != named("bob")
    assert answered("a", "b") != answered("b", "a")
