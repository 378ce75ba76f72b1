import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.codecs import open_codec

SYNC_MARK = b"\x00\x00\xff\xff"  # ends a block at a byte
TEXT = b'{"input":{"model":"m"},"output":null,"tags":{}}\n' * 40_000


def compress(chunks, compression="gzip", level=None):
    codec = open_codec(compression, level)
    return b"".join([*(bytes(codec.compress(chunk)) for chunk in chunks), codec.flush()])


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_first_bytes_of_a_gzip_stream_are_a_block_of_their_own(level):
    """Or the bytes would depend on where in memory the stream lies; see `_Gzip`."""
    data = compress([TEXT], level=level)

    end = data.index(SYNC_MARK) + len(SYNC_MARK)
    assert end < 200  # level 0 starts with a table of all lengths
    first = zlib.decompressobj(31).decompress(data[:end])
    assert first == TEXT[: len(first)]
    assert 0 < len(first) <= 16


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60).map(bytearray), max_size=4))
def test_any_chunks_come_back_from_one_gzip_member(chunks):
    data = compress(chunks)

    whole = zlib.decompressobj(31)
    assert whole.decompress(data) == b"".join(chunks)
    assert whole.eof
    assert not whole.unused_data


def test_a_gzip_stream_has_no_time():
    assert compress([TEXT])[4:8] == bytes(4)


@pytest.mark.parametrize("level", [None, 1, 19])
def test_a_zstd_frame_is_checked_and_every_reader_has_memory_for_it(level):
    """RFC 8878 asks decoders for a window of 8 MiB, and no more."""
    data = compress([bytearray(TEXT)] * 8, "zstd", level)

    frame = zstandard.get_frame_parameters(data)
    assert frame.has_checksum
    assert frame.window_size <= 8 * 1024**2
    reader = zstandard.ZstdDecompressor(max_window_size=8 * 1024**2).stream_reader(data)
    assert reader.read() == TEXT * 8
