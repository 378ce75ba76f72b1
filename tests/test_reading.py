"""Reading batches: each as what it is, whatever its name, its text and its neighbours."""

import base64
import decimal
import json
import os
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import engine
from pipelines.errors import ConfigError, ContractError
from pipelines.export import run_export
from pipelines.plan import plan_export
from pipelines.scans import Session
from tests.builders import (
    NOW,
    SCHEMA,
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_manifests,
    read_records,
    read_rejects,
    schema_with,
    unchecked_text,
    write_batch,
    write_table,
)

STRUCTS = {"mapping": {"response": {"column": "response", "kind": "struct"}}}
NO_ID = {"mapping": {"id": {"column": "absent", "optional": True}}}
DAY = datetime(2024, 6, 1, tzinfo=UTC)


def padded(count):
    """Requests that no compression and no joining of ranges brings near each other."""
    return [json.dumps({"row": row, "pad": os.urandom(150).hex()}) for row in range(count)]


def damaged(data, column):
    """The batch with garbage in place of a column's first page header; its footer is sound."""
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    offset = next(c.data_page_offset for c in chunks if c.path_in_schema == column)
    garbage = bytes(byte ^ 0xFF for byte in data[offset : offset + 40])
    return data[:offset] + garbage + data[offset + 40 :]


# Types.


def number(column, first, other):
    return pytest.param(column, first, other, [first[1], other[1]], id=f"{first[0]}-{other[0]}")


