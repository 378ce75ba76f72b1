import re
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import dataset

from pipelines.errors import ConfigError, QualityError
from pipelines.layout import (
    HIVE_NULL,
    MAX_DATE_PREFIXES,
    SUFFIXES,
    DatePath,
    PartName,
    canonical_value,
    escape_value,
    manifest_path,
    manifests_prefix,
    parse_generation,
    parse_part,
    parse_partition,
    parse_rejects,
    part_path,
    partition_path,
    rejects_path,
    unescape_value,
    window_prefix,
)

DIGEST = "0123456789abcdef"
WINDOW = "20231215T000000Z_20231216T000000Z"

# 60 characters and a key of 3, each of 4 bytes at most, keep a directory name below its limit.
SHORT_TEXT = st.text(max_size=60)
KEYS = st.text(min_size=1, max_size=3).filter(lambda key: key[0] not in "_.")
PARTITIONS = st.lists(st.tuples(KEYS, st.none() | SHORT_TEXT), max_size=4)
NASTY_VALUES = [
    "a b",
    " a ",
    "gpt-4o:2024/08",
    "a=b&c",
    "50%",
    "%41",
    "%zz",
    "1+1",
    "..",
    ".",
    "_x",
    ".x",
    "é 漢字 🎉 e\u0301",
    "q?x*[y]{z}^",
    "\"'\\",
    "\t\n\r\x7f",
    "nul\x00",
    "\u2028\x85",
    "$HOME<>|~`!",
    "007",
    "1.0",
    "2023-12-15",
    "true",
    "inf",
    "null",
]


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def write_part(tmp_path, value):
    path = tmp_path / part_path(
        partition_path(["model"], [value]), "20231215T000000Z", DIGEST, 0, 0, ".jsonl"
    )
    path.parent.mkdir(parents=True)
    path.write_text('{"input": 1, "output": null, "tags": {}}\n')


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("gpt-4o", "gpt-4o"),
        ("a/b", "a%2Fb"),
        ("\"#%'*/:=?\\{[]^", "%22%23%25%27%2A%2F%3A%3D%3F%5C%7B%5B%5D%5E"),
        ("\x00\x01\n\x1f\x7f", "%00%01%0A%1F%7F"),
        (" !$&()+,-.;<>@_`|}~", " !$&()+,-.;<>@_`|}~"),
        ("é漢🎉\x80", "é漢🎉\x80"),
    ],
)
def test_values_are_escaped_as_hive_escapes_them(value, escaped):
    assert escape_value(value) == escaped


@given(value=st.text())
def test_no_escaped_value_leaves_its_directory(value):
    assert not re.search(r"[/\\\x00-\x1f\x7f=]", escape_value(value))


@given(value=st.text())
def test_an_escaped_value_comes_back(value):
    assert unescape_value(escape_value(value)) == value


def test_a_percent_that_starts_no_escape_stays():
    assert unescape_value("50% %4 %zz %2f") == "50% %4 %zz /"


def test_a_partition_is_key_value_directories_in_order():
    assert partition_path(["date", "model"], ["2023-12-15", "gpt-4o"]) == (
        "date=2023-12-15/model=gpt-4o"
    )


def test_no_keys_make_the_empty_partition():
    assert partition_path([], []) == ""
    assert parse_partition("") == ()


@pytest.mark.parametrize("value", [None, "", HIVE_NULL])
def test_null_empty_and_the_default_name_are_one_partition_read_as_null(value):
    path = partition_path(["model"], [value])

    assert path == f"model={HIVE_NULL}"
    assert parse_partition(path) == (("model", None),)


@given(partition=PARTITIONS)
def test_a_partition_comes_back_from_its_path(partition):
    path = partition_path([key for key, _ in partition], [value for _, value in partition])

    assert parse_partition(path) == tuple((key, canonical_value(value)) for key, value in partition)


