"""Bundles of pairs: of two answers to one input, a tag says which is better."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.targets.columns import TRL_PAIR_FEATURES
from pipelines.targets.preference import TARGET
from pipelines.targets.registry import TARGETS
from tests.builders import event, export, make_config, write_batch
from tests.pulls import Pulls, answer, chat

SIDES: dict[str, Any] = {
    "format": "preference",
    "chosen": ("good", "yes"),
    "rejected": ("good", "no"),
}
BOTH = ("x", "yes"), ("y", "no")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture
def pulls(file_site):
    """Return pulls of an export of answers: each one a request, a text, and whether it is good."""

    def make(*calls):
        rows = [
            event(id=f"{n:04}", request=request, response=answer(text), tags=f'{{"good":"{good}"}}')
            for n, (request, text, good) in enumerate(calls)
        ]
        file_site.put("a.parquet", write_batch(rows))
        export(config := make_config(file_site))
        return Pulls(file_site, config)

    return make


def answers(rows):
    return [
        tuple(row[side][0]["content"] for side in ("preferred_output", "non_preferred_output"))
        for row in rows
    ]


def called(call_id):
    """A request whose history holds a call of this id and its result."""
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call_id, "content": "r"}
    return json.dumps({"messages": [{"role": "user", "content": "q"}, asked, result]})


def test_pairs_are_made_by_a_tag(pulls):
    pulled = pulls((chat("d"), "one", "yes"), (chat("d"), "two", "no"), (chat("e"), "x", "so"))

    summary = pulled(**SIDES)

    (row,) = pulled.rows(summary)
    assert answers([row]) == [("one", "two")]
    assert row["input"]["messages"] == [{"role": "user", "content": "d"}]
    assert summary.dropped == {"no_pair": 1}


@pytest.mark.parametrize(
    ("calls", "pair"),
    [
        ([("a", "yes"), ("b", "yes"), ("c", "no"), ("d", "no")], ("b", "d")),
        ([("same", "yes"), ("other", "no"), ("same", "no")], ("same", "other")),
        ([("other", "yes"), ("same", "yes"), ("same", "no")], ("other", "same")),
        ([("a", "yes"), ("b", "no"), ("same", "yes"), ("same", "no")], ("same", "b")),
    ],
)
def test_of_each_input_the_newest_answers_that_differ_make_the_pair(pulls, calls, pair):
    pulled = pulls(*((chat("d"), *call) for call in calls))

    summary = pulled(**SIDES)

    assert answers(pulled.rows(summary)) == [pair]
    assert summary.dropped == {"duplicate": len(calls) - 2}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (called("call_a"), called("call_b")),
        (json.dumps({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "d"}, {"type": "text", "text": "e"}]}]}), chat("de")),
        (chat("d", parallel_tool_calls=False, tools=[TOOL]), chat("d", tools=[TOOL])),
    ],
    ids=["ids", "parts", "parallel"],
)  # fmt: skip
def test_inputs_that_are_spelt_differently_are_one(pulls, one, other):
    summary = pulls((one, "x", "yes"), (other, "y", "no"))(**SIDES)

    assert (summary.total_rows, summary.dropped) == (1, {})


def test_an_answer_that_is_no_side_of_a_pair_makes_room_for_an_older_one(pulls):
    pulled = pulls((chat("d"), "x", "yes"), (chat("d"), "", "yes"), (chat("d"), "y", "no"))

    summary = pulled(**SIDES)

    assert answers(pulled.rows(summary)) == [("x", "y")]
    assert summary.dropped == {"empty_answer": 1}


def test_every_record_that_is_in_no_pair_is_among_the_rejects(pulls, tmp_path):
    rejects = tmp_path / "rejects.jsonl"
    pulled = pulls(
        (chat("a"), "same", "yes"),
        (chat("a"), "same", "no"),
        (chat("b"), "x", "yes"),
        (chat("b"), "y", "no"),
        (chat("b"), "z", "no"),
        (chat("c"), "alone", "no"),
        (chat("d", "x"), "no end", "no"),
    )

    summary = pulled(rejects=rejects, **SIDES)

    found = [json.loads(line)["reason"] for line in rejects.read_text().splitlines()]
    assert sorted(found) == ["duplicate", "no_pair", "no_pair", "no_pair", "wrong_turns"]
    assert summary.read == 2 * summary.total_rows + len(found)


def test_most_rows_are_counted_in_pairs_that_are_good(pulls):
    calls = [
        (chat(f"q{n}"), text, good)
        for n in range(8)
        for text, good in (("x", "yes"), ("x" if n % 2 else "y", "no"))
    ]

    summary = pulls(*calls)(max_rows=3, **SIDES)

    assert summary.total_rows == 3
    assert summary.dropped == {"no_pair": 8, "over_max_rows": 2}


def test_a_pair_that_is_larger_than_a_file_may_be_is_left_out(pulls, monkeypatch):
    pulled = pulls(
        (chat("a"), "x", "yes"), (chat("a"), "y", "no"),
        (chat("b"), "x" * 500, "yes"), (chat("b"), "y" * 500, "no"),
    )  # fmt: skip
    targets = {**TARGETS, "preference": replace(TARGET, max_file_bytes=400)}
    monkeypatch.setattr("pipelines.pull.TARGETS", targets)

    summary = pulled(**SIDES)

    assert answers(pulled.rows(summary)) == [("x", "y")]
    assert summary.dropped == {"over_limit": 2}


@pytest.mark.parametrize("style", ["openai", "trl"])
def test_pairs_that_show_a_key_first_lead(pulls, style):
    plain = [(chat(f"q{n}"), text, good) for n in range(3) for text, good in BOTH]
    late = [(chat("last", tools=[TOOL]), text, good) for text, good in BOTH]
    pulled = pulls(*plain, *late)

    rows = pulled.rows(pulled(pair_style=style, **SIDES))

    assert ["tools" in row or "tools" in row.get("input", {}) for row in rows[:2]] == [False, True]


def test_the_card_of_pairs_for_trl_names_their_columns(pulls):
    pulled = pulls(*((chat("d"), text, good) for text, good in BOTH))

    summary = pulled(pair_style="trl", **SIDES)

    card = pulled.files(summary)["README.md"].decode()
    assert all(f"name: {feature['name']}" in card for feature in TRL_PAIR_FEATURES)
    assert pulled.rows(summary)[0].keys() <= {feature["name"] for feature in TRL_PAIR_FEATURES}


def test_repairs_of_pairs_are_counted_once_a_row(pulls):
    told = {"role": "developer", "content": "s"}
    request = json.dumps({"messages": [told, {"role": "user", "content": "q"}]})

    summary = pulls((request, "x", "yes"), (request, "y", "no"))(**SIDES)

    assert summary.repairs == {"developer_to_system": 1}
