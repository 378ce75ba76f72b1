"""Fields of an event from columns of any type: values out of range never stop an export."""

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from pipelines.errors import ConfigError
from tests.builders import (
    EVENT,
    INSTANT,
    SCHEMA,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    read_rejects,
    schema_with,
    unchecked_text,
    write_batch,
    write_table,
)


def extras_of(site, field, values, kind, **changes):
    """One extra field of each exported record, as its JSON text, from a column of any type."""
    rows = events({field: value} for value in values)
    site.put("batch.parquet", write_batch(rows, schema_with(**{field: kind})))
    export(make_config(site, extra_fields=[field], **changes))
    marker = f',"{field}":'.encode()
    return [line.rpartition(marker)[2].removesuffix(b"}").decode() for line in read_records(site)]


# Errors.

OPENPIPE = pa.schema(
    {
        "id": pa.string(),
        "requestedAt": INSTANT,
        "reqPayload": pa.string(),
        "respPayload": pa.string(),
        "statusCode": pa.int32(),
    }
)


def openpipe_batch(statuses, column="statusCode"):
    rows = [
        {
            "id": f"{column}-{number}",
            "requestedAt": EVENT["requested_at"],
            "reqPayload": "{}",
            "respPayload": "{}",
            column: status,
        }
        for number, status in enumerate(statuses)
    ]
    fields = [
        field.with_name(column) if field.name == "statusCode" else field for field in OPENPIPE
    ]
    return write_batch(rows, pa.schema(fields))


def test_an_error_is_told_by_the_status_as_it_is_mapped(site):
    site.put("a.parquet", openpipe_batch([200, 500, None, 201], "http_status"))
    source = {"preset": "openpipe", "mapping": {"status_code": "http_status"}}

    export(make_config(site, source=source, exclude_errors=True, extra_fields=["is_error"]))

    assert read_manifest(site).ledger.errors_excluded == 3
    assert [json.loads(line)["is_error"] for line in read_records(site)] == [False]


@pytest.mark.parametrize("preset", ["openpipe", "generic"])
def test_events_of_a_batch_without_status_are_errors(site, preset):
    if preset == "openpipe":
        site.put("a.parquet", openpipe_batch([200, None]))
        site.put("b.parquet", openpipe_batch([200], "other"))
    else:
        site.put("a.parquet", write_batch(events([{}, {"status_code": None}])))
        rows = events([{"id": "b"}])
        site.put("b.parquet", write_batch(rows, schema_with(status_code=None)))

    export(make_config(site, source={"preset": preset}, exclude_errors=True))

    ledger = read_manifest(site).ledger
    assert (ledger.exported, ledger.errors_excluded) == (1, 2)


def test_an_own_mapping_of_is_error_stands_over_the_presets(site):
    site.put("a.parquet", write_batch(events([{"error_message": "x"}, {"status_code": 500}])))
    mapping = {"is_error": {"expression": "error_message is not null"}}

    export(make_config(site, source={"mapping": mapping}, exclude_errors=True))

    assert read_manifest(site).ledger.errors_excluded == 1
    assert len(read_records(site)) == 1


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        pytest.param("coalesce(engine, model)", "gpt-4o", id="other-column"),
        pytest.param("engine", None, id="nothing-else"),
        pytest.param("case when engine is null then 'none' end", "none", id="null-test"),
        pytest.param("coalesce(lower(engine), engine.name, deployment, 'x')", "x", id="two"),
        pytest.param("list_transform(['a'], lambda engine: engine || model)[1]", "agpt-4o", id="l"),
    ],
)
def test_an_absent_column_of_an_optional_expression_reads_as_null(site, expression, value):
    site.put("a.parquet", write_batch(events([{}])))
    mapping = {"model": {"expression": expression, "optional": True}}

    export(make_config(site, source={"mapping": mapping}, extra_fields=["model"]))

    (record,) = read_records(site)
    assert json.loads(record)["model"] == value


def test_an_absent_column_of_the_event_time_reads_as_null(site):
    site.put("a.parquet", write_batch(events([{}])))
    expression = "coalesce(created_at, requested_at)"
    mapping = {"requested_at": {"expression": expression, "optional": True}}

    export(make_config(site, source={"mapping": mapping}, window={"every": "1d"}))

    assert len(read_records(site)) == 1


