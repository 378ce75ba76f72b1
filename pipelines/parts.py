"""From lines to parts: one byte budget, exact chunks, compression and upload on worker threads.

The bytes of a part depend on its lines, the codec and its level, never on threads or memory:
lines are cut into chunks of exactly 1 MiB, and each part's chunks are compressed in order.
"""

import hashlib
import threading
import unicodedata
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipelines.codecs import Codec, open_codec
from pipelines.config import Compression
from pipelines.errors import QualityError
from pipelines.spill import SpillFile
from pipelines.storage import ObjectWriter, Store

_CHUNK_BYTES = 1024**2  # best of 256 KiB, 1 MiB and 4 MiB for speed and for memory
_STREAMS = 64  # parts with a compressor and a writer open; the others wait as raw bytes
_REMOTE_STREAMS = 16  # each buffers up to 8 MiB for a multipart upload
_LONG_LINE_BYTES = 512
_SPILL_TO = 0.5  # spilling frees half of the budget at once
_TWIN_NUMBERS = 1_000_000  # between the numbers of partitions that a disk may take for one


@dataclass(frozen=True, slots=True)
class Part:
    """One finished object: its path and partition, sizes, and digests of its bytes."""

    path: str
    partition: str
    bytes: int
    raw_bytes: int
    records: int
    sha256: str
    md5: str