@pytest.mark.parametrize(
    ("column", "first", "other", "found"),
    [
        number("duration_ms", (pa.int32(), 850), (pa.int64(), 3_000_000_000)),
        number("duration_ms", (pa.int8(), 7), (pa.uint32(), 4_000_000_000)),
        number("cost", (pa.int64(), 2), (pa.float64(), 0.25)),
        number("cost", (pa.float32(), 1.25), (pa.float64(), 0.001234)),
        pytest.param(
            "cost",
            (pa.decimal128(10, 2), decimal.Decimal("1.25")),
            (pa.decimal128(10, 6), decimal.Decimal("0.001234")),
            [1.25, 0.001234],
            id="decimal-scales",
        ),
        pytest.param(
            "received_at",
            (pa.timestamp("s"), datetime(2024, 6, 1)),  # noqa: DTZ001 - a column without a zone
            (pa.timestamp("us", tz="UTC"), datetime(2024, 6, 1, 9, 0, 0, 123456, tzinfo=UTC)),
            ["2024-06-01T00:00:00.000000Z", "2024-06-01T09:00:00.123456Z"],
            id="timestamp-units",
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_a_number_keeps_its_value_beside_another_type(site, column, first, other, *, found, turned):
    for name, (kind, value) in zip("ba" if turned else "ab", (first, other), strict=True):
        data = write_batch([event(id=name, **{column: value})], schema_with(**{column: kind}))
        site.put(f"{name}.parquet", data)

    export(make_config(site, extra_fields=[column]))

    seen = [json.loads(line)[column] for line in read_records(site)]
    assert seen == (found[::-1] if turned else found)


@pytest.mark.parametrize("column", ["response", "tags"])
def test_a_struct_keeps_fields_that_another_batch_lacks(site, column):
    narrow, wide = pa.struct({"a": pa.string()}), pa.struct({"b": pa.string(), "a": pa.string()})
    for name, kind, value in (("1", narrow, {"a": "x"}), ("2", wide, {"b": "z", "a": "y"})):
        row = event(id=name, **{column: value})
        site.put(f"{name}.parquet", write_batch([row], schema_with(**{column: kind})))

    export(make_config(site, source=STRUCTS if column == "response" else {}))

    key = "output" if column == "response" else "tags"
    assert [json.loads(line)[key] for line in read_records(site)] == [
        {"a": "x"},
        {"b": "z", "a": "y"},
    ]


@pytest.mark.parametrize("dates", ["a.parquet", "c.parquet"])
def test_an_event_stands_in_one_window_beside_batches_of_dates(site, dates):
    kinds = {dates: (pa.date32(), [DAY]), "b.parquet": (pa.timestamp("us"), [])}
    kinds["b.parquet"][1].extend([DAY + timedelta(minutes=10), DAY + timedelta(hours=9)])
    for path, (kind, times) in kinds.items():
        rows = events({"id": f"{path}-{n}", "requested_at": t} for n, t in enumerate(times))
        site.put(path, write_batch(rows, schema_with(requested_at=kind)))

    export(
        make_config(site, window={"every": "1h"}, extra_fields=["id"]),
        now=DAY + timedelta(hours=30),
    )

    exported = {m.window[:15]: m.ledger.exported for m in read_manifests(site)}
    assert {start: count for start, count in exported.items() if count} == {
        "20240601T000000": 2,
        "20240601T090000": 1,
    }
    ids = [json.loads(line)["id"] for line in read_records(site)]
    assert sorted(ids) == sorted({f"{dates}-0", "b.parquet-0", "b.parquet-1"})


def test_types_are_compared_with_the_first_batch_that_has_the_column(site):
    kinds = {"a": None, "b": pa.int64(), "c": pa.string()}
    for name, kind in kinds.items():
        rows = [event(duration_ms="12" if name == "c" else 12)]
        site.put(f"{name}.parquet", write_batch(rows, schema_with(duration_ms=kind)))

    with pytest.raises(ContractError, match=r"c\.parquet: column 'duration_ms'.*b\.parquet"):
        export(make_config(site))


# Names of columns.


@pytest.mark.parametrize(
    ("mapped", "columns"),
    [("r", ["R", "r"]), ("r_1", ["R", "r", "r_1"])],
    ids=["case", "renamed-by-duckdb"],
)
def test_columns_that_duckdb_cannot_tell_apart_are_refused(site, mapped, columns):
    schema = schema_with(request=None, **dict.fromkeys(columns, pa.string()))
    site.put("a.parquet", write_batch([event(**dict.fromkeys(columns, "{}"))], schema))

    seen = ", ".join(map(repr, columns))
    with pytest.raises(ContractError, match=rf"a\.parquet: column '{mapped}' is one of {seen}"):
        export(make_config(site, source={"mapping": {"request": mapped}}))


def test_columns_alike_that_nothing_reads_are_no_trouble(site):
    schema = schema_with(Note=pa.string(), note=pa.string())
    site.put("a.parquet", write_batch([event(Note="x", note="y")], schema))

    export(make_config(site))

    assert len(read_records(site)) == 1


def test_a_column_is_found_by_its_exact_name_only(site):
    schema = schema_with(request=None, Request=pa.string(), model=None, Model=pa.string())
    site.put("a.parquet", write_batch([event(Request="{}", Model="m")], schema))

    with pytest.raises(ContractError, match=r"no column 'request'.*nearest is 'Request'"):
        export(make_config(site))

    export(make_config(site, extra_fields=["model"], source={"mapping": {"request": "Request"}}))
    assert [json.loads(line)["model"] for line in read_records(site)] == [None]


def test_a_column_with_a_dot_in_its_name_is_read(site):
    count = 3000
    requests = padded(count)
    table = pa.table(
        {
            "id": [str(row) for row in range(count)],
            "requested_at": pa.array([DAY] * count, pa.timestamp("us", tz="UTC")),
            "req": padded(count),
            "req.body": requests,
            "log": [{"at": row} for row in range(count)],
            "log.body": ["{}"] * count,
        }
    )
    site.put("a.parquet", write_table(table))
    mapping = {"id": "id", "requested_at": "requested_at"}
    mapping |= {"request": "req.body", "response": "log.body"}

    export(make_config(site, source={"preset": None, "mapping": mapping}))

    assert [json.loads(line)["input"] for line in read_records(site)] == [
        json.loads(request) for request in requests
    ]


def test_the_times_of_a_struct_are_not_those_of_a_column_named_alike(site):
    wrong = {"at": datetime(2024, 1, 1, tzinfo=UTC)}
    schema = pa.schema(
        {
            "t": pa.struct({"at": pa.timestamp("us", tz="UTC")}),
            **dict(zip(SCHEMA.names, SCHEMA.types, strict=True)),
            "t.at": pa.timestamp("us", tz="UTC"),
        }
    )
    site.put("a.parquet", write_batch([{**event(), "t": wrong, "t.at": DAY}], schema))

    export(make_config(site, window={"every": "1d"}, source={"mapping": {"requested_at": "t.at"}}))

    assert [m.window[:8] for m in read_manifests(site) if m.ledger.read] == ["20240601"]


# Names of batches.


def test_a_batch_is_read_under_its_own_name(site):
    names = ["a1", "a[1]", "a*", "ab", "q?", "qx", "env=[x]/a", "env=x/a", "*/z[", "[!a]", "\\[1]"]
    names += ["{a,b}", "a#%41", "\\", "[[]"]
    if site.kind == "s3":
        names = [name for name in names if not {"\\", "?"} & set(name)]
    for name in names:
        site.put(f"{name}.parquet", write_batch([event(id=name, request=json.dumps(name))]))

    export(make_config(site))

    paths = [batch.path.removesuffix(".parquet") for batch in read_manifest(site).batches]
    assert sorted(paths) == sorted(names)
    assert [json.loads(line)["input"] for line in read_records(site)] == paths


def test_event_times_are_scanned_in_a_batch_whatever_its_name(site):
    for name, day in (("a[1]", 1), ("a1", 2)):
        table = pa.Table.from_pylist([event(id=name, requested_at=DAY.replace(day=day))], SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, write_statistics=False)
        site.put(f"{name}.parquet", sink.getvalue().to_pybytes())

    export(make_config(site, window={"every": "1d"}))

    held = {m.window[:8]: [b.path for b in m.batches] for m in read_manifests(site)}
    assert {day: paths for day, paths in held.items() if paths} == {
        "20240601": ["a[1].parquet"],
        "20240602": ["a1.parquet"],
    }


def test_a_temporary_folder_that_is_a_pattern_is_refused(s3_site, tmp_path, monkeypatch):
    (tmp_path / "[x]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "[x]"))
    s3_site.put("a.parquet", write_batch([event()]))

    with pytest.raises(ConfigError, match="TMPDIR"):
        export(make_config(s3_site))


# Batches that change, or are damaged.


@pytest.mark.parametrize("step", ["collect_ids", "counts", "collect_keys", "collect_lines"])
def test_a_batch_replaced_while_it_is_read_never_mixes_with_what_it_was(site, monkeypatch, step):
    old, new = (
        write_batch(events({"request": json.dumps([word, row])} for row in range(3)))
        for word in ("old", "new")
    )
    site.put("a.parquet", old)
    run, left = getattr(Session, step), [1]

    def replace_after(session, scan):
        found = run(session, scan)
        if left and left.pop():
            site.put("a.parquet", new)
        return found

    monkeypatch.setattr(Session, step, replace_after)

    order = {"order_by": "requested_at"} if step == "collect_lines" else {}
    config = make_config(site, remove_duplicates="record", **order)
    export(config)

    assert not left
    if site.kind == "s3" and step in {"counts", "collect_lines"}:
        # All that these read was there before the batch was replaced: the run commits what it
        # listed, and the next one finds the change.
        assert [json.loads(line)["input"][0] for line in read_records(site)] == ["old"] * 3
        export(config)
    assert [json.loads(line)["input"][0] for line in read_records(site)] == ["new"] * 3
    (batch,) = read_manifest(site).batches
    assert batch.etag == site.source.stat("a.parquet").etag


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        ("request", {}),
        ("request", {"order_by": "requested_at"}),
        ("id", {}),
        ("request", {"remove_duplicates": "input"}),
    ],
    ids=["lines", "ordered", "ids", "keys"],
)
def test_a_damaged_page_names_its_batch(site, column, changes):
    for name in "abc":
        data = write_batch(events({"id": f"{name}-{row}"} for row in range(500)))
        site.put(f"{name}.parquet", damaged(data, column) if name == "b" else data)

    config = make_config(site, source={"on_unreadable_batch": "skip"}, **changes)
    summary = run_export(config, now=NOW)

    (failed,) = summary.failed
    assert failed.error.startswith("reading b.parquet: ")
    assert "skip covers batches whose footer cannot be read" in failed.error
    assert read_manifests(site) == []


# Text that is not UTF-8.


def test_an_id_that_is_not_utf8_is_read_where_only_ids_were_fetched(site):
    count = 3000
    table = pa.Table.from_pylist(events({"request": text} for text in padded(count)), SCHEMA)
    ids = unchecked_text(b"\xff" if row == 7 else b"%d" % row for row in range(count))
    site.put("a.parquet", write_table(table.set_column(0, SCHEMA.field("id"), ids)))
    site.put("b.parquet", write_batch([event(id="8")]))  # received as late, and later by path

    export(make_config(site))

    assert read_manifest(site).ledger.exported == count
    assert read_manifest(site).ledger.superseded == 1


def nested(kind, texts):
    text = unchecked_text(texts)
    bounds = list(range(len(text) + 1))
    if kind == "map":
        return pa.MapArray.from_arrays(bounds, pa.array(["k"] * len(text)), text)
    if kind == "list":
        return pa.ListArray.from_arrays(bounds, text)
    if kind == "pairs":
        names = pa.array(["k"] * len(text))
        pairs = pa.StructArray.from_arrays([names, text], ["name", "value"])
        return pa.ListArray.from_arrays(bounds, pairs)
    return pa.StructArray.from_arrays([text], ["k"])


def with_nested(column, kind, texts):
    rows = events({"id": str(row), "request": f"[{row}]"} for row in range(len(texts)))
    table = pa.Table.from_pylist(rows, SCHEMA)
    array = nested(kind, texts)
    place = SCHEMA.get_field_index(column)
    return write_table(table.set_column(place, column, array), row_group_size=2)


@pytest.mark.parametrize("kind", ["map", "list", "pairs", "struct"])
def test_nested_tags_that_are_not_utf8_are_rejects(site, kind):
    texts = [b"k:ok", b"k:\xff", b"k:\xc3\xa9", b'k:"\x80', b"k:ok"]
    site.put("a.parquet", with_nested("tags", kind, texts))
    site.put("b.parquet", with_nested("tags", kind, [b"k:b"]))

    export(make_config(site, source=NO_ID, max_reject_ratio=1))

    found = [json.loads(line) for line in read_records(site)]
    assert [record["input"] for record in found] == [[0], [2], [4], [0]]
    value = "%s" if kind == "list" else "k:%s"
    assert [r["tags"]["k"] for r in found] == [value % text for text in ("ok", "é", "ok", "b")]
    rejects = read_rejects(site)
    assert [(r["reason"], r["batch"], r["row"]) for r in rejects] == [
        ("tags_not_object", "a.parquet", 1),
        ("tags_not_object", "a.parquet", 3),
    ]
    raw = [base64.b64decode(reject["raw"]["tags"]["base64"]) for reject in rejects]
    assert b"k:\xff" in raw[0]
    assert b'k:\\"\x80' in raw[1]
    assert rejects[0]["raw"]["request"] == "[1]"


@pytest.mark.parametrize("changes", [{}, {"order_by": "requested_at"}], ids=["as-read", "ordered"])
def test_a_nested_payload_that_is_not_utf8_is_a_reject(site, changes):
    site.put("a.parquet", with_nested("response", "struct", [b"ok", b"\xff", None]))

    export(make_config(site, source=STRUCTS, max_reject_ratio=1, **changes))

    found = [json.loads(line)["output"] for line in read_records(site)]
    assert found == [{"k": "ok"}, {"k": None}]
    (reject,) = read_rejects(site)
    assert (reject["reason"], reject["row"]) == ("response_not_json", 1)
    assert reject["detail"] == "bytes that are not UTF-8"
    assert base64.b64decode(reject["raw"]["response"]["base64"]) == b'{"k":"\xff"}'


def test_an_event_time_in_text_that_is_not_utf8_is_undated(site):
    rows = events({} for _ in range(3))
    table = pa.Table.from_pylist([{**row, "requested_at": None} for row in rows], SCHEMA)
    times = unchecked_text([b"2024-06-01T09:30:00Z", b"\xff", b"2024-06-01T10:30:00Z"])
    place = SCHEMA.get_field_index("requested_at")
    site.put("a.parquet", write_table(table.set_column(place, "requested_at", times)))

    export(make_config(site, window={"every": "1d"}, max_reject_ratio=1))

    assert len(read_records(site)) == 2
    assert [reject["reason"] for reject in read_rejects(site)] == ["event_time_invalid"]


# Where batches lie, and what reading may take.


def test_event_times_are_scanned_within_the_configs_limits(site, monkeypatch):
    seen = []
    open_engine = engine.open_engine

    def watched(**options):
        seen.append((options["memory_limit"], options["threads"]))
        return open_engine(**options)

    monkeypatch.setattr("pipelines.sources.batches.open_engine", watched)
    times = schema_with(requested_at=pa.date32())
    site.put("a.parquet", write_batch([event(requested_at=DAY)], times))

    export(make_config(site, memory_limit="400MB", threads=1))

    assert seen == [(400_000_000, 1)]


@pytest.mark.parametrize(
    ("below", "found"),
    [
        pytest.param("/[!xl]*.parquet", ["y1"], id="negated"),
        pytest.param("/[^xl]*.parquet", ["y1"], id="negated-as-in-bash"),
        pytest.param("/[w-x]1.parquet", ["x1"], id="range"),
        pytest.param("/[]x]1.parquet", ["x1"], id="bracket-in-set"),
        pytest.param("/[]/*", [], id="empty-set"),
        pytest.param("/{x,y}1.parquet", ["x1", "y1"], id="alternatives"),
        pytest.param("/{x?,d/*}.parquet", ["d/z", "x1"], id="alternatives-of-patterns"),
        pytest.param("/logs.parquet", ["logs.parquet/part-0"], id="spark-folder"),
        pytest.param("/l*.parquet", ["logs.parquet/part-0"], id="spark-folder-by-pattern"),
        pytest.param("/d[!x]z.parquet", [], id="no-set-holds-a-slash"),
        pytest.param("/{braces}", ["{braces}/a"], id="braces-of-a-name"),
    ],
)
def test_a_pattern_picks_batches_as_a_shell_does(site, below, found):
    for name in ("x1", "y1", "d/z", "logs.parquet/part-0", "logs.parquet.bak/part-1", "{braces}/a"):
        site.put(f"{name}.parquet", write_batch([event(id=name, request=json.dumps(name))]))

    config = make_config(site, source={"url": site.source_url + below})
    if not found:
        assert plan_export(config, now=NOW).batches == 0
        return
    export(config)

    assert [json.loads(line)["input"] for line in read_records(site)] == found


@pytest.mark.parametrize("below", ["[z-a]*.parquet", "{a,{b,c}}.parquet", "{{b,c},a}/*"])
def test_a_pattern_that_is_none_is_a_config_error(site, below):
    config = make_config(site, source={"url": f"{site.source_url}/{below}"})

    with pytest.raises(ConfigError, match=r"source\.url: "):
        plan_export(config, now=NOW)


def test_a_pattern_in_place_of_a_bucket_is_a_config_error(s3_site):
    with pytest.raises(ConfigError, match=r"source\.url: 's3://\*/x'"):
        plan_export(make_config(s3_site, source={"url": "s3://*/x"}), now=NOW)