# Times.

GOOD_US = int(EVENT["requested_at"].timestamp() * 1_000_000)


def undated_of(site, column, **changes):
    """Reasons of `undated` for a batch whose first event alone has a good time."""
    table = pa.Table.from_pylist(events({} for _ in column), SCHEMA)
    place = SCHEMA.get_field_index("requested_at")
    table = table.set_column(place, pa.field("requested_at", column.type), column)
    site.put("batch.parquet", write_table(table))
    export(make_config(site, max_reject_ratio=1, window={"every": "1d"}, **changes))
    assert len(read_records(site)) == 1
    rejects = read_rejects(site)
    assert [reject["row"] for reject in rejects] == list(range(1, len(column)))
    return [reject["reason"].removeprefix("event_time_") for reject in rejects]


@pytest.mark.parametrize(
    ("texts", "reasons"),
    [
        pytest.param(
            ["2024-06-01T09:30:00Z", None, "", "soon", "infinity", "-infinity", "now"],
            ["missing", *["invalid"] * 5],
            id="no-times",
        ),
        pytest.param(
            ["2024-06-01", "1999-12-31", "2100-01-01", "294247-01-01T00:00:00+00"],
            ["out_of_range"] * 3,
            id="out-of-range",
        ),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_text_that_is_no_time_is_undated(site, kind, texts, reasons):
    assert undated_of(site, pa.array(texts, kind)) == reasons


def test_text_time_that_is_not_utf8_is_undated(site):
    texts = unchecked_text([b"2024-06-01T09:30:00Z", b"\xff\xfe", b"2024-06-01\xff", None])

    assert undated_of(site, texts) == ["invalid", "invalid", "missing"]


@pytest.mark.parametrize("unit", ["us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_infinite_and_far_times_are_undated(site, unit, zone):
    far = 2**63 - 2 if unit == "ns" else 10**18
    good = GOOD_US * (1000 if unit == "ns" else 1)
    numbers = pa.array([good, 2**63 - 1, -(2**63) + 1, far], pa.int64())

    reasons = undated_of(site, numbers.cast(pa.timestamp(unit, zone)))

    assert set(reasons) <= {"invalid", "out_of_range"}


def test_a_date_beyond_all_timestamps_is_undated(site):
    days = pa.array([GOOD_US // 86_400_000_000, 2**31 - 2], pa.int32())

    assert undated_of(site, days.cast(pa.date32())) == ["invalid"]


@pytest.mark.parametrize(
    "expression", ["epoch_ms(duration_ms)", "epoch_ms(coalesce(duration_ms, length(model)))"]
)
def test_an_event_time_that_fails_to_compute_is_undated_and_shows_the_columns(site, expression):
    rows = events({"duration_ms": number} for number in (GOOD_US // 1000, 9 * 10**18, None))
    site.put("a.parquet", write_batch(rows))
    mapping = {"requested_at": {"expression": expression}}
    config = make_config(
        site, source={"mapping": mapping}, max_reject_ratio=1, window={"every": "1d"}
    )

    export(config)

    rejects = {reject["row"]: reject for reject in read_rejects(site)}
    assert rejects[1]["reason"] == "event_time_invalid"
    assert "9000000000000000000" in json.dumps(rejects[1]["raw"]["requested_at"])
    other = "missing" if "coalesce" not in expression else "out_of_range"
    assert rejects[2]["reason"] == f"event_time_{other}"


# Numbers.


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        pytest.param(pa.int64(), [850, -1, None, 2**62], ["850", "-1", "null", str(2**62)], id="i"),
        pytest.param(pa.uint64(), [850, 2**64 - 1], ["850", "null"], id="uint64"),
        pytest.param(
            pa.float64(),
            [850.6, 850.0, -0.5, float("nan"), float("inf"), 1e300, None],
            ["850.6", "850", "-0.5", "null", "null", "1e300", "null"],
            id="double",
        ),
        pytest.param(
            pa.decimal128(10, 2), [Decimal("850.60"), Decimal(850)], ["850.6", "850"], id="decimal"
        ),
        pytest.param(
            pa.string(), ["850.6", "850", "n/a", "", "nan"], ["850.6", "850", *["null"] * 3], id="s"
        ),
        pytest.param(pa.binary(), [b"850.6", b"\xff"], ["850.6", "null"], id="binary"),
    ],
)
@pytest.mark.parametrize("field", ["duration_ms", "output_tokens"])
def test_a_number_stays_what_was_recorded(site, field, kind, values, texts):
    assert extras_of(site, field, values, kind) == texts


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        pytest.param(
            pa.float64(),
            [200.0, float("nan"), float("inf"), 200.5, 1e300, None],
            ["200", *["null"] * 5],
            id="double",
        ),
        pytest.param(
            pa.string(), ["200", "200.0", "n/a", ""], ["200", "200", "null", "null"], id="s"
        ),
        pytest.param(pa.uint64(), [200, 2**64 - 1], ["200", "null"], id="uint64"),
        pytest.param(pa.binary(), [b"200", b"\xff"], ["200", "null"], id="binary"),
    ],
)
def test_a_status_is_a_whole_number_or_null(site, kind, values, texts):
    assert extras_of(site, "status_code", values, kind) == texts


@pytest.mark.parametrize(
    ("field", "kind", "values", "texts"),
    [
        pytest.param("cost", pa.string(), ["0.25", "n/a"], ["0.25", "null"], id="cost"),
        pytest.param("cache_hit", pa.string(), ["true", "n/a"], ["true", "null"], id="flag"),
    ],
)
def test_text_that_is_no_value_of_a_field_is_null(site, field, kind, values, texts):
    assert extras_of(site, field, values, kind) == texts


@pytest.mark.parametrize(
    ("comparator", "value", "kept"),
    [
        ("<", 850.9, ["850.6", "850"]),
        ("=", 850.6, ["850.6"]),
        (">=", 851, ["851"]),
        (">", 850, ["850.6", "851"]),
    ],
)
@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.decimal128(10, 1)], ids=str)
def test_filters_compare_a_duration_as_recorded(site, kind, comparator, value, kept):
    values = pa.array(["850.6", "851", "850.0"]).cast(kind).to_pylist()
    condition = {"field": "duration_ms", "comparator": comparator, "value": value}

    found = extras_of(site, "duration_ms", values, kind, filters=[condition])

    assert found == kept


# Ids.

UUIDS = [uuid.UUID(int=2**127 + number).bytes for number in range(40)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(16)], ids=str)
def test_a_binary_id_that_is_no_text_is_its_hex(site, kind):
    assert UUIDS[0].hex() == uuid.UUID(bytes=UUIDS[0]).hex
    values = [*UUIDS[:2], UUIDS[0], b"0123456789abcdef"]

    found = extras_of(site, "id", values, kind)

    assert found == [f'"{UUIDS[1].hex()}"', f'"{UUIDS[0].hex()}"', '"0123456789abcdef"']
    assert read_manifest(site).ledger.superseded == 1


def test_a_column_of_uuids_is_their_text(site):
    table = pa.Table.from_pylist(events([{}, {}]), SCHEMA)
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(UUIDS[:2], pa.binary(16)))
    site.put("a.parquet", write_table(table.set_column(0, pa.field("id", pa.uuid()), ids)))

    export(make_config(site, extra_fields=["id"]))

    found = [json.loads(line)["id"] for line in read_records(site)]
    assert found == [str(uuid.UUID(bytes=value)) for value in UUIDS[:2]]