@given(left=SHORT_TEXT, right=SHORT_TEXT)
def test_distinct_values_have_distinct_directories(left, right):
    assume(canonical_value(left) != canonical_value(right))

    assert partition_path(["key"], [left]) != partition_path(["key"], [right])


@pytest.mark.parametrize("path", ["model", "=x", "a=b/", "/a=b", "a=b//c=d"])
def test_a_directory_that_is_not_key_value_is_no_partition(path):
    with pytest.raises(ValueError, match="is not a partition directory"):
        parse_partition(path)


@pytest.mark.parametrize("value", ["x" * 250, "é" * 125, "/" * 84])
def test_a_directory_name_beyond_the_file_system_limit_names_key_and_length(value):
    with pytest.raises(QualityError, match=r"'model'.* 25[68] bytes.*shortens it") as caught:
        partition_path(["model"], [value])

    assert value[:5] not in str(caught.value)  # an event's own text


def test_a_directory_name_at_the_file_system_limit_can_be_made(tmp_path):
    path = tmp_path / partition_path(["model"], ["x" * 249])

    path.mkdir()

    assert len(path.name) == 255


@pytest.mark.parametrize("key", ["", "_team", ".team"])
def test_a_key_that_readers_would_hide_is_refused(key):
    with pytest.raises(ConfigError, match="partition key"):
        partition_path([key], ["x"])


def test_keys_and_values_come_in_pairs():
    with pytest.raises(ValueError, match="shorter"):
        partition_path(["date", "model"], ["2023-12-15"])


@pytest.mark.parametrize("value", NASTY_VALUES)
def test_duckdb_reads_the_value_back(tmp_path, value):
    write_part(tmp_path, value)

    with duckdb.connect() as con:
        values = con.execute(
            "select model from read_json($parts, hive_partitioning = true, "
            "hive_types = {'model': varchar})",
            {"parts": f"{tmp_path}/data/**/*.jsonl"},
        ).fetchall()

    assert values == [(value,)]


@pytest.mark.parametrize("value", NASTY_VALUES)
def test_pyarrow_reads_the_value_back(tmp_path, value):
    write_part(tmp_path, value)
    keys = dataset.partitioning(pa.schema([("model", pa.string())]), flavor="hive")

    records = dataset.dataset(tmp_path / "data", format="json", partitioning=keys).to_table()

    assert records["model"].to_pylist() == [value]


@pytest.mark.parametrize("value", [None, "", HIVE_NULL])
def test_duckdb_and_pyarrow_read_the_default_partition_as_null(tmp_path, value):
    write_part(tmp_path, value)
    keys = dataset.partitioning(pa.schema([("model", pa.string())]), flavor="hive")

    with duckdb.connect() as con:
        by_duckdb = con.execute(
            "select model from read_json($parts, hive_partitioning = true)",
            {"parts": f"{tmp_path}/data/**/*.jsonl"},
        ).fetchall()
    by_pyarrow = dataset.dataset(tmp_path / "data", format="json", partitioning=keys).to_table()

    assert by_duckdb == [(None,)]
    assert by_pyarrow["model"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("partition", "attempt", "path"),
    [
        ("", 0, f"data/20231215T000000Z-{DIGEST}-00003-00012.jsonl.gz"),
        ("a=b/c=d", 0, f"data/a=b/c=d/20231215T000000Z-{DIGEST}-00003-00012.jsonl.gz"),
        ("a=b", 2, f"data/a=b/20231215T000000Z-{DIGEST}-00003-00012-a2.jsonl.gz"),
    ],
)
def test_the_path_of_a_part_says_where_it_comes_from(partition, attempt, path):
    assert part_path(partition, "20231215T000000Z", DIGEST, 3, 12, ".jsonl.gz", attempt) == path


