"""Parts as they were committed: fetched a little ahead, checked, handed on as whole lines.

What is held is bounded: the pieces that are fetched ahead, one block, and the longest line.
"""

import hashlib
import io
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, cast

from pipelines.codecs import DECODE_ERRORS, open_plain
from pipelines.errors import BatchChangedError, QualityError, StorageError, ThrottledError
from pipelines.parts import Part
from pipelines.storage import Store
from pipelines.words import say_count

_PIECE_BYTES = 4 * 1024**2
_AHEAD_BYTES = 3 * _PIECE_BYTES
_REQUESTS = 16  # at once, where parts are small
_BLOCK_BYTES = 1024**2


class PartGoneError(QualityError):
    """A part is no longer there: a newer generation replaced it, or it was lost."""


def damaged(url: str, what: str) -> QualityError:
    """Return the error of a part that is not as its manifest says."""
    return QualityError(
        f"{url} {what}: the part is damaged. See all that are with `request-logs verify --deep`, "
        f"and export their windows again with `request-logs repair --deep`"
    )


def read_parts(store: Store, parts: Iterable[Part]) -> Iterator[tuple[Part, bytes]]:
    """Yield the parts' lines in blocks of whole lines, each with its final line end.

    The digest of a part is compared before its last piece is handed on, so that of a part of one
    piece (4 MiB) nothing unchecked is seen.

    Raises:
        PartGoneError: a part is no longer there.
        QualityError: a part has other bytes than its manifest says, or is cut off.
        StorageError: the store refused.
    """
    parts = tuple(parts)
    with closing(_fetch(store, parts)) as pieces:
        for part in parts:
            url = store.absolute_url(part.path)
            yield from ((part, block) for block in _read_part(url, part, pieces))


def _read_part(url: str, part: Part, pieces: Iterator[bytes]) -> Iterator[bytes]:
    checked = _check(url, part, islice(pieces, len(_cut(part))))
    compressed = cast("BinaryIO", _Stream(checked))
    raw_bytes = records = 0
    try:
        for block in _blocks(url, open_plain(compressed, part.path).read):
            raw_bytes += len(block)
            records += block.count(b"\n")
            yield block
    except DECODE_ERRORS as exc:
        raise damaged(url, f"cannot be decompressed ({exc})") from exc
    for _ in checked:  # what a decoder saw no use for is part of the digest
        pass
    if (raw_bytes, records) != (part.raw_bytes, part.records):
        raise damaged(
            url,
            f"holds {say_count(records, 'record')} of {raw_bytes} bytes, its manifest says "
            f"{part.records} of {part.raw_bytes}",
        )


def _blocks(url: str, read: Any) -> Iterator[bytes]:
    """Yield about 1 MiB at a time, cut after a line end."""
    waiting: list[bytes] = []
    while data := read(_BLOCK_BYTES):
        head, line_end, tail = data.rpartition(b"\n")
        waiting.append(head)
        if line_end:
            yield b"".join((*waiting, line_end))
            waiting = []
        waiting.append(tail)
    if any(waiting):
        raise damaged(url, "ends within a line")


def _check(url: str, part: Part, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pass the pieces on; the last one only when size and digest are those of the manifest."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        if size >= part.bytes and (size > part.bytes or digest.hexdigest() != part.sha256):
            raise damaged(url, "has other bytes than its manifest says")
        yield piece
    if size < part.bytes:
        raise damaged(url, f"has {size} bytes, its manifest says {part.bytes}")


class _Stream(io.RawIOBase):
    """Pieces as the file that decoders read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


def _fetch(store: Store, parts: Iterable[Part]) -> Generator[bytes, None, None]:
    """Yield the pieces of the parts in order, while the next ones are on their way."""
    pool = ThreadPoolExecutor(_REQUESTS)
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    held = 0
    try:
        for part in parts:
            cut = _cut(part)
            stored = _Stored(store, part, is_whole=len(cut) == 1)
            for start, end in cut:
                while waiting and (held + end - start > _AHEAD_BYTES or len(waiting) >= _REQUESTS):
                    size, fetched = waiting.popleft()
                    yield fetched.result()
                    held -= size
                waiting.append((end - start, pool.submit(partial(stored.read, start, end))))
                held += end - start
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _cut(part: Part) -> list[tuple[int, int]]:
    """The byte ranges of a part's pieces; one at least."""
    starts = range(0, part.bytes, _PIECE_BYTES) or (0,)
    return [(start, min(start + _PIECE_BYTES, part.bytes)) for start in starts]


class _Stored:
    """One part at the store, which must be one unchanged object for all of its pieces."""

    def __init__(self, store: Store, part: Part, *, is_whole: bool) -> None:
        self._store = store
        self._part = part
        self._is_whole = is_whole  # one request is consistent by itself
        self._etag = ""
        self._lock = threading.Lock()

    def read(self, start: int, end: int) -> bytes:
        path = self._part.path
        try:
            if self._is_whole:  # one byte more shows that an object is too long
                return self._store.read_bytes(path, start=0, end=end + 1)
            return self._store.read_bytes(path, start=start, end=end, etag=self._find_etag())
        except ThrottledError:
            raise
        except StorageError as exc:
            url = self._store.absolute_url(path)
            if self._store.stat(path) is None:
                raise PartGoneError(f"{url} is no longer there") from exc
            if isinstance(exc, BatchChangedError):
                raise damaged(url, "was overwritten while it was read") from exc
            raise

    def _find_etag(self) -> str:
        with self._lock:
            if not self._etag:
                found = self._store.stat(self._part.path)
                url = self._store.absolute_url(self._part.path)
                if found is None:
                    raise PartGoneError(f"{url} is no longer there")
                if found.size != self._part.bytes:
                    stated = f"its manifest says {self._part.bytes}"
                    raise damaged(url, f"has {found.size} bytes, {stated}")
                self._etag = found.etag
            return self._etag
