"""What every example must be, whatever API it comes from."""

import pytest

from pipelines.chat.example import DroppedError, Example
from pipelines.chat.gates import check_example
from tests.chat.recorded import NONE, USER, WEATHER, call

ANSWER = {"role": "assistant", "content": "Sunny."}


def calling(*calls, content=None):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(call_id="call_1", content="18 C", **more):
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


def check(*messages, **changes):
    allowed = changes.pop("allow_finish", NONE)
    return check_example(Example(messages=messages, **changes), allow_finish=allowed)


def reason_of(*messages, **changes):
    with pytest.raises(DroppedError) as caught:
        check(*messages, **changes)
    return caught.value.reason


def test_a_good_example_stays_as_it_is():
    messages = (USER, calling(call()), result(), ANSWER)

    checked = check(*messages, tools=(WEATHER,))

    assert checked == Example(messages=messages, tools=(WEATHER,))


def test_a_checked_example_passes_again_unchanged():
    first = check(USER, calling(call(arguments={}, call_id="")), result(""), ANSWER)

    assert check_example(first, allow_finish=NONE) == first


def test_nothing_is_changed_in_place():
    asked = calling(call(arguments={"city": "Paris"}))

    check(USER, asked)

    assert asked["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}


def test_arguments_that_are_an_object_become_text():
    checked = check(USER, calling(call(arguments={"city": "Zürich"})))

    assert checked.messages[-1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Zürich"}'
    assert checked.repairs == ("arguments_to_text",)


def test_empty_tool_calls_leave():
    checked = check(USER, {**ANSWER, "tool_calls": []})

    assert checked.messages[-1] == ANSWER
    assert checked.repairs == ("empty_tool_calls_removed",)


def test_repairs_of_before_stay_and_are_named_once():
    checked = check(
        USER,
        calling(call(arguments={}), call(arguments={}, call_id="call_2")),
        repairs=("reasoning_removed",),
    )

    assert checked.repairs == ("reasoning_removed", "arguments_to_text")


def test_calls_without_ids_get_some_and_their_results_follow_in_order():
    first, second = call(call_id=""), call(call_id="")
    checked = check(USER, calling(first, second), result("", "a"), result("", "b"), ANSWER)

    ids = [made["id"] for made in checked.messages[1]["tool_calls"]]
    assert ids == ["call_0001", "call_0002"]
    assert [message["tool_call_id"] for message in checked.messages[2:4]] == ids
    assert checked.repairs == ("call_ids_minted",)


def test_minted_ids_spare_the_recorded_ones():
    checked = check(USER, calling(call(call_id=""), call(call_id="call_0001")))

    assert [made["id"] for made in checked.messages[1]["tool_calls"]] == ["call_0002", "call_0001"]


def test_results_may_come_in_any_order():
    calls = calling(call(), call(call_id="call_2"))

    assert check(USER, calls, result("call_2"), result("call_1"), ANSWER).repairs == ()


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        pytest.param((), "no_messages", id="none"),
        pytest.param((ANSWER,), "no_messages", id="answer-alone"),
        pytest.param((ANSWER, USER), "last_message_not_assistant", id="user-last"),
        pytest.param((USER, result(), ANSWER), "orphan_tool_result", id="no-call"),
        pytest.param(
            (USER, calling(call()), result("other"), ANSWER), "orphan_tool_result", id="other-id"
        ),
        pytest.param((USER, calling(call()), result(""), ANSWER), "orphan_tool_result", id="no-id"),
        pytest.param(
            (USER, calling(call()), result(), result(), ANSWER), "orphan_tool_result", id="twice"
        ),
        pytest.param(
            (USER, calling(call()), result(), USER, result(), ANSWER),
            "orphan_tool_result",
            id="a-turn-later",
        ),
        pytest.param((USER, calling(call()), ANSWER), "unanswered_tool_call", id="no-result"),
        pytest.param(
            (USER, calling(call(), call(call_id="b")), result(), USER, ANSWER),
            "unanswered_tool_call",
            id="one-of-two",
        ),
        pytest.param(
            (USER, calling(call(arguments=None))), "tool_call_without_arguments", id="null"
        ),
        pytest.param(
            (USER, calling(call(arguments=""))), "tool_call_without_arguments", id="empty"
        ),
        pytest.param((USER, calling(call(arguments='{"a"'))), "arguments_not_json", id="cut-off"),
        pytest.param((USER, calling(call(arguments="[]"))), "arguments_not_json", id="list"),
        pytest.param((USER, calling(call(arguments='{"a": NaN}'))), "arguments_not_json", id="nan"),
        pytest.param(
            (USER, calling(call(arguments='{"a": "\\ud83d"}'))),
            "arguments_not_json",
            id="half-pair",
        ),
        pytest.param((USER, calling(call(arguments=7))), "arguments_not_json", id="number"),
        pytest.param(
            (USER, calling(call(arguments={"a": float("inf")}))), "arguments_not_json", id="inf"
        ),
        pytest.param(
            (USER, calling(call(arguments="[" * 100_000))), "arguments_not_json", id="deep"
        ),
        pytest.param((USER, calling(call(name=""))), "unsupported_tool", id="no-name"),
        pytest.param((USER, calling({"type": "custom"})), "unsupported_tool", id="custom"),
        pytest.param((USER, {**ANSWER, "tool_calls": {}}), "unsupported_tool", id="no-list"),
        pytest.param(
            (
                USER,
                {**calling(call()), "function_call": {"name": "weather", "arguments": "{}"}},
            ),
            "unsupported_tool",
            id="both-kinds-of-calls",
        ),
        pytest.param(
            ({**USER, "tool_calls": [call()]}, ANSWER), "unsupported_role", id="user-calls"
        ),
        pytest.param((USER, {**ANSWER, "content": ""}), "empty_answer", id="no-text"),
        pytest.param((USER, {**ANSWER, "refusal": "no"}), "refusal", id="refusal"),
        pytest.param(
            (USER, {**ANSWER, "content": [{"type": "refusal", "refusal": "no"}]}),
            "refusal",
            id="refusal-part",
        ),
        pytest.param(
            (USER, {**ANSWER, "content": [{"type": "image_url", "image_url": "https://a"}]}),
            "unsupported_content",
            id="image-of-assistant",
        ),
        pytest.param(
            ({"role": "user", "content": ["text"]}, ANSWER),
            "unsupported_content",
            id="text-in-list",
        ),
        pytest.param(
            ({"role": "user", "content": [{"type": "text"}]}, ANSWER),
            "unsupported_content",
            id="part-without-text",
        ),
        pytest.param(
            (
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/x"}}],
                },
                ANSWER,
            ),
            "unsupported_content",
            id="image-of-a-file",
        ),
    ],
)
def test_an_example_drops_for_the_first_rule_it_breaks(messages, reason):
    assert reason_of(*messages) == reason


