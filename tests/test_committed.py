"""Committed records: whole generations, checked, in order, whatever happens meanwhile."""

import gzip
import json
import math
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import duckdb
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines
from pipelines import part_reader
from pipelines.committed import open_export
from pipelines.errors import (
    ConfigError,
    QualityError,
    StorageError,
    ThrottledError,
    WindowChangedError,
)
from pipelines.layout import MANIFESTS_PREFIX, OWNER_PATH
from pipelines.manifest import read_manifest as read_generation
from pipelines.record_text import cut_record, parse_record
from pipelines.storage import Store
from tests.builders import (
    event,
    events,
    export,
    make_config,
    read_manifests,
    read_records,
    split_lines,
    unpack,
    write_batch,
)
from tests.conftest import Site
from tests.hostile import STRICT

DAILY = {"every": "1d", "lag": "20m", "start": "2024-06-01"}
ONE_LINE = {name: text.replace("\n", "").replace("\r", "") for name, text in STRICT.items()}
ENDS = {"gzip": ".jsonl.gz", "zstd": ".jsonl.zst", "none": ".jsonl"}


def day(number, hour=0):
    return datetime(2024, 6, number, hour, tzinfo=UTC)


def opened(site, **options):
    return open_export(site.destination_url, storage_options=site.storage_options, **options)


def run(config, **options):
    """Export the windows up to the fourth of June."""
    return export(config, now=day(5, 1), **options)


def put_days(site, *days, count=3, **changes):
    """A batch for each day, with records of two models."""
    for number in days:
        rows = [
            event(
                id=f"{number}-{place}",
                requested_at=day(number, place % 24),
                model=("a", "b/c", None)[place % 3],
                **changes,
            )
            for place in range(count)
        ]
        site.put(f"{number}.parquet", write_batch(rows))


def daily(site, **changes):
    return make_config(site, window=DAILY, partition_by=["date", "model"], **changes)


def in_order(site):
    """All committed lines by window and path of the part."""
    return [
        line
        for manifest in read_manifests(site)
        for part in sorted(manifest.parts, key=lambda part: part.path)
        for line in split_lines(unpack(part.path, site.destination.read_bytes(part.path)))
    ]


def overwrite(site, path, data):
    site.put(path, data, url=site.destination_url)


def drop_parts(site, manifest):
    for part in manifest.parts:
        site.destination.delete(part.path)


@pytest.fixture
def reads(monkeypatch):
    """Bytes read so far, by path."""
    counted: Counter[str] = Counter()
    read_bytes = Store.read_bytes

    def count(self, path, **options):
        data = read_bytes(self, path, **options)
        counted[path] += len(data)
        return data

    monkeypatch.setattr(Store, "read_bytes", count)
    return counted


@pytest.fixture
def small_pieces(monkeypatch):
    """Parts of a few KB are read in many pieces and blocks."""
    monkeypatch.setattr(part_reader, "_PIECE_BYTES", 1000)
    monkeypatch.setattr(part_reader, "_AHEAD_BYTES", 3000)
    monkeypatch.setattr(part_reader, "_BLOCK_BYTES", 700)


@pytest.mark.parametrize("compression", ENDS)
@pytest.mark.usefixtures("small_pieces")
def test_lines_are_all_committed_records_in_order(site, compression):
    put_days(site, 1, 2, 3, count=60)
    run(daily(site, compression=compression))

    found = opened(site)

    assert list(found.lines()) == in_order(site)
    assert sorted(found.lines()) == sorted(read_records(site))
    assert len(in_order(site)) == 180
    assert {path.endswith(ENDS[compression]) for path in found.data_files} == {True}


def test_a_window_tells_what_its_manifest_says(site):
    put_days(site, 1, 2)
    run(daily(site))

    windows = opened(site).windows

    manifests = read_manifests(site)
    assert [window.name for window in windows] == [manifest.window for manifest in manifests]
    assert [window.ledger for window in windows] == [manifest.ledger for manifest in manifests]
    assert [window.committed_at for window in windows] == [m.committed_at for m in manifests]
    assert windows[0].generation == 1
    assert windows[0].manifest_url == site.destination.absolute_url(manifests[0].path)
    assert [part.path for part in windows[0].parts] == sorted(p.path for p in manifests[0].parts)


