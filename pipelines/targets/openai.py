"""OpenAI's supervised fine-tuning: the chat request's messages, tools and parallel_tool_calls."""

from pipelines.chat.example import Example
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import check_functions, function_tools
from pipelines.targets.images import ImageRules, check_images
from pipelines.targets.messages import join_text, known_messages, without_none

# https://developers.openai.com/api/docs/guides/vision-fine-tuning
IMAGES = ImageRules(
    formats=frozenset({"jpeg", "png", "webp"}), max_images=10, max_bytes=10_000_000, links=True
)
NAMED_ROLES = ("system", "user", "assistant")


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages`, `tools` and `parallel_tool_calls`; there are no other keys.

    A list of one text becomes that text: the trainer has refused such lists in answers and tool
    results. A list of several texts stays, as OpenAI does not say how it puts them together.
    """
    repairs: set[str] = set()
    messages = known_messages(example, repairs, named_roles=NAMED_ROLES)
    join_text((message for message in messages if _is_one_text(message["content"])), repairs)
    check_images(messages, IMAGES)
    tools = function_tools(example, repairs)
    check_functions(messages, tools)
    row = {
        "messages": messages,
        "tools": tools,
        # It says something about tools only: the API refuses it without them.
        "parallel_tool_calls": example.parallel_tool_calls if tools else None,
    }
    return without_none(row), tuple(sorted(repairs))


def _is_one_text(content: object) -> bool:
    return isinstance(content, list) and len(content) == 1


TARGET = Target(
    name="openai",
    to_row=to_row,
    max_file_bytes=512_000_000,
    min_rows=10,
    source="openai-openapi FineTuneChatRequestInput; developers.openai.com vision-fine-tuning",
)