def test_a_whole_pair_of_surrogates_stays():
    calls = calling(call(arguments='{"a": "\\ud83d\\ude00"}'))

    assert check(USER, calls).messages[1] == calls


def test_tools_that_are_no_functions_drop():
    assert reason_of(USER, ANSWER, tools=({"type": "web_search"},)) == "unsupported_tool"
    assert reason_of(USER, ANSWER, tools=("x",)) == "unsupported_tool"
    nameless = {"type": "function", "function": {"description": "x"}}
    assert reason_of(USER, ANSWER, tools=(nameless,)) == "unsupported_tool"


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_an_unfinished_answer_trains_only_when_allowed(finish):
    assert reason_of(USER, ANSWER, finish_reason=finish) == f"finish_{finish}"

    kept = check(USER, ANSWER, finish_reason=finish, allow_finish=frozenset({finish}))

    assert kept.finish_reason == finish


def test_a_call_that_was_cut_off_counts_as_length():
    cut = calling(call(arguments='{"ci'))

    assert reason_of(USER, cut, finish_reason="length") == "finish_length"


def test_thinking_parts_leave():
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Sunny."}]

    checked = check(USER, {**ANSWER, "content": parts})

    assert checked.messages[-1]["content"] == [{"type": "text", "text": "Sunny."}]
    assert checked.repairs == ("reasoning_removed",)