def test_events_of_binary_ids_are_sampled(site):
    found = extras_of(site, "id", UUIDS, pa.binary(16), sample={"fraction": 0.5})

    assert 0 < len(found) < len(UUIDS)


# Payloads and tags.


def test_nested_payloads_under_a_preset_are_serialised(site):
    kinds = {"request": pa.struct({"n": pa.int64()}), "response": pa.list_(pa.string())}
    rows = events([{"request": {"n": 1}, "response": ["a"]}, {"request": None, "response": None}])
    site.put("a.parquet", write_batch(rows, schema_with(**kinds)))

    export(make_config(site))

    heads = [line.partition(b',"tags"')[0] for line in read_records(site)]
    assert heads == [b'{"input":{"n":1},"output":["a"]', b'{"input":null,"output":null']


@pytest.mark.parametrize(
    ("kind", "value", "tags"),
    [
        pytest.param(
            pa.list_(pa.struct({"name": pa.string(), "value": pa.string()})),
            [
                {"name": "a", "value": "1"},
                {"name": "b", "value": None},
                {"name": None, "value": "x"},
            ],
            {"a": "1", "b": None},
            id="names-and-values",
        ),
        pytest.param(
            pa.list_(pa.struct({"name": pa.string(), "value": pa.int64()})),
            [{"name": "a", "value": 1}],
            {"a": "1"},
            id="numbers",
        ),
        pytest.param(
            pa.list_(pa.struct({"name": pa.string(), "value": pa.string()})), [], {}, id="empty"
        ),
        pytest.param(
            pa.list_(pa.struct({"key": pa.string(), "value": pa.string()})),
            [{"key": "a", "value": "1"}],
            None,
            id="keys-and-values",
        ),
        pytest.param(pa.list_(pa.int64()), [1], None, id="list-of-numbers"),
        pytest.param(pa.string(), "[1]", None, id="text-list-of-numbers"),
        pytest.param(pa.string(), '["a:1",null]', None, id="text-list-with-null"),
        pytest.param(pa.string(), '[{"name":"a","value":"1"}]', None, id="text-list-of-objects"),
    ],
)
def test_lists_are_tags_or_rejects(site, kind, value, tags):
    rows = events([{"tags": None}, {"tags": value}])
    site.put("a.parquet", write_batch(rows, schema_with(tags=kind)))

    export(make_config(site, max_reject_ratio=1))

    found = [json.loads(line)["tags"] for line in read_records(site)]
    assert found == ([{}] if tags is None else [{}, tags])
    reasons = [reject["reason"] for reject in read_rejects(site)]
    assert reasons == (["tags_not_object"] if tags is None else [])


