"""Together's fine-tuning rows, as the full file check of its client 2.13.0 takes them."""

from pipelines.chat.example import Example
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import check_functions, function_tools
from pipelines.targets.images import ImageRules, check_images
from pipelines.targets.messages import join_text, known_messages, without_none

_IMAGES = ImageRules(
    formats=frozenset({"jpeg", "png", "webp"}), max_images=10, max_bytes=10_000_000, links=False
)


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages` and `tools`: any other key is refused.

    A row is all text or all lists of parts: with an image in it, texts become lists of one part,
    which changes nothing; without one, lists of texts become texts.
    """
    repairs: set[str] = set()
    messages = known_messages(example, repairs)
    if check_images(messages, _IMAGES):
        for message in messages:
            if isinstance(message["content"], str) and message["content"]:
                message["content"] = [{"type": "text", "text": message["content"]}]
                repairs.add("text_as_parts")
    else:
        join_text(messages, repairs)
    tools = function_tools(example, repairs)
    check_functions(messages, tools)
    row = {
        # `content` may be left out beside calls; null has no meaning of its own.
        "messages": [without_none(message) for message in messages],
        "tools": tools,
    }
    return without_none(row), tuple(sorted(repairs))


TARGET = Target(
    name="together",
    to_row=to_row,
    max_file_bytes=int(50.1 * 2**30),
    source="together==2.13.0 lib/utils/files.py, lib/constants.py",
)
