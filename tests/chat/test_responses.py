"""OpenAI's Responses API."""

import pytest

from pipelines.chat.prune import prune_example
from pipelines.identity import identify
from tests.chat.recorded import FUNCTION, SCHEMA, USER, call, convert, detail, messages, outcome

ASKED = {"model": "m", "input": "Weather in Paris?"}
TOOL = {"type": "function", "strict": True, **FUNCTION}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city": "Paris"}',
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "18 C"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}


def said(*texts, **more):
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "role": "assistant", "content": parts, **more}


def answer(*items, status="completed", **changes):
    output = list(items or [said("Sunny.")])
    return {"object": "response", "status": status, "output": output, "error": None, **changes}


def asking(*items, **changes):
    return {**ASKED, "input": list(items), **changes}


def test_a_plain_input_is_the_users_message():
    asked = {**ASKED, "instructions": "Be terse."}

    assert messages(asked, answer()) == [
        {"role": "system", "content": "Be terse."},
        USER,
        {"role": "assistant", "content": "Sunny."},
    ]


def test_calls_join_the_text_before_them():
    second = {**CALL, "call_id": "call_2"}
    asked = asking(
        USER, said("Let me look."), CALL, second, RESULT, {**RESULT, "call_id": "call_2"}
    )

    example = convert(
        {**asked, "tools": [TOOL], "parallel_tool_calls": True}, answer(REASONING, CALL)
    )

    assert list(example.messages) == [
        USER,
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [call(), call(call_id="call_2")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "18 C"},
        {"role": "tool", "tool_call_id": "call_2", "content": "18 C"},
        {"role": "assistant", "content": None, "tool_calls": [call()]},
    ]
    assert example.tools == ({"type": "function", "function": {**FUNCTION, "strict": True}},)
    assert example.parallel_tool_calls is True
    assert example.finish_reason == "tool_calls"
    assert example.repairs == ("reasoning_removed",)


def test_parts_of_the_input_become_chat_parts():
    parts = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": "https://a/b.png", "detail": "auto"},
    ]

    assert messages(asking({"role": "user", "content": parts}), answer())[0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "auto"}},
    ]


def test_a_text_format_is_the_response_format():
    asked = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}

    assert convert({**ASKED, "text": {"format": asked}}, answer()).response_format == {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "a"}, {"type": "function", "function": {"name": "a"}}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "a"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "a"}}],
                },
            },
        ),
    ],
)
def test_tool_choices_are_in_the_words_of_chat(choice, expected):
    assert convert({**ASKED, "tool_choice": choice}, answer()).tool_choice == expected


def test_instructions_that_only_the_response_shows_count():
    assert messages(ASKED, answer(instructions="Be terse."))[0] == {
        "role": "system",
        "content": "Be terse.",
    }


@pytest.mark.parametrize(
    ("asked", "reason", "word"),
    [
        pytest.param(
            {**ASKED, "previous_response_id": "resp_1"},
            "unsupported_content",
            "previous_response_id",
            id="history-elsewhere",
        ),
        pytest.param(
            {**ASKED, "conversation": "conv_1"},
            "unsupported_content",
            "conversation",
            id="conversation",
        ),
        pytest.param({"prompt": {"id": "p"}}, "unsupported_content", "prompt", id="stored-prompt"),
        pytest.param(
            {**ASKED, "tools": [{"type": "web_search"}]}, "unsupported_tool", "web_search", id="web"
        ),
        pytest.param(
            {**ASKED, "tool_choice": {"type": "mcp"}}, "unsupported_tool", "mcp", id="choice"
        ),
        pytest.param(
            asking(USER, {"type": "item_reference", "id": "x"}),
            "unsupported_content",
            "item_reference",
            id="item-elsewhere",
        ),
        pytest.param(
            asking({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}),
            "unsupported_content",
            "input_file",
            id="file",
        ),
        pytest.param(
            asking({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}),
            "unsupported_content",
            "image without a web address or data",
            id="image-of-a-file",
        ),
        pytest.param(asking(USER, RESULT), "orphan_tool_result", "", id="orphan"),
        pytest.param(asking(USER, CALL, USER), "unanswered_tool_call", "", id="unanswered"),
        pytest.param(asking(), "no_messages", "", id="no-input"),
        pytest.param(
            asking({"role": "critic", "content": "x"}),
            "unsupported_role",
            "role that Responses does not know",
            id="role",
        ),
        pytest.param(
            asking({"role": "user", "content": []}),
            "unsupported_content",
            "message without content",
            id="no-content",
        ),
    ],
)
def test_a_request_drops_for_its_reason(asked, reason, word):
    assert outcome(asked, answer()) == reason
    assert detail(asked, answer()) == word


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        pytest.param(answer(status="failed"), "error_output", id="failed"),
        pytest.param(answer(status="in_progress"), "error_output", id="runs-still"),
        pytest.param(answer(status="incomplete"), "finish_length", id="incomplete"),
        pytest.param(
            answer(status="incomplete", incomplete_details={"reason": "content_filter"}),
            "finish_content_filter",
            id="filtered",
        ),
        pytest.param({**answer(), "output": []}, "no_choice", id="no-item"),
        pytest.param(answer(REASONING), "empty_answer", id="thought-only"),
        pytest.param(
            {**answer(REASONING), "status": "incomplete"}, "finish_length", id="thought-too-long"
        ),
        pytest.param(answer(said("")), "empty_answer", id="no-text"),
        pytest.param(
            answer({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}),
            "refusal",
            id="refusal",
        ),
        pytest.param(answer({"type": "web_search_call"}), "unsupported_content", id="search"),
        pytest.param(
            answer(
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a", "annotations": [{}]}],
                }
            ),
            "unsupported_content",
            id="citations",
        ),
        pytest.param(answer({**CALL, "arguments": "{"}), "arguments_not_json", id="cut-call"),
        pytest.param(answer(CALL, said("after")), "unanswered_tool_call", id="text-after-a-call"),
        pytest.param(
            answer(previous_response_id="resp_1"), "unsupported_content", id="history-elsewhere"
        ),
    ],
)
def test_a_response_drops_for_its_reason(response, reason):
    assert outcome(ASKED, response) == reason


def test_two_messages_of_an_answer_stay_two():
    told = messages(ASKED, answer(said("One."), said("Two.")))

    assert [message["content"] for message in told[1:]] == ["One.", "Two."]


def test_all_messages_of_an_answer_are_the_answer():
    one = convert(ASKED, answer())
    several = convert(ASKED, answer(said("It is"), REASONING, said("sunny.")))

    assert one.answer_size == 1
    assert several.answer_size == 2


def test_answers_of_several_messages_to_one_input_have_one_input():
    first = convert(ASKED, answer(said("It is"), said("sunny.")))
    second = convert(ASKED, answer(said("It may be"), said("sunny.")))

    assert (
        identify(first).input == identify(second).input == identify(convert(ASKED, answer())).input
    )


def test_a_log_that_repeats_an_answer_of_several_messages_is_longer():
    first = convert(ASKED, answer(said("It is"), said("sunny.")))
    asked = asking(USER, said("It is"), said("sunny."), {"role": "user", "content": "Sure?"})

    assert identify(first).conversation in identify(convert(asked, answer())).prefixes


def test_no_message_of_the_answer_is_pruned():
    given = convert({**ASKED, "instructions": "Say so"}, answer(said("so"), said("so it is")))

    pruned = prune_example(given, ["Say so", "so"])

    assert [message["content"] for message in pruned.messages] == [
        "Weather in Paris?",
        "so",
        "so it is",
    ]
