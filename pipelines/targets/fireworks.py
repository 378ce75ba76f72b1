"""Fireworks' fine-tuning rows: OpenAI's messages with a string as content, system first."""

from pipelines.chat.example import Example
from pipelines.targets.base import Row, Target
from pipelines.targets.functions import check_functions, function_tools
from pipelines.targets.images import ImageRules, check_images
from pipelines.targets.messages import (
    fill_content,
    join_text,
    known_messages,
    system_first,
    without_none,
)

# Vision rows: images "must be base64 encoded", PNG, JPG or JPEG; no number or size is named.
_IMAGES = ImageRules(
    formats=frozenset({"jpeg", "jpg", "png"}), max_images=None, max_bytes=None, links=False
)


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return `messages` and `tools`.

    Content is a string, but for messages with images. The page names the roles system, user and
    assistant; `tool` comes with `tools`, as "datasets for OpenAI work with no changes".
    """
    repairs: set[str] = set()
    messages = known_messages(example, repairs, named_roles=())
    system_first(messages)
    check_images(messages, _IMAGES)
    join_text(messages, repairs)
    fill_content(messages, repairs)
    tools = function_tools(example, repairs)
    check_functions(messages, tools)
    return without_none({"messages": messages, "tools": tools}), tuple(sorted(repairs))


TARGET = Target(
    name="fireworks",
    to_row=to_row,
    max_file_bytes=150_000_000,
    max_rows=3_000_000,
    min_rows=3,
    source="docs.fireworks.ai fine-tuning/fine-tuning-models, fine-tuning-vlm",
)