def test_data_files_are_opened_by_other_readers(file_site):
    put_days(file_site, 1, 2)
    run(daily(file_site))

    files = opened(file_site).data_files

    with duckdb.connect() as con:
        counted = con.sql("from read_json($files)", params={"files": list(files)}).shape
    assert counted[0] == 6
    assert len(files) == 6


def test_parsed_records_equal_the_lines(site):
    put_days(site, 1)
    run(daily(site))

    assert list(opened(site)) == [json.loads(line) for line in in_order(site)]


def test_a_config_and_a_path_open_the_same_export(file_site):
    put_days(file_site, 1)
    config = daily(file_site)
    run(config)
    path = file_site.destination_url.removeprefix("file://")

    assert list(open_export(config)) == list(open_export(path)) == list(opened(file_site))
    assert open_export(path).url == file_site.destination_url


def test_the_package_has_open_export_and_nothing_made_up():
    assert pipelines.open_export is open_export
    with pytest.raises(AttributeError, match="no attribute 'open_exports'"):
        pipelines.open_exports  # noqa: B018


def test_an_export_without_committed_windows_is_empty(site):
    site.destination.create(OWNER_PATH, b"{}")

    found = opened(site)

    assert found.windows == found.data_files == ()
    assert list(found) == list(found.lines()) == []
    assert found.reader().read_all().column_names == ["input", "output", "tags", "window"]


def test_a_place_without_an_export_is_refused(site):
    site.put("data/a.jsonl", b"{}\n", url=site.destination_url)

    with pytest.raises(ConfigError, match=r"no export here: there is neither _meta/owner\.json"):
        opened(site)


def test_an_export_whose_owner_record_was_not_copied_is_read(site):
    put_days(site, 1)
    run(daily(site))
    site.destination.delete(OWNER_PATH)

    assert len(list(opened(site))) == 3


def test_a_config_of_another_export_is_refused(file_site):
    put_days(file_site, 1)
    run(daily(file_site))

    with pytest.raises(ConfigError, match="belongs to another export"):
        open_export(make_config(file_site, window=DAILY, name="another"))


def test_storage_options_beside_a_config_are_refused(file_site):
    with pytest.raises(ConfigError, match="storage_options"):
        open_export(daily(file_site), storage_options={})


# What is chosen


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        pytest.param(day(2), None, [2, 3, 4], id="start"),
        pytest.param(None, day(3), [1, 2], id="end"),
        pytest.param(day(2), day(3), [2], id="whole"),
        pytest.param(day(2, 23), day(3, 1), [2, 3], id="overlapping"),
        pytest.param(day(20), day(21), [], id="none"),
        pytest.param(
            datetime(2024, 6, 3, 1, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 6, 3, 2, tzinfo=timezone(timedelta(hours=2))),
            [2],
            id="another-zone",
        ),
    ],
)
def test_start_and_end_choose_whole_windows(file_site, start, end, days):
    put_days(file_site, 1, 2, 3, 4)
    file_site.put("undated.parquet", write_batch([event(id="x", requested_at=None)]))
    run(daily(file_site, max_reject_ratio=1))

    found = opened(file_site, start=start, end=end)

    assert [window.name[6:8] for window in found.windows] == [f"{number:02d}" for number in days]
    assert len(list(found)) == 3 * len(days)


def test_start_reads_no_manifest_and_no_part_of_other_windows(site, reads):
    put_days(site, 1, 2)
    run(daily(site))
    reads.clear()

    list(opened(site, start=day(2)))

    assert {path for path in reads if "20240601" in path} == set()


