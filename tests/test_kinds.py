"""Payloads in every kind and column type: what is spliced, what becomes text, what is a reject."""

import json

import pyarrow as pa
import pytest

from pipelines.errors import ContractError
from tests.builders import (
    EVENT,
    SCHEMA,
    event,
    events,
    export,
    make_config,
    read_records,
    read_rejects,
    schema_with,
    unchecked_text,
    write_batch,
    write_table,
)

TAIL = b',"tags":' + EVENT["tags"].encode() + b"}"
HEAD = b'{"input":' + EVENT["request"].encode() + b',"output":'


def outputs_of(site, kind, values, column=None):
    """The output of each exported record, whose responses are of a kind."""
    schema = schema_with(response=column or pa.string())
    rows = events({"response": value} for value in values)
    site.put("batch.parquet", write_batch(rows, schema))
    mapping = {"response": {"column": "response", "kind": kind}}
    export(make_config(site, source={"mapping": mapping}, max_reject_ratio=1))
    lines = read_records(site)
    assert all(line.startswith(HEAD) and line.endswith(TAIL) for line in lines)
    return [line[len(HEAD) : -len(TAIL)].decode() for line in lines]


MESSAGE = pa.struct({"role": pa.string(), "content": pa.string()})


@pytest.mark.parametrize(
    ("column", "value", "output"),
    [
        pytest.param(
            pa.struct({"b": pa.int64(), "a": pa.list_(MESSAGE)}),
            {"b": 1, "a": [{"role": "user", "content": 'x"\n\u2028é'}]},
            '{"b":1,"a":[{"role":"user","content":"x\\"\\n\u2028é"}]}',
            id="struct",
        ),
        pytest.param(
            pa.struct({"a": pa.string(), "b": pa.int64()}),
            {"a": None, "b": None},
            '{"a":null,"b":null}',
            id="struct-of-nulls",
        ),
        pytest.param(
            pa.map_(pa.string(), pa.int64()), [("b", 2), ("a", None)], '{"b":2,"a":null}', id="map"
        ),
        pytest.param(pa.list_(MESSAGE), [], "[]", id="empty-list"),
        pytest.param(pa.list_(pa.float64()), [1.0, 0.1, 1e300], "[1.0,0.1,1e300]", id="list"),
        pytest.param(pa.large_list(pa.string()), ["a", None], '["a",null]', id="large-list"),
    ],
)
def test_a_nested_column_is_serialised(site, column, value, output):
    assert outputs_of(site, "struct", [value], column) == [output]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_a_nested_number_that_json_cannot_hold_makes_a_reject(site, number):
    column = pa.struct({"a": pa.list_(pa.float64())})

    outputs = outputs_of(site, "struct", [{"a": [1.5]}, {"a": [number]}], column)

    assert outputs == ['{"a":[1.5]}']
    (reject,) = read_rejects(site)
    assert (reject["reason"], reject["row"]) == ("response_not_json", 1)
    assert reject["detail"] == "trailing comma, NaN or Infinity"


def test_a_rejects_file_is_json_whatever_a_nested_payload_holds(site):
    column = pa.struct({"a": pa.float64()})

    outputs_of(site, "struct", [{"a": float("nan")}], column)

    def refuse(constant):
        raise AssertionError(constant)

    (part,) = [path for path in site.paths() if "/rejects/" in path]
    text = pa.CompressedInputStream(
        pa.BufferReader(site.destination.read_bytes(part)), "gzip"
    ).read()
    for line in text.splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("kind", ["json", "json_or_text", "text", "struct"])
@pytest.mark.parametrize(
    "column", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()], ids=str
)
def test_a_null_payload_is_null_in_every_kind(site, kind, column):
    if kind == "struct":
        column = pa.struct({"a": column})

    assert outputs_of(site, kind, [None], column) == ["null"]


def test_null_request_and_response_keep_their_keys(site):
    site.put("batch.parquet", write_batch([event(request=None, response=None, tags=None)]))

    export(make_config(site))

    assert read_records(site) == [b'{"input":null,"output":null,"tags":{}}']


@pytest.mark.parametrize("column", [pa.string(), pa.binary()], ids=str)
def test_a_text_payload_is_a_string_even_where_it_is_json(site, column):
    outputs = outputs_of(site, "text", ['{"a":1}', "", "x\n", "null"], column)

    assert outputs == ['"{\\"a\\":1}"', '""', '"x\\n"', '"null"']


def test_a_text_payload_of_bytes_that_are_no_text_is_a_reject(site):
    outputs = outputs_of(site, "text", [b"\xff", b"ok"], pa.binary())

    assert outputs == ['"ok"']
    (reject,) = read_rejects(site)
    assert reject["raw"]["response"] == {"base64": "/w=="}


