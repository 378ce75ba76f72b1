"""Where rejects of a run are found, without what they hold."""

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.storage import open_store
from pipelines.summary import ExportSummary

_READ_BYTES = 4 << 20  # of each rejects object, before decompression
_OBJECTS = 5
_GZIP_WBITS = 31


def read_examples(
    summary: ExportSummary, storage_options: Mapping[str, Any], per_reason: int = 3
) -> dict[str, list[tuple[str, int]]]:
    """Return batch and row of some rejects of the windows that a run committed, by reason.

    The beginnings of a few rejects objects are read, so a rare reason may have none.
    """
    store = open_store(summary.destination, storage_options)
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    urls = [url for window in summary.written for url in window.rejects]
    for url in urls[:_OBJECTS]:
        data = store.read_bytes(url.removeprefix(f"{store.url}/"), start=0, end=_READ_BYTES)
        for line in _whole_lines(data):
            reject = json.loads(line)
            places = found[reject["reason"]]
            if len(places) < per_reason:
                places.append((reject["batch"], reject["row"]))
    return dict(found)


def _whole_lines(data: bytes) -> Iterator[bytes]:
    text = zlib.decompressobj(_GZIP_WBITS).decompress(data)
    *lines, _ = text.split(b"\n")
    yield from lines