@given(
    partition=PARTITIONS,
    name=st.builds(
        PartName,
        st.sampled_from(["all", "undated", "20231215T000000Z"]),
        st.text("0123456789abcdef", min_size=16, max_size=16),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(0, 12),
    ),
    suffix=st.sampled_from(sorted(SUFFIXES.values())),
)
def test_a_part_comes_back_from_its_path(partition, name, suffix):
    directory = partition_path([key for key, _ in partition], [value for _, value in partition])

    path = part_path(
        directory, name.window_prefix, name.digest, name.shard, name.part, suffix, name.attempt
    )

    assert parse_part(path) == name


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"prefix": "20231215"}, id="prefix"),
        pytest.param({"digest": DIGEST.upper()}, id="digest-upper-case"),
        pytest.param({"digest": DIGEST[:15]}, id="digest-short"),
        pytest.param({"shard": -1}, id="shard"),
        pytest.param({"part": -1}, id="part"),
        pytest.param({"attempt": -1}, id="attempt"),
        pytest.param({"suffix": ".parquet"}, id="suffix"),
        pytest.param({"partition": "../x"}, id="partition"),
    ],
)
def test_a_part_that_could_not_be_parsed_is_refused(change):
    good = {
        "partition": "a=b",
        "prefix": "all",
        "digest": DIGEST,
        "shard": 0,
        "part": 0,
        "suffix": ".jsonl",
    }

    with pytest.raises(ValueError, match="is not the path of a part"):
        part_path(**(good | change))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data/_SUCCESS",
        "data/notes.jsonl",
        f"all-{DIGEST}-00000-00000.jsonl",
        f"_meta/all-{DIGEST}-00000-00000.jsonl",
        f"data/x/all-{DIGEST}-00000-00000.jsonl",
        f"data/../all-{DIGEST}-00000-00000.jsonl",
        f"data/all-{DIGEST}-0-00000.jsonl",
        f"data/all-{DIGEST}-000001-00000.jsonl",
        f"data/all-{DIGEST}-00000-00000-a0.jsonl",
        f"data/all-{DIGEST}-00000-00000.jsonl.gz.tmp",
        f"data/all-{DIGEST}-00000-00000.jsonl\n",
    ],
)
def test_a_foreign_object_is_not_a_part(path):
    assert parse_part(path) is None


def test_manifests_of_a_window_lie_under_its_name():
    assert manifest_path(WINDOW, 1) == f"{manifests_prefix(WINDOW)}00000001.json"
    assert manifests_prefix(WINDOW) == f"_meta/manifests/{WINDOW}/"


@given(generation=st.integers(1, 99_999_999))
def test_a_generation_comes_back_from_its_path(generation):
    assert parse_generation(manifest_path("all", generation)) == generation


@pytest.mark.parametrize("generation", [0, -1, 100_000_000])
def test_a_generation_whose_path_would_not_sort_is_refused(generation):
    with pytest.raises(ValueError, match="generation"):
        manifest_path("all", generation)


@pytest.mark.parametrize(
    "path",
    [
        "00000001.json",
        "_meta/manifests/all/1.json",
        "_meta/manifests/all/00000000.json",
        "_meta/manifests/all/00000001.json.tmp",
        "_meta/manifests/all/x/00000001.json",
        "_meta/owner.json",
    ],
)
def test_a_foreign_object_is_not_a_manifest(path):
    assert parse_generation(path) is None


def test_rejects_lie_under_their_window():
    assert rejects_path(WINDOW, DIGEST, 7) == f"_meta/rejects/{WINDOW}/{DIGEST}-00007.jsonl.gz"


@pytest.mark.parametrize("window", ["all", "undated", WINDOW])
@pytest.mark.parametrize("attempt", [0, 3])
def test_rejects_come_back_from_their_path(window, attempt):
    found = parse_rejects(rejects_path(window, DIGEST, 7, attempt))

    assert found == PartName(window_prefix(window), DIGEST, 7, 0, attempt)


