"""Streaming compression whose bytes depend on its input, level and library version alone."""

import gzip
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

import isal
import zstandard
from isal import igzip, isal_zlib

from pipelines.config import Compression

_GZIP_WBITS = 31  # zlib's number for a gzip header; ISA-L leaves its time at 0
_FIRST_BLOCK_BYTES = 16  # no more than what ISA-L leaves to its finish (MIN_INBUF_PADDING)
DEFAULT_LEVELS = {"gzip": 1, "zstd": 0, "none": 0}  # 0 of zstd: `_zstd_parameters`
DECODE_ERRORS = (
    EOFError,
    gzip.BadGzipFile,
    cast("type[Exception]", isal_zlib.error),  # its stub says that it is an instance
    zstandard.ZstdError,
)


class Codec(Protocol):
    """One stream: `compress` as often as needed, then `flush` once."""

    def compress(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return what is ready."""
        ...

    def flush(self) -> bytes:
        """Return the rest and end the stream."""
        ...


class _Gzip:
    """ISA-L, with the first bytes in a block of their own.

    Where a body of text starts a stream, ISA-L 2.32 files the third position under a hash of its
    stream's address (`.write_first_byte` of igzip_icf_body_h1_gr_bt.asm reads a register that was
    never set), so that about one stream in 9,000 had other bytes in another process. A block of so
    few bytes goes another way, and the history is no longer empty when the body starts.
    """

    def __init__(self, level: int) -> None:
        self._codec = isal_zlib.compressobj(level, wbits=_GZIP_WBITS)
        self._started = False

    def compress(self, data: bytes | bytearray) -> bytes:
        if self._started or not data:
            return self._codec.compress(data)
        self._started = True
        with memoryview(data) as text:
            first = self._codec.compress(text[:_FIRST_BLOCK_BYTES])
            first += self._codec.flush(isal_zlib.Z_SYNC_FLUSH)
            return first + self._codec.compress(text[_FIRST_BLOCK_BYTES:])

    def flush(self) -> bytes:
        return self._codec.flush()


class _Plain:
    def compress(self, data: bytes | bytearray) -> bytes | bytearray:
        return data

    def flush(self) -> bytes:
        return b""


def open_codec(compression: Compression, level: int | None) -> Codec:
    """Return a new stream; gzip goes through ISA-L, ten times as fast as zlib."""
    level = DEFAULT_LEVELS[compression] if level is None else level
    if compression == "gzip":
        return _Gzip(level)
    if compression == "zstd":
        return zstandard.ZstdCompressor(compression_params=_zstd_parameters(level)).compressobj()
    return _Plain()


def _zstd_parameters(level: int) -> zstandard.ZstdCompressionParameters:
    """The parameters of a level; 0 is ours for logs, in which long texts come again.

    The quickest strategy, with matches of seven bytes from a window of 4 MiB (level 1: 512 KiB):
    about as small as level 3, in four fifths of its time.
    """
    if level:
        return zstandard.ZstdCompressionParameters.from_level(level, write_checksum=True)
    return zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=22,
        hash_log=16,
        chain_log=6,
        search_log=1,
        min_match=7,
        write_checksum=True,
    )


class Plain(Protocol):
    """The uncompressed bytes of one stream."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end; may raise one of `DECODE_ERRORS`."""
        ...


def open_plain(compressed: BinaryIO, path: str) -> Plain:
    """Return what a stream holds, decompressed as it is read; the end of `path` tells the codec.

    Members and frames that follow each other are one text. A torn stream may end without an error.
    """
    if path.endswith(".gz"):
        gzip_file: Callable[..., Plain] = igzip.IGzipFile
        return gzip_file(fileobj=compressed, mode="rb")
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True)
    return compressed


def codec_version(compression: Compression) -> str:
    """Return the library and version that make the bytes, for digests."""
    if compression == "gzip":
        return f"isal {isal.__version__}, first block {_FIRST_BLOCK_BYTES}"
    if compression == "zstd":
        return "zstd " + ".".join(str(number) for number in zstandard.ZSTD_VERSION)
    return "none"
