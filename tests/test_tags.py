"""Tags in every shape that logs have become one flat object of strings and nulls."""

import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import (
    EVENT,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    read_rejects,
    schema_with,
    write_batch,
)
from tests.conftest import make_site

MANY = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEAD = '{"input":' + EVENT["request"] + ',"output":' + EVENT["response"] + ',"tags":'
ABSENT = object()


def tags_of(site, values, kind=None, **changes):
    """The text of the tags of each exported record, in order."""
    kind = kind or pa.string()
    schema = schema_with(tags=kind)
    rows = events({"tags": value} for value in values)
    if values == [ABSENT]:
        rows, schema = events([{}]), schema_with(tags=None)
    site.put("batch.parquet", write_batch(rows, schema))
    export(make_config(site, **{"max_reject_ratio": 1, **changes}))
    lines = [line.decode() for line in read_records(site)]
    assert all(line.startswith(HEAD) and line.endswith("}") for line in lines)
    return [line[len(HEAD) : -1] for line in lines]


TEXTS = {
    "as-recorded": ('{"a":"x"}', '{"a":"x"}'),
    "order-kept": ('{"b":"1","a":"2"}', '{"b":"1","a":"2"}'),
    "number-keeps-its-characters": ('{"a":1.10}', '{"a":"1.10"}'),
    "numbers-no-double-holds": (
        '{"a":-0,"b":1E5,"c":1e400,"d":12345678901234567890123}',
        '{"a":"-0","b":"1E5","c":"1e400","d":"12345678901234567890123"}',
    ),
    "booleans": ('{"a":true,"b":false}', '{"a":"true","b":"false"}'),
    "null-kept": ('{"a":null}', '{"a":null}'),
    "duplicates-kept": ('{"a":1,"a":"2","a":1}', '{"a":"1","a":"2","a":"1"}'),
    "sdk-tags": (
        '{"$sdk":"python","$sdk.version":"4.1.0"}',
        '{"$sdk":"python","$sdk.version":"4.1.0"}',
    ),
    "nested-becomes-its-text-and-spoils-no-other": (
        '{"a":{"b":[1.10, "x"]},"c":2.50,"d":null,"c":"x"}',
        r'{"a":"{\"b\":[1.10, \"x\"]}","c":"2.50","d":null,"c":"x"}',
    ),
    "nested-and-empty": ('{"a":{},"b":[],"a":[{}]}', '{"a":"{}","b":"[]","a":"[{}]"}'),
    "nested-brackets": (r'{"a":{"\"}":"]{"},"b":"}"}', r'{"a":"{\"\\\"}\":\"]{\"}","b":"}"}'),
    "number-in-a-string": ('{"x":":1,","y":2}', '{"x":":1,","y":"2"}'),
    "quotes": ('{"x":"\\",\\"y\\":2","z":3}', '{"x":"\\",\\"y\\":2","z":"3"}'),
    "like-literals": ('{"1":"true","null":"null"}', '{"1":"true","null":"null"}'),
    "line-breaks": ('{\n"a"\r\n:\n1\n}\n', '{"a":"1"}'),
    "escapes-kept": (r'{"a\/b":"\u00e9"}', r'{"a\/b":"\u00e9"}'),
    "empty-and-nul": (r'{"":"","\u0000":1}', r'{"":"","\u0000":"1"}'),
    "list-in-text": ('["k:v","a:b:c"]', '{"k":"v","a":"b:c"}'),
    "empty-object": ("{}", "{}"),
    "null-text": ("null", "{}"),
    "empty-text": ("", "{}"),
    "white-space": (" \n", "{}"),
    "null": (None, "{}"),
}


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_tags_of_json_text(site, kind):
    recorded, exported = zip(*TEXTS.values(), strict=True)

    tags = tags_of(site, recorded, kind)

    assert dict(zip(TEXTS, tags, strict=True)) == dict(zip(TEXTS, exported, strict=True))


def test_tags_nested_without_end_are_still_text(site):
    deep = '{"a":' * 12 + "1" + "}" * 12

    (tags,) = tags_of(site, ['{"t":' + deep + ',"u":1}'])

    assert json.loads(tags) == {"t": deep, "u": "1"}


def test_tags_that_are_no_object_are_rejects(site):
    bad = ["7", '"text"', "true", "{", '{"a":1,}', '{"a":NaN}', "text", "{'a':1}", "\ufeff{}"]

    tags = tags_of(site, ['{"good":"1"}', *bad])

    assert tags == ['{"good":"1"}']
    rejects = read_rejects(site)
    assert [reject["raw"]["tags"] for reject in rejects] == bad
    assert {reject["reason"] for reject in rejects} == {"tags_not_object"}
    assert [reject["row"] for reject in rejects] == list(range(1, 10))
    assert read_manifest(site).ledger.rejected_by == {"tags_not_object": 9}


def test_binary_tags_that_are_not_utf8_are_rejects(site):
    tags = tags_of(site, [b'{"a":"1"}', b'{"a":"\xff"}', None], pa.binary())

    assert tags == ['{"a":"1"}', "{}"]
    (reject,) = read_rejects(site)
    assert reject["reason"] == "tags_not_object"
    assert reject["raw"]["tags"] == {"base64": "eyJhIjoi/yJ9"}