@pytest.mark.parametrize(
    ("window", "digest", "shard", "attempt"),
    [(WINDOW, "../x", 0, 0), (WINDOW, DIGEST, -1, 0), (WINDOW, DIGEST, 0, -1), ("x", DIGEST, 0, 0)],
)
def test_rejects_without_a_proper_name_are_refused(window, digest, shard, attempt):
    with pytest.raises(ValueError, match="rejects"):
        rejects_path(window, digest, shard, attempt)


@pytest.mark.parametrize(
    "path",
    [
        f"_meta/rejects/all/{DIGEST}-00000.jsonl",
        f"_meta/rejects/all/{DIGEST}-00000-a0.jsonl.gz",
        f"_meta/rejects/20240601/{DIGEST}-00000.jsonl.gz",
        "_meta/rejects/notes.txt",
    ],
)
def test_a_foreign_object_is_no_rejects(path):
    assert parse_rejects(path) is None


@pytest.mark.parametrize(
    ("template", "path", "start", "length"),
    [
        (
            "year=%Y/month=%m/day=%d/hour=%H",
            "year=2023/month=12/day=15/hour=07/x.parquet",
            "2023-12-15T07:00",
            timedelta(hours=1),
        ),
        (
            "year=%Y/month=%m/day=%d/hour=%H",
            "year=2023/month=2/day=5/hour=0/x.parquet",
            "2023-02-05T00:00",
            timedelta(hours=1),
        ),
        ("date=%Y-%m-%d", "date=2023-12-15/a/b.parquet", "2023-12-15", timedelta(days=1)),
        ("date=%Y-%m-%d", "date=2023-12-15", "2023-12-15", timedelta(days=1)),
        ("%Y/%m/%d", "2023/12/31/x", "2023-12-31", timedelta(days=1)),
        ("%Y%m%d", "20231231/x", "2023-12-31", timedelta(days=1)),
        ("region=eu/%Y-%m", "region=eu/2023-12/x", "2023-12-01", timedelta(days=31)),
        ("%d.%m.%Y", "29.02.2024/x", "2024-02-29", timedelta(days=1)),
        ("%Y", "2024/x", "2024-01-01", timedelta(days=366)),
    ],
)
def test_a_date_path_stands_for_its_finest_unit(template, path, start, length):
    assert DatePath(template).parse(path) == (at(start), at(start) + length)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("date=%Y-%m-%d", "x.parquet"),
        ("date=%Y-%m-%d", "a/date=2023-12-15/x"),
        ("date=%Y-%m-%d", "date=2023-12-15-x/x"),
        ("date=%Y-%m-%d", "date=2023-02-30/x"),
        ("date=%Y-%m-%d", f"date={HIVE_NULL}/x"),
        ("%Y/%m", "2023/13/x"),
        ("%Y/%m", "2023/0/x"),
        ("%Y/%m/%d", "2023/1/05/x"),
        ("%Y", "0000/x"),
        ("%Y", "9999/x"),
        ("%Y", "20231/x"),
        ("%Y", "२०२३/x"),
        ("%Y/%m/%d", "9999/12/31/x"),
        ("%Y%m%d", "2023115/x"),
    ],
)
def test_a_path_without_a_date_of_the_template_may_hold_any_time(template, path):
    assert DatePath(template).parse(path) is None


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("date=%Y-%j", "'%j'"),
        ("%Y/%y", "'%y'"),
        ("%Y/%Y", "once at most"),
        ("%Y%%", "'%%'"),
        ("%Y/100%", "'%'"),
        ("%m/%d", "%Y is needed"),
        ("%Y/%d", "%m before a %d"),
        ("%Y/%m/%H", "%d before a %H"),
        ("", "%Y is needed"),
        ("events", "%Y is needed"),
        ("*/%Y", "wildcards"),
        ("/%Y", "slash"),
        ("%Y/", "slash"),
    ],
)
def test_a_template_that_could_not_be_followed_is_a_config_error(template, problem):
    with pytest.raises(ConfigError, match=problem):
        DatePath(template)