def test_an_export_of_one_window_has_none_to_choose_from(site):
    put_days(site, 1)
    run(make_config(site))

    with pytest.raises(ConfigError, match="no windows to choose from"):
        opened(site, start=day(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"start": datetime(2024, 6, 1)}, "start: .* no time zone", id="naive"),  # noqa: DTZ001
        pytest.param({"as_of": datetime(2024, 6, 1)}, "as_of: .* no time zone", id="naive-as-of"),  # noqa: DTZ001
        pytest.param({"start": day(2), "end": day(2)}, "is not before end", id="nothing-between"),
        pytest.param({"as_of": day(2), "generation": 1}, "give one of them", id="both"),
        pytest.param({"generation": 0}, "generations 1 to 1", id="generation-0"),
        pytest.param({"generation": 2}, "generations 1 to 1", id="unknown-generation"),
        pytest.param(
            {"partitions": {"modle": "a"}},
            "'modle'; did you mean 'model'.; its keys are date, model",
            id="unknown-key",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(file_site, options, message):
    put_days(file_site, 1)
    run(daily(file_site))

    with pytest.raises(ConfigError, match=message):
        opened(file_site, **options)


def test_partitions_of_an_export_without_keys_are_refused(file_site):
    put_days(file_site, 1)
    run(make_config(file_site))

    with pytest.raises(ConfigError, match="it has none"):
        opened(file_site, partitions={"model": "a"})


@pytest.mark.parametrize(
    ("partitions", "count"),
    [
        pytest.param({"model": "a"}, 2, id="one-key"),
        pytest.param({"model": "b/c", "date": "2024-06-02"}, 1, id="escaped-and-date"),
        pytest.param({"model": None}, 2, id="null"),
        pytest.param({"model": "__HIVE_DEFAULT_PARTITION__"}, 2, id="null-as-hive-writes-it"),
        pytest.param({"date": day(1).date()}, 3, id="a-date"),
        pytest.param({"model": "x"}, 0, id="no-such-value"),
        pytest.param({}, 6, id="nothing-chosen"),
    ],
)
def test_partitions_choose_parts(site, partitions, count, reads):
    put_days(site, 1, 2)
    run(daily(site))
    reads.clear()

    found = opened(site, partitions=partitions)

    assert len(list(found)) == len(found.data_files) == count
    assert sum(path.startswith("data/") for path in reads) == count


# Generations


def export_twice(site, **changes):
    """Two generations of one day; returns the manifests."""
    put_days(site, 1)
    config = daily(site, destination={"keep_generations": 2}, **changes)
    run(config)
    site.put("late.parquet", write_batch([event(id="late", model="a", requested_at=day(1, 5))]))
    run(config)
    window = read_manifests(site)[0].window
    return [read_generation(site.destination, window, number) for number in (1, 2)]


def test_generation_gives_the_older_one(site):
    export_twice(site)

    assert len(list(opened(site))) == 4
    assert len(list(opened(site, generation=2, end=day(2)))) == 4
    assert len(list(opened(site, generation=1))) == 3


def test_a_generation_that_a_window_lacks_is_refused(site):
    export_twice(site)

    with pytest.raises(ConfigError, match=r"window 20240602T\w+ has generations 1 to 1"):
        opened(site, generation=2)


def test_as_of_gives_what_was_committed_by_then(site):
    first, second = export_twice(site)
    times = [datetime.fromisoformat(manifest.committed_at) for manifest in (first, second)]
    earlier = replace(first, committed_at="2024-06-02T00:00:00Z")
    overwrite(site, first.path, earlier.to_json())

    assert len(list(opened(site, as_of=times[1]))) == 4
    assert len(list(opened(site, as_of=day(2)))) == 3
    assert len(list(opened(site, as_of=times[1] - timedelta(days=1)))) == 3
    assert opened(site, as_of=day(1)).windows == ()


@pytest.mark.parametrize("option", ["generation", "as_of"])
def test_an_old_generation_that_was_collected_is_no_longer_kept(site, option):
    first, _ = export_twice(site)
    overwrite(site, first.path, replace(first, committed_at="2024-06-02T00:00:00Z").to_json())
    drop_parts(site, first)

    found = opened(site, **{option: 1 if option == "generation" else day(2)})

    with pytest.raises(QualityError, match=r"generation 1 of window 20240601T.* no longer kept"):
        list(found)


def test_undated_is_no_obstacle_to_a_generation(site):
    config = make_config(site, max_reject_ratio=1)
    site.put("undated.parquet", write_batch([event(id="x", requested_at=None)]))
    run(config)
    put_days(site, 1)
    run(config)

    assert [manifest.generation for manifest in read_manifests(site)] == [2, 1]
    assert len(list(opened(site, generation=2))) == 3


# While the export goes on


@pytest.mark.usefixtures("small_pieces")
def test_a_generation_committed_while_reading_is_not_mixed_in(site):
    put_days(site, 1, 2, count=60)
    config = daily(site)
    run(config)
    before = in_order(site)
    lines = opened(site).lines()
    read = [next(lines)]

    put_days(site, 1, 2, count=61)
    run(config)
    read += lines

    assert read == before
    assert len(list(opened(site))) == 122


def replace_generation(site, config):
    """Commit a newer generation of every window and collect the former."""
    former = read_manifests(site)
    put_days(site, 1, 2, count=90)
    run(config)
    for manifest in former:
        drop_parts(site, manifest)


def test_a_window_not_begun_goes_over_to_the_newer_generation(site):
    put_days(site, 1, 2)
    config = daily(site)
    run(config)
    found = opened(site)
    windows = found.windows
    replace_generation(site, config)

    assert list(windows[0].lines()) + list(windows[1].lines()) == in_order(site)
    assert windows[0].generation == 2
    assert list(found.lines()) == in_order(site)


@pytest.mark.usefixtures("small_pieces")
def test_a_window_that_was_begun_is_to_be_read_again(site):
    put_days(site, 1, 2, count=60)
    config = daily(site, compression="none")
    run(config)
    window = opened(site).windows[0]
    lines = window.lines()
    next(lines)
    replace_generation(site, config)

    with pytest.raises(WindowChangedError, match="generation 1 is no longer kept") as caught:
        list(lines)

    assert caught.value.window == window.name
    assert window.generation == 2
    assert list(opened(site, end=day(2)).lines()) == list(window.lines())


def test_chosen_partitions_stay_chosen_in_the_newer_generation(site):
    put_days(site, 1, 2)
    config = daily(site)
    run(config)
    window = opened(site, partitions={"model": "a"}).windows[0]
    replace_generation(site, config)

    assert len(list(window.lines())) == 30


def test_a_part_that_was_lost_is_named(site):
    put_days(site, 1)
    run(daily(site))
    part = read_manifests(site)[0].parts[0]
    site.destination.delete(part.path)

    with pytest.raises(QualityError, match=r"no longer there.*`request-logs repair`") as caught:
        list(opened(site))

    assert site.destination.absolute_url(part.path) in str(caught.value)


@pytest.mark.usefixtures("small_pieces")
def test_a_lost_part_of_many_pieces_is_named(site):
    put_days(site, 1, count=90)
    run(make_config(site, compression="none"))
    site.destination.delete(read_manifests(site)[0].parts[0].path)

    with pytest.raises(QualityError, match="no longer there"):
        list(opened(site))


@pytest.mark.usefixtures("small_pieces")
def test_a_part_that_is_overwritten_while_it_is_read_is_an_error(site):
    put_days(site, 1, count=90)
    run(make_config(site, compression="none"))
    path = read_manifests(site)[0].parts[0].path
    data = site.destination.read_bytes(path)
    lines = opened(site).lines()
    next(lines)

    overwrite(site, path, bytes(reversed(data)))

    with pytest.raises(QualityError, match=r"overwritten while it was read|no longer there"):
        list(lines)


# Damage


@pytest.fixture(params=["one-piece", "many-pieces"])
def pieces(request):
    if request.param == "many-pieces":
        request.getfixturevalue("small_pieces")


@pytest.mark.parametrize("compression", ENDS)
@pytest.mark.usefixtures("pieces")
def test_a_flipped_byte_is_found(site, compression):
    put_days(site, 1, count=90, response=json.dumps({"a": [str(n) for n in range(20)]}))
    run(make_config(site, compression=compression))
    path = read_manifests(site)[0].parts[0].path
    data = bytearray(site.destination.read_bytes(path))
    data[len(data) // 2] ^= 1
    overwrite(site, path, bytes(data))

    for read in (lambda found: list(found.lines()), list, lambda found: found.reader().read_all()):
        with pytest.raises(QualityError, match="verify --deep") as caught:
            read(opened(site))
        assert site.destination.absolute_url(path) in str(caught.value)


@pytest.mark.parametrize("compression", ENDS)
@pytest.mark.parametrize("change", [-7, 3], ids=["cut-off", "appended-to"])
@pytest.mark.usefixtures("pieces")
def test_a_part_of_another_size_is_found(site, compression, change):
    put_days(site, 1, count=90)
    run(make_config(site, compression=compression))
    path = read_manifests(site)[0].parts[0].path
    data = site.destination.read_bytes(path)
    overwrite(site, path, data[:change] if change < 0 else data + b"x" * change)

    with pytest.raises(QualityError, match=r"the part is damaged.*`request-logs repair --deep`"):
        list(opened(site))


def test_nothing_of_a_small_damaged_part_is_handed_out(file_site):
    put_days(file_site, 1)
    run(make_config(file_site, compression="none"))
    path = read_manifests(file_site)[0].parts[0].path
    overwrite(file_site, path, file_site.destination.read_bytes(path).replace(b"Hello", b"HELLO"))

    with pytest.raises(QualityError):
        next(opened(file_site).lines())


def forge(site, compression, data, **changes):
    """Commit an export, then put another object and a manifest that names its digest."""
    put_days(site, 1)
    run(make_config(site, compression=compression))
    manifest = read_manifests(site)[0]
    (part,) = manifest.parts
    overwrite(site, part.path, data)
    stated = {"raw_bytes": part.raw_bytes, "records": part.records} | changes
    forged = replace(part, bytes=len(data), sha256=sha256(data).hexdigest(), **stated)
    overwrite(site, manifest.path, replace(manifest, parts=(forged,)).to_json())
    return list(opened(site).lines())


LINE = b'{"input":1,"output":2,"tags":{}}\n'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(LINE) + gzip.compress(LINE * 2), id="gzip"),
        pytest.param(
            gzip.compress(LINE * 2) + gzip.compress(b"") + gzip.compress(LINE), id="empty"
        ),
    ],
)
def test_gzip_members_are_one_text(file_site, data):
    assert forge(file_site, "gzip", data, raw_bytes=3 * len(LINE)) == [LINE[:-1]] * 3