@pytest.mark.parametrize(
    ("kind", "recorded", "exported"),
    [
        pytest.param(
            pa.map_(pa.string(), pa.string()),
            [("b", "1"), ("a", None), ("$sdk.version", 'x"y')],
            r'{"b":"1","a":null,"$sdk.version":"x\"y"}',
            id="map-of-text",
        ),
        pytest.param(
            pa.map_(pa.string(), pa.int64()),
            [("b", 1), ("a", None)],
            '{"b":"1","a":null}',
            id="ints",
        ),
        pytest.param(
            pa.map_(pa.string(), pa.bool_()), [("b", True)], '{"b":"true"}', id="map-of-booleans"
        ),
        pytest.param(pa.map_(pa.string(), pa.string()), [], "{}", id="empty-map"),
        pytest.param(pa.map_(pa.string(), pa.string()), None, "{}", id="null-map"),
        pytest.param(pa.map_(pa.string(), pa.int64()), None, "{}", id="null-map-of-ints"),
        pytest.param(
            pa.struct({"b": pa.string(), "a": pa.int32(), "c": pa.bool_(), "d": pa.string()}),
            {"b": ":1,", "a": 7, "c": False, "d": None},
            '{"b":":1,","a":"7","c":"false","d":null}',
            id="struct",
        ),
        pytest.param(pa.struct({"b": pa.string()}), None, "{}", id="null-struct"),
        pytest.param(
            pa.list_(pa.string()),
            ["k:v", "a:b:c", ":x", "y:", None],
            '{"k":"v","a":"b:c","":"x","y":""}',
            id="list-cut-at-the-first-colon",
        ),
        pytest.param(pa.list_(pa.string()), [], "{}", id="empty-list"),
        pytest.param(pa.list_(pa.string()), None, "{}", id="null-list"),
        pytest.param(
            pa.list_(pa.string()), ['q":\\"\n'], r'{"q\"":"\\\"\n"}', id="list-of-awkward-text"
        ),
    ],
)
def test_tags_of_a_nested_column(site, kind, recorded, exported):
    assert tags_of(site, [recorded], kind) == [exported]


def test_a_batch_without_tags_gives_an_empty_object(site):
    assert tags_of(site, [ABSENT]) == ["{}"]


def test_a_number_no_json_holds_makes_tags_a_reject(site):
    kind = pa.map_(pa.string(), pa.float64())

    tags = tags_of(site, [[("a", 1.5)], [("a", float("nan"))]], kind)

    assert tags == ['{"a":"1.5"}']
    assert [reject["reason"] for reject in read_rejects(site)] == ["tags_not_object"]


# Any characters, and often those that could mislead a search for tokens.
TRICKY = st.lists(
    st.sampled_from([":1,", '","y":2', "\\", '"', "true", "null", "0", "{", "}", "[1]", ",", "\n"]),
    max_size=4,
).map("".join)
TEXT = st.one_of(TRICKY, st.text(st.characters(codec="utf-8"), max_size=8))
SCALARS = st.one_of(
    TEXT, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)
SPACES = st.text(" \t\r\n", max_size=2)
SEPARATORS = st.tuples(
    st.tuples(SPACES, SPACES).map(",".join), st.tuples(SPACES, SPACES).map(":".join)
)


def as_tag(value):
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


@MANY
@given(
    cases=st.lists(
        st.tuples(st.dictionaries(TEXT, SCALARS, max_size=5), SEPARATORS, st.booleans()),
        min_size=1,
        max_size=80,
    )
)
def test_any_flat_object_keeps_its_keys_in_order_and_its_values_as_text(
    request, tmp_path_factory, cases
):
    site = make_site("file", request, tmp_path_factory.mktemp("site"))
    texts = [
        json.dumps(tags, separators=separators, ensure_ascii=ascii_only)
        for tags, separators, ascii_only in cases
    ]

    exported = tags_of(site, texts)

    found = [json.loads(text, object_pairs_hook=list) for text in exported]
    assert found == [[(k, as_tag(v)) for k, v in tags.items()] for tags, *_ in cases]


NESTED = st.one_of(
    SCALARS,
    st.dictionaries(TEXT, SCALARS | st.lists(SCALARS, max_size=2), max_size=3),
    st.lists(SCALARS, max_size=3),
)


@MANY
@given(cases=st.lists(st.dictionaries(TEXT, NESTED, max_size=4), min_size=1, max_size=60))
def test_any_nested_value_becomes_its_own_json_text(request, tmp_path_factory, cases):
    site = make_site("file", request, tmp_path_factory.mktemp("site"))

    exported = tags_of(site, [json.dumps(tags, ensure_ascii=False) for tags in cases])

    found = [json.loads(text, object_pairs_hook=list) for text in exported]
    expected = [
        [
            (k, json.dumps(v, ensure_ascii=False) if isinstance(v, (dict, list)) else as_tag(v))
            for k, v in tags.items()
        ]
        for tags in cases
    ]
    assert found == expected


@MANY
@given(cases=st.lists(st.lists(st.tuples(TEXT, st.none() | TEXT)), min_size=1, max_size=60))
def test_any_map_of_text_keeps_its_entries(request, tmp_path_factory, cases):
    site = make_site("file", request, tmp_path_factory.mktemp("site"))
    maps = [list(dict(entries).items()) for entries in cases]

    exported = tags_of(site, maps, pa.map_(pa.string(), pa.string()))

    assert [json.loads(text, object_pairs_hook=list) for text in exported] == maps