@pytest.mark.parametrize(
    ("template", "interval", "prefixes"),
    [
        pytest.param(
            "date=%Y-%m-%d",
            ("2023-12-30", "2024-01-01"),
            ["date=2023-12-30/", "date=2023-12-31/"],
            id="days",
        ),
        pytest.param(
            "%Y/%m/%d",
            ("2023-12-31T23:59:59.999999", "2024-01-01T00:00:00.000001"),
            ["2023/12/31/", "2024/01/01/", "2024/1/1/"],
            id="both-ways-to-write-a-number",
        ),
        pytest.param(
            "%Y%m%d%H", ("2023-01-01T01:00", "2023-01-01T02:00"), ["2023010101/"], id="hour"
        ),
        pytest.param(
            "%Y%m%d",
            ("2023-01-15", "2023-06-15"),
            [f"20230{month}" for month in range(1, 7)],
            id="months-for-more-than-100-days",
        ),
        pytest.param(
            "a=%Y-%m",
            ("2001-01-01", "2011-01-01"),
            [f"a={year}-" for year in range(2001, 2011)],
            id="years-for-more-than-100-months",
        ),
        pytest.param("a=%Y", ("1900-01-01", "2011-01-01"), ["a="], id="head-for-centuries"),
        pytest.param("%d/%Y/%m", ("2001-01-01", "2002-01-01"), [""], id="all-without-an-order"),
        pytest.param("a=%Y", ("9999-01-01", "9999-12-31"), ["a=9999/"], id="last-year"),
        pytest.param("a=%Y", ("2011-01-01", "2011-01-01"), [], id="empty"),
    ],
)
def test_prefixes_are_the_directories_to_list(template, interval, prefixes):
    assert DatePath(template).prefixes(*map(at, interval)) == tuple(prefixes)


@pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=1))])
def test_prefixes_of_instants_outside_utc_are_refused(zone):
    with pytest.raises(ValueError, match="not both in UTC"):
        DatePath("%Y").prefixes(at("2023-01-01").replace(tzinfo=zone), at("2024-01-01"))


DATE_TEMPLATES = [
    "year=%Y/month=%m/day=%d/hour=%H",
    "date=%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%Y%m%d/%H",
    "eu/%Y-%m",
    "v1%Y",
    "%d-%m-%Y",
    "%m/%H/%Y/%d",
    "%Y/%m0/%d1",
]
INSTANTS = st.integers(0, 400 * 365 * 86_400 * 10**6).map(
    lambda microseconds: at("1801-01-01") + timedelta(microseconds=microseconds)
)


@st.composite
def dated_paths(draw):
    """A template, an instant, and the path a writer of that template gives it."""
    template = draw(st.sampled_from(DATE_TEMPLATES))
    instant = draw(INSTANTS)
    touching = re.search(r"%[mdH](?:%|\d)|%Y%", template)
    width = 2 if touching else draw(st.sampled_from([1, 2]))
    path = template.replace("%Y", f"{instant.year:04d}")
    for directive, number in (("%m", instant.month), ("%d", instant.day), ("%H", instant.hour)):
        path = path.replace(directive, f"{number:0{width}d}")
    return template, instant, f"{path}/part.parquet"


@given(dated=dated_paths())
def test_the_date_path_of_an_instant_holds_it(dated):
    template, instant, path = dated

    parsed = DatePath(template).parse(path)

    assert parsed is not None
    assert parsed[0] <= instant < parsed[1]


@given(
    dated=dated_paths(),
    before=st.timedeltas(timedelta(0), timedelta(days=400)),
    after=st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
)
def test_a_dated_path_is_listed_once_when_its_time_is_wanted(dated, before, after):
    template, instant, path = dated

    prefixes = DatePath(template).prefixes(instant - before, instant + after)

    assert len(prefixes) <= MAX_DATE_PREFIXES
    assert len([prefix for prefix in prefixes if path.startswith(prefix)]) == 1
