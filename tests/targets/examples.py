"""Examples as the conversion hands them on; each states only what it is about."""

import base64
import json

import pytest

from pipelines.chat.example import DroppedError, Example

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
IMAGE = f"data:image/png;base64,{PNG}"


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def part(text):
    return {"type": "text", "text": text}


def image_part(url=IMAGE, **more):
    return {"type": "image_url", "image_url": {"url": url, **more}}


def call(call_id, name="get_weather", arguments='{"city":"Paris"}'):
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def calls(*made, content=None):
    return message("assistant", content, tool_calls=list(made))


def result(call_id, content="sunny", **more):
    return message("tool", content, tool_call_id=call_id, **more)


def tool(name="get_weather", **more):
    function = {
        "name": name,
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Kyōto"]}},
            "required": ["city"],
        },
    } | more
    kept = {key: value for key, value in function.items() if value is not None}
    return {"type": "function", "function": kept}


def example(*messages, **more):
    return Example(messages=messages or CHAT, **more)


def reason_of(to_row, given):
    """Return why a target drops an example."""
    with pytest.raises(DroppedError) as caught:
        to_row(given)
    return caught.value.reason


SYSTEM = message("system", "Be brief.")
USER = message("user", "Is it sunny in Paris?")
ANSWER = message("assistant", "Yes.")
CHAT = (SYSTEM, USER, ANSWER)
LONG_ID = "call_62136355a7f24ab0b1d9a1f0"
HOSTILE_TEXT = 'line\nbreak \u2028 \u2029 \x7f \x85 \ufeff "quoted" \\ \t é 😀 </s> [INST] \x00'
NESTED = json.dumps({"at": {"lat": 48.85, "n": 1234567890123456789}, "tags": [], "none": None})

# Every one of these is a row of every target.
PLAIN = {
    "chat": example(),
    "several-turns": example(USER, ANSWER, message("user", "And Kyōto?"), ANSWER),
    "call": example(USER, calls(call(LONG_ID)), tools=(tool(),)),
    "call-and-result": example(
        SYSTEM, USER, calls(call("c1")), result("c1"), ANSWER, tools=(tool(),)
    ),
    "parallel-calls": example(
        USER,
        calls(call("a"), call("b", "get_time", '{"zone": "Europe/Paris", "at": 1.50}')),
        result("a"),
        result("b", "12:00"),
        ANSWER,
        tools=(tool(), tool("get_time", parameters=None, description=None), tool("x", strict=True)),
        parallel_tool_calls=True,
    ),
    "arguments-of-other-types": example(
        USER,
        calls(call("n", "get_weather", '{"city": 75001}')),
        result("n", '{"t": 21}'),
        calls(call("n", "get_weather", NESTED)),
        tools=(tool(parameters={"type": "object", "properties": {"city": {"type": "integer"}}}),),
    ),
    "developer": example(message("developer", "Be brief."), USER, ANSWER),
    "named-result": example(
        USER,
        calls(call("a")),
        result("a", name="get_weather"),
        ANSWER,
        tools=(tool(),),
    ),
    "call-of-an-undeclared-tool": example(
        USER, calls(call("u", "get_time")), result("u", "12:00"), ANSWER, tools=(tool(),)
    ),
    "names": example(message("user", "Hi", name="anna"), ANSWER),
    "hostile-text": example(
        message("system", HOSTILE_TEXT),
        message("user", HOSTILE_TEXT),
        calls(call("h", arguments=json.dumps({"city": HOSTILE_TEXT}))),
        result("h", HOSTILE_TEXT),
        message("assistant", HOSTILE_TEXT),
        tools=(tool(description=HOSTILE_TEXT),),
    ),
    "long-text": example(message("user", "x,]é" * 500_000), message("assistant", "y" * 1_000_000)),
    "date-like-text": example(message("user", "2024-01-01"), message("assistant", "1e5")),
    "text-parts": example(
        message("system", [part("Be"), part(" brief.")]),
        message("user", [part("Is it sunny?")]),
        message("assistant", [part("Yes.")]),
    ),
    "unknown-keys": example(
        message("user", "Hi", cache_control={"type": "ephemeral"}),
        message("assistant", "Yes.", refusal=None, audio=None, annotations=[]),
    ),
}

# Only some targets take images.
IMAGES = {
    "image": example(
        SYSTEM, message("user", [part("What is it?"), image_part(detail="low")]), ANSWER
    ),
    "image-and-call": example(
        message("user", [image_part(), image_part()]),
        calls(call("i")),
        result("i"),
        ANSWER,
        tools=(tool(),),
    ),
}