def test_zstd_frames_are_one_text(file_site):
    compress = zstandard.ZstdCompressor().compress
    data = compress(LINE) + compress(LINE * 2)

    assert forge(file_site, "zstd", data, raw_bytes=3 * len(LINE)) == [LINE[:-1]] * 3


@pytest.mark.parametrize(
    ("compression", "data", "message"),
    [
        pytest.param("none", LINE * 2, "holds 2 records of 66 bytes", id="too-few"),
        pytest.param("none", LINE * 2 + LINE[:-1], "ends within a line", id="no-line-end"),
        pytest.param("none", b"", "holds 0 records", id="empty"),
        pytest.param("gzip", LINE, "cannot be decompressed", id="no-gzip"),
        pytest.param("gzip", gzip.compress(LINE)[:-4], "cannot be decompressed", id="torn-gzip"),
        pytest.param("zstd", LINE, "cannot be decompressed", id="no-zstd"),
    ],
)
def test_a_part_that_is_no_text_of_records_is_found(file_site, compression, data, message):
    with pytest.raises(QualityError, match=message):
        forge(file_site, compression, data)


@pytest.mark.parametrize("error", [StorageError, ThrottledError])
def test_a_refusal_of_the_store_stays_what_it_is(file_site, monkeypatch, error):
    put_days(file_site, 1)
    run(daily(file_site))
    found = opened(file_site).windows

    def refuse(*_, **__):
        raise error("not now")

    monkeypatch.setattr(Store, "read_bytes", refuse)

    with pytest.raises(error, match="not now") as caught:
        list(found[0].lines())

    assert type(caught.value) is error


