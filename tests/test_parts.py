"""Parts: the bytes of an object depend on its lines alone, and nothing half-written is left."""

import errno
import os
import random
import struct

import pytest

from pipelines.errors import QualityError, ResourceError
from pipelines.parts import PartExistsError, PartWriter, Reuse
from pipelines.storage import Store
from tests.builders import unpack

MIB = 1024**2


def name_part(partition, number):
    return f"data/p={partition}/{number:05d}.jsonl"


def open_writer(store, **changes):
    settings = {
        "reuse": Reuse(frozenset(), age_seconds=1800),
        "compression": "none",
        "level": None,
        "target_part_bytes": 1 << 40,
        "budget_bytes": 64 * MIB,
        "workers": 3,
        **changes,
    }
    return PartWriter(store, settings.pop("name", name_part), **settings)


def write_lines(writer, partition, lines):
    """Write lines in one call, as a read of them comes."""
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    table = memoryview(struct.pack(f"{len(offsets)}q", *offsets))
    writer.write(partition, memoryview(b"".join(lines)), table.cast("q"), 0, len(lines))


def contents(store):
    return {found.path: store.read_bytes(found.path) for found in store.list_objects("data/")}


def write_random(store, *, size=200, reads=120, **changes):
    """Write many reads of seeded lines into eight partitions; return the parts."""
    random_lines = random.Random(7)  # noqa: S311 - no secret
    with open_writer(store, **changes) as writer:
        for _ in range(reads):
            lines = [
                random_lines.randbytes(random_lines.randrange(size * 90)).hex().encode() + b"\n"
                for _ in range(4)
            ]
            write_lines(writer, str(random_lines.randrange(8)), lines)
        return writer.finish()


def test_lines_come_back_in_order(site):
    lines = [b'{"n":%d}\n' % number for number in range(1000)]

    with open_writer(site.destination) as writer:
        for start in range(0, 1000, 100):
            write_lines(writer, "a", lines[start : start + 100])
        (part,) = writer.finish()

    assert site.destination.read_bytes(part.path) == b"".join(lines)
    assert (part.records, part.raw_bytes) == (1000, sum(map(len, lines)))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_spilling_never_alters_bytes(file_site, compression):
    large, tiny = (file_site.store(f"{file_site.destination_url}-{n}") for n in "ab")

    write_random(large, compression=compression)
    write_random(tiny, compression=compression, budget_bytes=20_000)

    assert contents(large) == contents(tiny)


def test_spilling_in_short_writes_and_reads_never_alters_bytes(file_site, monkeypatch):
    large, tiny = (file_site.store(f"{file_site.destination_url}-{n}") for n in "ab")
    write, read = os.pwrite, os.pread

    write_random(large)
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:999], at))
    monkeypatch.setattr(os, "pread", lambda file, size, at: read(file, min(size, 998), at))
    write_random(tiny, budget_bytes=20_000)

    assert contents(large) == contents(tiny)


def fill_disk(monkeypatch):
    """Let the disk take the half of one write, and then nothing."""
    write, calls = os.pwrite, []

    def fill(file, data, at):
        calls.append(at)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: len(data) // 2], at)

    monkeypatch.setattr(os, "pwrite", fill)


def test_disk_that_gets_full_while_spilling_is_an_error(file_site, monkeypatch):
    fill_disk(monkeypatch)

    with pytest.raises(ResourceError, match=r"no space left to spill.*TMPDIR"):
        write_random(file_site.destination, budget_bytes=20_000)

    assert file_site.paths() == []


@pytest.mark.parametrize("break_read", [lambda *_: b"", lambda *_: os.read(-1, 1)])
def test_spilled_bytes_that_cannot_be_read_back_are_an_error(file_site, monkeypatch, break_read):
    monkeypatch.setattr(os, "pread", break_read)

    with pytest.raises(ResourceError, match=r"cannot read back what was spilled.*TMPDIR"):
        write_random(file_site.destination, budget_bytes=20_000)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"two\nlines\n", b"x\n"], id="line-break-within"),
        pytest.param([b"no line end", b"x\n"], id="no-line-end"),
    ],
)
def test_part_of_other_lines_than_its_records_is_not_committed(site, lines):
    with open_writer(site.destination) as writer:
        write_lines(writer, "a", lines)
        with pytest.raises(QualityError, match=r"took in 2 records .* would hold [13] lines"):
            writer.finish()

    assert site.paths() == []


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_workers_never_alter_bytes(file_site, compression):
    one, many = (file_site.store(f"{file_site.destination_url}-{n}") for n in "ab")

    write_random(one, compression=compression, workers=1, target_part_bytes=MIB)
    write_random(many, compression=compression, workers=4, target_part_bytes=MIB)

    assert contents(one) == contents(many)


def test_size_of_reads_never_alters_bytes(file_site):
    one, many = (file_site.store(f"{file_site.destination_url}-{n}") for n in "ab")
    lines = [b"%d%s\n" % (number, b"x" * (number % 700)) for number in range(9000)]

    for store, step in ((one, 9000), (many, 37)):
        with open_writer(store, compression="gzip", target_part_bytes=100_000) as writer:
            for start in range(0, len(lines), step):
                write_lines(writer, "a", lines[start : start + step])
            writer.finish()

    assert contents(one) == contents(many)
    assert len(contents(one)) > 10