def test_equal_inputs_are_duplicates_and_no_input_is_none(site):
    rows = events(
        [
            {"request": '{"n":1}', "response": '"a"'},
            {"request": '{"n":\n1}', "response": '"b"'},
            {"request": None},
            {"request": None},
            {"request": "null"},
            {"request": "null"},
        ]
    )
    site.put("a.parquet", write_batch(rows))

    export(make_config(site, remove_duplicates="input"))

    inputs = [json.loads(line)["input"] for line in read_records(site)]
    assert inputs == [{"n": 1}, None, None, None]
    assert read_manifest(site).ledger.duplicate == 2


# Fields that the source does not map.

BARE = {"request": "request", "response": "response"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"extra_fields": ["cost"]}, "extra_fields: the source maps no field 'cost'"),
        ({"extra_fields": ["is_error"]}, "extra_fields: the source maps no field 'is_error'"),
        ({"order_by": "requested_at"}, "order_by: the source maps no field 'requested_at'"),
        ({"partition_by": ["tags.env"]}, "partition_by tags.env: the source maps no field 'tags'"),
        ({"exclude_errors": True}, "exclude_errors: the source maps no field 'is_error'"),
    ],
    ids=str,
)
def test_a_field_that_is_not_mapped_is_refused(site, changes, what):
    site.put("a.parquet", write_batch(events([{}])))
    source = {"preset": None, "mapping": BARE}

    with pytest.raises(ConfigError, match=what):
        export(make_config(site, source=source, **changes))


def test_a_mapped_field_that_batches_lack_is_null(site):
    site.put("a.parquet", write_batch(events([{}]), schema_with(tags=None)))

    export(make_config(site, extra_fields=["cost"], partition_by=["tags.env"]))

    assert json.loads(read_records(site)[0])["cost"] is None


@pytest.mark.parametrize("name", ["a'b", "a/b", "~1", "$.a", "a.b", '"', "*", "0"])
def test_a_partition_by_a_tag_takes_its_name_literally(site, name):
    site.put("a.parquet", write_batch(events([{"tags": json.dumps({name: "yes"})}])))

    export(make_config(site, partition_by=[f"tags.{name}"]))

    (part,) = read_manifest(site).parts
    assert part.partition.endswith("=yes")


def test_times_of_records_are_utc(site):
    texts = ["2024-06-01T11:30:00+02:00"]

    found = extras_of(site, "requested_at", texts, pa.string())

    assert found == ['"2024-06-01T09:30:00.000000Z"']
    assert datetime.fromisoformat(found[0].strip('"')) == datetime(2024, 6, 1, 9, 30, tzinfo=UTC)