# Memory


@pytest.mark.parametrize("compression", ENDS)
@pytest.mark.usefixtures("small_pieces")
def test_the_first_record_needs_only_the_first_pieces(site, compression, reads):
    noise = random.Random(7).randbytes  # noqa: S311 - text that does not compress
    rows = events({"response": json.dumps(noise(200).hex())} for _ in range(3000))
    site.put("a.parquet", write_batch(rows))
    run(make_config(site, compression=compression))
    size = read_manifests(site)[0].parts[0].bytes
    reads.clear()

    lines = opened(site).lines()
    next(lines)

    read = sum(count for path, count in reads.items() if path.startswith("data/"))
    assert size > 600_000
    assert read < 150_000  # a block of zstd holds 128 KiB of text
    lines.close()


@pytest.mark.usefixtures("small_pieces")
def test_pieces_wait_while_nobody_takes_them(file_site, reads):
    put_days(file_site, *range(1, 4), count=90)
    run(make_config(file_site, compression="none"))
    reads.clear()
    lines = opened(file_site).lines()

    taken = most = 0
    for line in lines:
        read = sum(count for path, count in reads.items() if path.startswith("data/"))
        most = max(most, read - taken)
        taken += len(line) + 1

    assert taken > 50_000
    assert most < 6000


def test_opening_reads_no_manifest(site, reads):
    put_days(site, 1)
    run(daily(site))
    reads.clear()

    opened(site)

    assert not [path for path in reads if path.startswith((MANIFESTS_PREFIX, "data/"))]


