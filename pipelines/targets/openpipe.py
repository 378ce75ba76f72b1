"""OpenPipe's dataset rows: what it imports, and what it exports of a dataset."""

from pipelines.chat.example import Example
from pipelines.targets import openai
from pipelines.targets.base import Row, Target


def to_row(example: Example) -> tuple[Row, tuple[str, ...]]:
    """Return OpenAI's messages and tools with `tool_choice`, `response_format`, `metadata`.

    `split` is None until the caller says TRAIN or TEST. Metadata are strings: the record's tags,
    a tag without a value is ''.
    """
    row, repairs = openai.to_row(example)
    full = {
        "messages": row["messages"],
        "tools": row.get("tools"),
        "tool_choice": example.tool_choice,
        "response_format": example.response_format,
        "metadata": {name: value or "" for name, value in example.tags.items()},
    }
    kept = {key: value for key, value in full.items() if value is not None}
    kept["split"] = None
    return kept, repairs


TARGET = Target(
    name="openpipe",
    to_row=to_row,
    source="OpenPipe/OpenPipe@1da9a24 parseRowsToImport.ts; docs.openpipe.ai",
)