class PartExistsError(QualityError):
    """The part's name is taken for good; the shard is written again under another attempt."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """Which objects of equal bytes may become parts of a new generation.

    Garbage collection removes what is old and not named by a manifest, perhaps while this writer
    finds it. What the window's newest generation names is named until the next commit, and what is
    young stays longer than this run may take.

    Attributes:
        committed: paths that the window's newest generation names.
        age_seconds: other objects must be younger than this, by the store's clock.
    """

    committed: frozenset[str]
    age_seconds: float

    def check(self, store: Store, path: str, sha256: str) -> None:
        """Raise a PartExistsError unless the object has those bytes and may be reused."""
        url = store.absolute_url(path)
        if path not in self.committed:
            found = store.stat(path)
            if found is None or store.read_clock() - found.modified_at >= self.age_seconds:
                raise PartExistsError(f"{url} exists, so old that it may be removed as garbage")
        if store.sha256(path) != sha256:
            raise PartExistsError(f"{url} exists with other bytes")


@dataclass(slots=True)
class _Chunk:
    """Up to 1 MiB of lines: what was spilled, then what is in memory."""

    spilled: list[tuple[int, int]]
    memory: bytearray

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.spilled) + len(self.memory)


class _OpenPart:
    """A part that takes lines; its stream opens once a chunk is full and a place is free."""

    __slots__ = (
        "chunk",
        "chunk_bytes",
        "closed",
        "codec",
        "draining",
        "lines_written",
        "md5",
        "partition",
        "path",
        "queue",
        "raw_bytes",
        "raw_written",
        "records",
        "sha256",
        "streaming",
        "writer",
        "written",
    )

    def __init__(self, partition: str, path: str) -> None:
        self.partition = partition
        self.path = path
        self.chunk = _Chunk([], bytearray())
        self.chunk_bytes = 0
        self.queue: deque[_Chunk] = deque()
        self.raw_bytes = 0
        self.records = 0
        self.closed = False
        self.streaming = False
        self.draining = False
        self.codec: Codec | None = None
        self.writer: ObjectWriter | None = None
        self.written = 0
        self.raw_written = 0
        self.lines_written = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)


class PartWriter:
    """Writes whole lines into the open part of their partition, and closes parts at their size.

    Use as a context manager: leaving it by an exception aborts every open part.
    """

    def __init__(
        self,
        store: Store,
        name: Callable[[str, int], str],
        *,
        reuse: Reuse,
        compression: Compression,
        level: int | None,
        target_part_bytes: int,
        budget_bytes: int,
        workers: int,
    ) -> None:
        """Open a writer; `name(partition, n)` gives the path of the n-th part."""
        self._store = store
        self._name = name
        self._reuse = reuse
        self._compression: Compression = compression
        self._level = level
        self._target = target_part_bytes
        self._budget = budget_bytes
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="parts")
        self._streams = _STREAMS if store.is_local else _REMOTE_STREAMS
        self._open: dict[str, _OpenPart] = {}
        self._next: dict[str, int] = {}  # the number of each partition's next part
        self._twins: Counter[str] = Counter()
        self._finished: list[Part] = []
        self._all: set[_OpenPart] = set()
        self._held = 0  # bytes of lines in memory
        self._jobs = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._spill = SpillFile("open partitions", "partition by fewer values")

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Abort what is still open, and free threads and spill space."""
        with self._changed:
            self._error = self._error or exc or RuntimeError("closed")
        self._pool.shutdown(wait=True, cancel_futures=True)
        for part in self._all:
            if part.writer is not None:
                part.writer.abort()
        self._spill.close()

    @property
    def partitions(self) -> int:
        """How many partitions have got a line so far."""
        return len(self._next)

    def write(
        self, partition: str, data: memoryview, offsets: memoryview, first: int, last: int
    ) -> None:
        """Add lines `first` to `last` (exclusive); line i is data[offsets[i]:offsets[i + 1]]."""
        while first < last:
            part = self._open.get(partition)
            if part is None:
                part = self._start(partition)
            end = offsets[first] + self._target - part.raw_bytes
            cut = min(bisect_left(offsets, end, first + 1, last), last)
            self._append(part, data[offsets[first] : offsets[cut]])
            part.records += cut - first
            first = cut
            if part.raw_bytes >= self._target:
                self._close(part)
        if self._held > self._budget:
            self._make_room()

    def finish(self) -> list[Part]:
        """Close every open part, wait until all are written, and return them by path."""
        for partition in sorted(self._open):
            self._close(self._open[partition])
        with self._changed:
            self._changed.wait_for(lambda: self._jobs == 0 or self._error is not None)
            self._raise_error()
        return sorted(self._finished, key=lambda part: part.path)

    def _start(self, partition: str) -> _OpenPart:
        if partition not in self._next:
            # On a disk that ignores case, two partitions may be one folder: they share no numbers.
            # They come in the order of their first lines, wherever reads begin.
            folder = unicodedata.normalize("NFC", partition.casefold())
            self._next[partition] = self._twins[folder] * _TWIN_NUMBERS
            self._twins[folder] += 1
        part = _OpenPart(partition, self._name(partition, self._next[partition]))
        self._next[partition] += 1
        self._open[partition] = part
        self._all.add(part)
        return part

    def _append(self, part: _OpenPart, data: memoryview) -> None:
        part.raw_bytes += len(data)
        with self._changed:
            self._held += len(data)
        while len(data):
            room = _CHUNK_BYTES - part.chunk_bytes
            piece = data[:room]
            part.chunk.memory += piece
            part.chunk_bytes += len(piece)
            data = data[room:]
            if part.chunk_bytes == _CHUNK_BYTES:
                self._seal(part)

    def _seal(self, part: _OpenPart) -> None:
        with self._changed:
            self._raise_error()
            part.queue.append(part.chunk)
            part.chunk, part.chunk_bytes = _Chunk([], bytearray()), 0
            if not part.streaming and self._streams > 0:
                part.streaming = True
                self._streams -= 1
            if part.streaming:
                self._submit(part)

    def _close(self, part: _OpenPart) -> None:
        del self._open[part.partition]
        with self._changed:
            self._raise_error()
            part.queue.append(part.chunk)
            part.closed = True
            self._submit(part)

    def _submit(self, part: _OpenPart) -> None:
        if not part.draining:
            part.draining = True
            self._jobs += 1
            future = self._pool.submit(self._drain, part)
            future.add_done_callback(self._note)

    def _note(self, future: "Future[None]") -> None:
        with self._changed:
            if not future.cancelled() and (error := future.exception()) is not None:
                self._error = self._error or error
            self._jobs -= 1
            self._changed.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _drain(self, part: _OpenPart) -> None:
        """On a worker: compress and write the part's queued chunks in order; end it if closed."""
        while True:
            with self._changed:
                if self._error is not None:
                    return
                if not part.queue:
                    part.draining = False
                    break
                chunk = part.queue.popleft()
                last = part.closed and not part.queue
            self._write_chunk(part, chunk)
            with self._changed:
                self._held -= len(chunk.memory)
                self._changed.notify_all()
            if last:
                self._commit(part)
                return

    def _write_chunk(self, part: _OpenPart, chunk: _Chunk) -> None:
        if part.codec is None or part.writer is None:
            part.codec = open_codec(self._compression, self._level)
            part.writer = self._store.open_writer(part.path)
        data = chunk.memory
        if chunk.spilled:
            pieces = [self._spill.read(*place) for place in chunk.spilled]
            data = bytearray(b"".join([*pieces, chunk.memory]))
        part.raw_written += len(data)
        part.lines_written += _count_lines(data)
        self._write_bytes(part, part.codec.compress(data))

    def _write_bytes(self, part: _OpenPart, data: bytes | bytearray) -> None:
        if data and part.writer is not None:
            part.sha256.update(data)
            part.md5.update(data)
            part.written += len(data)
            part.writer.write(memoryview(data))

    def _commit(self, part: _OpenPart) -> None:
        if part.codec is None or part.writer is None:
            raise RuntimeError("a closed part has at least one chunk")
        self._write_bytes(part, part.codec.flush())
        if (part.lines_written, part.raw_written) != (part.records, part.raw_bytes):
            raise QualityError(
                f"{part.writer.url}: took in {part.records} records of {part.raw_bytes} bytes, and "
                f"would hold {part.lines_written} lines of {part.raw_written}; not committed"
            )
        created = part.writer.commit()
        digest = part.sha256.hexdigest()
        if not created:
            self._reuse.check(self._store, part.path, digest)
        with self._changed:
            self._streams += part.streaming
            self._all.discard(part)
            self._finished.append(
                Part(
                    path=part.path,
                    partition=part.partition,
                    bytes=part.written,
                    raw_bytes=part.raw_bytes,
                    records=part.records,
                    sha256=digest,
                    md5=part.md5.hexdigest(),
                )
            )

    def _make_room(self) -> None:
        """Wait for the workers; what they cannot take yet goes to disk, largest first."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._held <= self._budget or self._jobs == 0 or self._error is not None
            )
            self._raise_error()
            if self._held <= self._budget:
                return
            waiting = sorted(
                (part for part in self._all if not part.draining and not part.closed),
                key=lambda part: part.raw_bytes - part.written,
                reverse=True,
            )
            for part in waiting:
                for chunk in (*part.queue, part.chunk):
                    self._spill_chunk(chunk)
                if self._held <= self._budget * _SPILL_TO:
                    return

    def _spill_chunk(self, chunk: _Chunk) -> None:
        if chunk.memory:
            chunk.spilled.append(self._spill.write(chunk.memory))
            self._held -= len(chunk.memory)
            chunk.memory = bytearray()


def _count_lines(data: bytearray) -> int:
    """Count line ends; for long lines by `find`, which is quick where `count` adds up bytes."""
    count, place = 0, data.find(b"\n")
    if place < _LONG_LINE_BYTES:
        return data.count(b"\n")
    while place >= 0:
        count, place = count + 1, data.find(b"\n", place + 1)
    return count