COLUMNS = [
    pytest.param(pa.string(), id="string"),
    pytest.param(pa.large_string(), id="large-string"),
    pytest.param(pa.string_view(), id="string-view"),
    pytest.param(pa.binary(), id="binary"),
    pytest.param(pa.large_binary(), id="large-binary"),
    pytest.param(pa.dictionary(pa.int32(), pa.string()), id="dictionary"),
    pytest.param(pa.dictionary(pa.int8(), pa.large_string()), id="dictionary-of-large-string"),
    pytest.param(pa.json_(), id="json"),
]
SPELLINGS = [
    '{"a": 1.0, "b":1e400}',
    '{"a":1,"a":2}',
    r'"\u00e9\/"',
    "-0",
    "12345678901234567890123",
]


def with_column(kind, values):
    """A batch of good events whose requests stand in a column of any type."""
    rows = events({"request": value} for value in values)
    table = pa.Table.from_pylist(rows, SCHEMA)
    texts = pa.array(values, kind.storage_type if isinstance(kind, pa.JsonType) else kind)
    if isinstance(kind, pa.JsonType):
        texts = pa.ExtensionArray.from_storage(kind, texts)
    place = SCHEMA.get_field_index("request")
    return write_table(table.set_column(place, pa.field("request", kind), texts))


@pytest.mark.parametrize("kind", COLUMNS)
def test_json_text_is_copied_from_a_column_of_any_text_type(site, kind):
    site.put("batch.parquet", with_column(kind, [*SPELLINGS, None]))

    export(make_config(site))

    tail = b',"output":' + EVENT["response"].encode() + TAIL
    expected = [b'{"input":' + text.encode() + tail for text in [*SPELLINGS, "null"]]
    assert read_records(site) == expected


@pytest.mark.parametrize("kind", COLUMNS)
def test_text_that_is_no_json_is_a_reject_in_a_column_of_any_text_type(site, kind):
    bad = ["{", '{"a":1,}', "[NaN]", ""]
    site.put("batch.parquet", with_column(kind, ["{}", *bad]))

    export(make_config(site, max_reject_ratio=1))

    assert len(read_records(site)) == 1
    assert [reject["raw"]["request"] for reject in read_rejects(site)] == bad


@pytest.mark.parametrize("kind", [*COLUMNS[:3], COLUMNS[5], COLUMNS[7]])
def test_bytes_that_are_no_text_are_rejects_in_a_column_of_any_text_type(site, kind):
    values = [b'{"a":1}', b'{"a":"\xff"}', None, b"[2]", b"\x80"]
    texts = unchecked_text(values)
    if isinstance(kind, pa.JsonType):
        texts = pa.ExtensionArray.from_storage(kind, texts)
    elif pa.types.is_dictionary(kind):
        indices = pa.array([0, 1, None, 3, 4], kind.index_type)
        kind = pa.dictionary(kind.index_type, pa.string())
        texts = pa.DictionaryArray.from_arrays(indices, unchecked_text(v or b"" for v in values))
    else:
        binary = {"string": pa.binary(), "large_string": pa.large_binary()}
        texts = pa.array(values, binary.get(str(kind), pa.binary_view())).view(kind)
    table = pa.Table.from_pylist(events({} for _ in values), SCHEMA)
    place = SCHEMA.get_field_index("request")
    table = table.set_column(place, pa.field("request", kind), texts)
    site.put("batch.parquet", write_table(table, row_group_size=2))

    export(make_config(site, max_reject_ratio=1))

    found = [json.loads(line)["input"] for line in read_records(site)]
    assert found == [{"a": 1}, None, [2]]
    raw = {reject["row"]: reject["raw"]["request"] for reject in read_rejects(site)}
    assert raw == {1: {"base64": "eyJhIjoi/yJ9"}, 4: {"base64": "gA=="}}


def test_batches_with_other_text_types_are_read_side_by_side(site):
    kinds = [column.values[0] for column in COLUMNS]
    for number, kind in enumerate(kinds):
        site.put(f"{number}.parquet", with_column(kind, [f"[{number}]"]))

    mapping = {"id": {"column": "absent", "optional": True}}
    export(make_config(site, source={"mapping": mapping}))

    found = [json.loads(line)["input"] for line in read_records(site)]
    assert found == [[number] for number in range(len(kinds))]


def test_a_nested_column_where_others_have_text_is_a_contract_error(site):
    nested = schema_with(response=pa.struct({"a": pa.int64()}))
    site.put("0.parquet", write_batch([event()]))
    site.put("1.parquet", write_batch([event(response={"a": 1})], nested))

    with pytest.raises(ContractError, match=r"1\.parquet.*'response'"):
        export(make_config(site))
