"""Streaming compression whose bytes depend on its input, level and library version alone."""

from typing import Protocol

import isal
import zstandard
from isal import isal_zlib

from pipelines.config import Compression

_GZIP_WBITS = 31  # zlib's number for a gzip header; ISA-L leaves its time at 0
DEFAULT_LEVELS = {"gzip": 1, "zstd": 3, "none": 0}


class Codec(Protocol):
    """One stream: `compress` as often as needed, then `flush` once."""

    def compress(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return what is ready."""
        ...

    def flush(self) -> bytes:
        """Return the rest and end the stream."""
        ...


class _Plain:
    def compress(self, data: bytes | bytearray) -> bytes | bytearray:
        return data

    def flush(self) -> bytes:
        return b""


def open_codec(compression: Compression, level: int | None) -> Codec:
    """Return a new stream; gzip goes through ISA-L, ten times as fast as zlib."""
    level = DEFAULT_LEVELS[compression] if level is None else level
    if compression == "gzip":
        codec: Codec = isal_zlib.compressobj(level, wbits=_GZIP_WBITS)
        return codec
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
    return _Plain()


def codec_version(compression: Compression) -> str:
    """Return the library and version that make the bytes, for digests."""
    if compression == "gzip":
        return f"isal {isal.__version__}"
    if compression == "zstd":
        return "zstd " + ".".join(str(number) for number in zstandard.ZSTD_VERSION)
    return "none"