def test_part_closes_at_its_size_on_a_whole_line(file_site):
    with open_writer(file_site.destination, target_part_bytes=25) as writer:
        write_lines(writer, "a", [b"123456789\n"] * 7)
        parts = writer.finish()

    assert [(part.path[-11:], part.records, part.raw_bytes) for part in parts] == [
        ("00000.jsonl", 3, 30),
        ("00001.jsonl", 3, 30),
        ("00002.jsonl", 1, 10),
    ]


def test_line_longer_than_a_part_is_a_part_of_its_own(file_site):
    with open_writer(file_site.destination, target_part_bytes=5) as writer:
        write_lines(writer, "a", [b"123456789\n", b"1\n"])
        parts = writer.finish()

    assert [part.records for part in parts] == [1, 1]


def test_line_longer_than_a_chunk_is_kept_whole(site):
    line = b"x" * (3 * MIB + 17) + b"\n"

    with open_writer(site.destination, compression="gzip") as writer:
        write_lines(writer, "a", [b"a\n", line, b"b\n"])
        (part,) = writer.finish()

    data = site.destination.read_bytes(part.path)
    assert unpack("x.gz", data) == b"a\n" + line + b"b\n"


def test_thousands_of_partitions_are_all_written(file_site):
    with open_writer(file_site.destination, compression="gzip", budget_bytes=30_000) as writer:
        for turn in range(2):
            for number in range(3000):
                write_lines(writer, str(number), [b'{"n":%d,"turn":%d}\n' % (number, turn)])
        parts = writer.finish()

    assert len(parts) == 3000
    assert {part.records for part in parts} == {2}
    assert writer.partitions == 3000
    found = contents(file_site.destination)
    assert unpack("x.gz", found[name_part("77", 0)]) == b'{"n":77,"turn":0}\n{"n":77,"turn":1}\n'


def test_parts_are_numbered_within_their_partition(file_site):
    with open_writer(file_site.destination) as writer:
        for partition in ("b", "a", "c"):
            write_lines(writer, partition, [b"1\n"])
        parts = writer.finish()

    assert [part.path for part in parts] == [name_part(partition, 0) for partition in "abc"]


def test_partitions_that_differ_in_case_alone_get_names_of_their_own(file_site):
    with open_writer(file_site.destination) as writer:
        for partition in ("A", "a"):
            write_lines(writer, partition, [b"1\n"])
        parts = writer.finish()

    names = [part.path.rpartition("/")[2] for part in parts]
    assert [part.path for part in parts] == [name_part("A", 0), name_part("a", 1_000_000)]
    assert len(set(names)) == 2


def test_names_of_partitions_that_differ_in_case_are_the_same_for_any_reads(file_site):
    events = [("GPT" if number % 3 else "gpt", b"%05d\n" % number) for number in range(90)]

    def write(store, step):
        with open_writer(store, target_part_bytes=30) as writer:
            for start in range(0, len(events), step):
                read = events[start : start + step]
                for partition in dict.fromkeys(partition for partition, _ in read):
                    write_lines(
                        writer, partition, [text for name, text in read if name == partition]
                    )
            writer.finish()
        return contents(store)

    found = [write(file_site.store(f"{file_site.destination_url}-{n}"), n) for n in (1, 7, 64)]

    assert found[0] == found[1] == found[2]


def test_equal_part_that_exists_is_reused(site):
    first = write_random(site.destination, reads=10)
    before = [(f.path, f.modified_at, f.etag) for f in site.destination.list_objects()]

    again = write_random(site.destination, reads=10)

    assert again == first
    assert [(f.path, f.modified_at, f.etag) for f in site.destination.list_objects()] == before


def test_part_that_exists_with_other_bytes_is_not_overwritten(site):
    site.destination.create(name_part("a", 0), b"other\n")

    with open_writer(site.destination) as writer:
        write_lines(writer, "a", [b"1\n"])
        with pytest.raises(PartExistsError, match="exists with other bytes"):
            writer.finish()

    assert contents(site.destination) == {name_part("a", 0): b"other\n"}


def test_exception_leaves_no_object(site):
    def fail():
        with open_writer(site.destination, budget_bytes=MIB) as writer:
            write_lines(writer, "a", [b"x" * MIB + b"\n"] * 5)
            write_lines(writer, "b", [b"1\n"])
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()

    assert site.paths() == []


def test_error_of_a_worker_surfaces(file_site, monkeypatch):
    def refuse(_store, path):
        raise OSError(f"refused {path}")

    def write_much():
        with open_writer(file_site.destination) as writer:
            for _ in range(50):
                write_lines(writer, "a", [b"x" * MIB + b"\n"])
            writer.finish()

    monkeypatch.setattr(Store, "open_writer", refuse)

    with pytest.raises(OSError, match="refused data/p=a"):
        write_much()


def test_writer_without_lines_has_no_parts(file_site):
    with open_writer(file_site.destination) as writer:
        parts = writer.finish()

    assert parts == []
    assert file_site.paths() == []
