"""Calls to pull, and pulls of them to places beside their export."""

import json
from typing import Any

from pipelines.pull import pull
from pipelines.pull_options import parse_options
from pipelines.pull_summary import PullSummary
from pipelines.storage import Store, open_store


def chat(*contents, **request):
    """A request whose messages are those of user and assistant in turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return json.dumps({"model": "gpt-4o", "messages": messages, **request})


def answer(text, finish="stop", **message):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]})


class Pulls:
    """Pulls to new places beside an export."""

    def __init__(self, site, config):
        self.config = config
        self.base = f"{site.destination_url}-bundles"
        self.options = site.storage_options
        self.count = 0

    def __call__(self, to: str | None = None, **options: Any) -> PullSummary:
        self.count += 1
        rejects = options.pop("rejects", None)
        place = f"{self.base}/{to or self.count}"
        given = parse_options({"format": "openai", **options})
        return pull(self.config, place, given, rejects=rejects)

    def store(self, summary: PullSummary) -> Store:
        return open_store(summary.destination, self.options)

    def files(self, summary: PullSummary) -> dict[str, bytes]:
        store = self.store(summary)
        return {found.path: store.read_bytes(found.path) for found in store.list_objects()}

    def rows(self, summary: PullSummary, split: str = "train") -> list[dict[str, Any]]:
        files = [file["path"] for file in summary.files if file["split"] == split]
        text = b"".join(self.files(summary)[path] for path in files)
        return [json.loads(line) for line in text.splitlines()]


def texts(rows):
    return [[message["content"] for message in row["messages"]] for row in rows]