def test_manifests_are_read_a_few_ahead(file_site, reads):
    rows = [event(id=str(n), requested_at=day(1) + timedelta(hours=n)) for n in range(40)]
    file_site.put("a.parquet", write_batch(rows))
    run(make_config(file_site, window=DAILY | {"every": "1h"}))
    reads.clear()

    windows = opened(file_site).iter_windows()
    next(windows)

    assert sum(path.startswith(MANIFESTS_PREFIX) for path in reads) <= 17
    assert len(list(windows)) >= 39


@pytest.mark.usefixtures("small_pieces")
def test_a_line_longer_than_a_block_is_whole(site):
    long = json.dumps("x" * 50_000)
    site.put("a.parquet", write_batch(events([{}, {"response": long}, {}])))
    run(make_config(site))

    assert list(opened(site).lines()) == in_order(site)
    assert [record["output"] == json.loads(long) for record in opened(site)] == [False, True, False]


# Text


HOSTILE = {name: text for name, text in ONE_LINE.items() if name != "20-mb"}


@pytest.fixture(scope="module")
def hostile_export(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    site = Site("file", f"file://{place}/source", f"file://{place}/destination")
    rows = events([{"request": text, "response": text} for text in STRICT.values()])
    site.put("a.parquet", write_batch(rows))
    run(make_config(site, extra_fields=["id", "model"], order_by=None))
    return site


def test_values_are_text_as_recorded(hostile_export):
    table = opened(hostile_export).reader().read_all()

    assert table.schema == pa.schema(
        dict.fromkeys(("input", "output", "tags", "id", "model"), pa.large_string())
        | {"window": pa.string()}
    )
    assert table["input"].to_pylist() == table["output"].to_pylist() == list(ONE_LINE.values())
    assert table["id"].to_pylist() == [f'"call-{number}"' for number in range(len(ONE_LINE))]
    assert set(table["tags"].to_pylist()) == {'{"prompt_id":"greet"}'}


def test_every_record_is_parsed(hostile_export):
    parsed = [record["output"] for record in opened(hostile_export)]

    assert len(parsed) == len(ONE_LINE)
    by_name = dict(zip(ONE_LINE, parsed, strict=True))
    assert by_name["25-digit-integer"] == 1234567890123456789012345
    assert by_name["beyond-double"] == math.inf
    for name, text in ONE_LINE.items():
        if not name.startswith("deep-"):
            assert by_name[name] == json.loads(text)


def test_a_lone_surrogate_escape_is_no_obstacle():
    line = rb'{"input":"\ud800","output":1,"tags":{}}'

    assert parse_record(line)["input"] == "\ud800"
    assert cut_record(line, ("input", "output", "tags"))[0] == r'"\ud800"'


def test_numbers_of_any_length_and_depths_of_any_size_are_parsed():
    depth = 50_000
    line = b'{"a":-%s,"b":%s1%s,"c":{"d":"\\ud800","e":[{},[],null]}}' % (
        b"9" * 5000,
        b"[" * depth,
        b"]" * depth,
    )

    found = parse_record(line)

    assert found["a"] == -math.inf
    assert found["c"] == {"d": "\ud800", "e": [{}, [], None]}
    inner = found["b"]
    for _ in range(depth - 1):
        (inner,) = inner
    assert inner == [1]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut-off"),
        pytest.param(b"\xff", id="not-utf-8"),
        pytest.param(b"[" * 5000 + b"]" * 6000, id="deep-and-closed-too-often"),
        pytest.param(b'{"a":nope,"b":' + b"[" * 5000, id="deep-and-no-literal"),
    ],
)
def test_what_is_not_json_is_a_value_error(line):
    with pytest.raises(ValueError, match=r".+"):
        parse_record(line)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_payload_that_has_the_keys_of_a_record_is_cut_where_it_ends(name):
    payload = f'{{"output":{HOSTILE[name]} ,"output":{HOSTILE[name]},"tags": {{"tags":1}}}}'
    values = [f" {payload}", f" {HOSTILE[name]}\t", '{"a":"b","tags":"c","id":"d"}', '"e"']
    line = '{{"input":{},"output":{},"tags":{},"id":{}}}'.format(*values)

    assert cut_record(line.encode(), ("input", "output", "tags", "id")) == values


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"output":1,"input":2,"tags":{}}', id="order"),
        pytest.param(b'{"input":1,"tags":{}}', id="missing"),
        pytest.param(b'{"input":1,"output":2,"tags":{', id="cut-off"),
        pytest.param(b'{"input":[1,"output":2,"output":3,"tags":{}}', id="never-closed"),
    ],
)
def test_what_is_no_record_cannot_be_cut(line):
    with pytest.raises(ValueError, match=r".+"):
        cut_record(line, ("input", "output", "tags"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(list(HOSTILE)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "output", "tags", "id", '"', "\\"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(JSON, min_size=4, max_size=4), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_any_values_are_cut_where_they_end(values, separators):
    texts = [json.dumps(value, separators=separators, ensure_ascii=False) for value in values]
    line = '{{"input":{},"output":{},"tags":{},"id":{}}}'.format(*texts)

    assert cut_record(line.encode(), ("input", "output", "tags", "id")) == texts


# Arrow and DuckDB


def test_partitions_and_windows_are_columns(site):
    put_days(site, 1, 2)
    run(daily(site))

    table = opened(site).reader(rows=1).read_all()

    assert table.column_names == ["input", "output", "tags", "date", "model", "window"]
    assert set(table["date"].to_pylist()) == {"2024-06-01", "2024-06-02"}
    assert table["model"].to_pylist() == [None, "a", "b/c"] * 2
    assert table["window"].to_pylist()[0] == "20240601T000000Z_20240602T000000Z"


def test_batches_have_at_most_so_many_rows(file_site):
    put_days(file_site, 1, count=20)
    run(make_config(file_site))

    assert [batch.num_rows for batch in opened(file_site).reader(rows=8)] == [8, 8, 4]


@pytest.mark.parametrize("rows", [0, -1])
def test_a_batch_of_no_records_is_refused(file_site, rows):
    file_site.put("a.parquet", write_batch([event()]))
    export(make_config(file_site))

    with pytest.raises(ConfigError, match=f"rows: {rows} is no size of a batch"):
        opened(file_site).reader(rows=rows)


def test_windows_with_other_fields_have_nulls(file_site):
    put_days(file_site, 1, 2)
    run(daily(file_site), start=day(1), end=day(2))
    run(daily(file_site, extra_fields=["id"]), start=day(2), end=day(3))

    table = opened(file_site).reader().read_all()

    assert table["id"].null_count == 3
    assert [value for value in table["id"].to_pylist() if value] == ['"2-2"', '"2-0"', '"2-1"']


def test_a_key_named_window_does_not_hide_the_window(file_site):
    put_days(file_site, 1)
    key = {"name": "Window", "expression": "'x'"}
    run(make_config(file_site, partition_by=[key]))

    table = opened(file_site).reader().read_all()

    assert table.column_names[-2:] == ["Window", "window_"]
    assert set(table["window_"].to_pylist()) == {"all"}


def test_a_relation_is_aggregated_in_duckdb(site):
    put_days(site, 1, 2, count=30)
    run(daily(site))

    with duckdb.connect() as con:
        found = opened(site).relation(con)
        counted = found.aggregate("model, count(*) as n, min(input->>'model') as own", "model")
        rows = counted.order("model").fetchall()

    assert rows == [("a", 20, "gpt-4o"), ("b/c", 20, "gpt-4o"), (None, 20, "gpt-4o")]


def test_damage_ends_a_query(file_site):
    put_days(file_site, 1)
    run(make_config(file_site, compression="none"))
    path = read_manifests(file_site)[0].parts[0].path
    overwrite(file_site, path, file_site.destination.read_bytes(path).replace(b"Hello", b"HELLO"))

    with duckdb.connect() as con, pytest.raises(duckdb.Error, match="has other bytes"):
        opened(file_site).relation(con).aggregate("count(output)").fetchall()
