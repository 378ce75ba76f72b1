"""What was recorded is what is exported: byte for byte, or a reject that says why."""

import base64
import gzip
import json
import random
import re
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import QualityError
from tests.builders import (
    EVENT,
    INSTANT,
    SCHEMA,
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_manifest_json,
    read_parts,
    read_records,
    read_rejects,
    schema_with,
    split_lines,
    unchecked_text,
    write_batch,
    write_table,
)
from tests.conftest import make_site
from tests.hostile import CASES, PLAIN

SAMPLE = Path(__file__).parents[1] / "pipelines" / "sample" / "openpipe"
DOCS_EXAMPLE = Path(__file__).parent / "data" / "openpipe_docs_example.jsonl"
REJECT_KEYS = ["reason", "detail", "batch", "row", "id", "raw"]
MANY = settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TAGS = b'{"prompt_id":"greet"}'


def one_line(text):
    return text.replace("\n", "").replace("\r", "").encode()


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def lines_of(site, rows, *, schema=None, **changes):
    """Records of events in one batch, in its order, rejects left out."""
    site.put("batch.parquet", write_batch(rows, schema))
    export(make_config(site, **{"max_reject_ratio": 1, **changes}))
    return read_records(site)


def payloads_of(line, tags=TAGS):
    """Input and output of a record whose response or request is known to be a good event's."""
    assert line.startswith(b'{"input":')
    assert line.endswith(b',"tags":' + tags + b"}")
    return line[len(b'{"input":') : -len(b',"tags":' + tags + b"}")]


def fresh(request, tmp_path_factory):
    return make_site("file", request, tmp_path_factory.mktemp("site"))


# The bundled calls and the documented example.


def sample_events():
    tables = [pq.ParquetFile(path).read() for path in sorted(SAMPLE.rglob("*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_bundled_call_is_exported_as_recorded(site, compression):
    for path in sorted(SAMPLE.rglob("*.parquet")):
        site.put(str(path.relative_to(SAMPLE)), path.read_bytes())
    recorded = sample_events()

    created = {"expression": "coalesce(\"requestedAt\", timestamptz '2020-01-01')"}
    source = {"preset": "openpipe", "mapping": {"requested_at": created}}
    export(make_config(site, source=source, compression=compression))

    lines = read_records(site)
    assert len(lines) == len(recorded) == 300
    strings = 0
    for line, call in zip(lines, recorded, strict=True):
        head = b'{"input":' + one_line(call["reqPayload"]) + b',"output":'
        assert line.startswith(head)
        assert json.loads(line)["tags"] == dict(call["tags"])
        assert list(json.loads(line)) == ["input", "output", "tags"]
        if is_json(call["respPayload"]):
            assert line.startswith(head + one_line(call["respPayload"]) + b',"tags":{')
        else:
            strings += 1
            assert json.loads(line)["output"] == call["respPayload"]
    assert strings > 0


def test_the_documented_example_is_exported_to_exactly_its_lines(site):
    documented = DOCS_EXAMPLE.read_bytes()
    calls = []
    for number, line in enumerate(split_lines(documented)):
        parts = re.fullmatch(r'\{"input":(.*),"output":(.*),"tags":(\{.*\})\}', line.decode())
        assert parts is not None
        request, response, tags = parts.groups()
        calls.append(
            {
                "id": f"call-{number}",
                "requestedAt": EVENT["requested_at"],
                "reqPayload": request,
                "respPayload": response,
                "tags": list(json.loads(tags).items()),
                "statusCode": 200,
            }
        )
    schema = pa.schema(
        {
            "id": pa.string(),
            "requestedAt": INSTANT,
            "reqPayload": pa.string(),
            "respPayload": pa.string(),
            "tags": pa.map_(pa.string(), pa.string()),
            "statusCode": pa.int32(),
        }
    )
    site.put("batch.parquet", write_batch(calls, schema))

    export(make_config(site, source={"preset": "openpipe"}))

    assert b"".join(read_parts(site)) == documented


# Hostile payloads.


def rejected_at(site, reason):
    found = read_rejects(site)
    for reject in found:
        assert list(reject) == REJECT_KEYS
        assert reject["reason"] == reason
        assert reject["detail"]
        assert reject["batch"] == "batch.parquet"
        assert reject["id"] == f"call-{reject['row']}"
    return {reject["row"]: reject["raw"] for reject in found}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()], ids=str)
def test_a_json_payload_is_copied_byte_for_byte_or_rejected(site, kind):
    rows = [{"request": case.text} for case in CASES]

    lines = lines_of(site, events(rows), schema=schema_with(request=kind), compression="none")

    good = [one_line(case.text) for case in CASES if case.is_strict]
    tail = b',"output":' + EVENT["response"].encode() + b',"tags":' + TAGS + b"}"
    assert lines == [b'{"input":' + text + tail for text in good]
    assert all(is_json(line) for line in lines)
    raw = rejected_at(site, "request_not_json")
    bad = {row: case.text for row, case in enumerate(CASES) if not case.is_strict}
    assert {row: payload["request"] for row, payload in raw.items()} == bad


def test_a_json_or_text_payload_that_starts_like_json_is_never_quietly_a_string(site):
    rows = [{"response": case.text} for case in CASES]

    lines = lines_of(site, events(rows), compression="none")

    kept = [case for case in CASES if case.is_strict or case.name in PLAIN]
    head = b'{"input":' + EVENT["request"].encode() + b',"output":'
    for case, line in zip(kept, lines, strict=True):
        if case.is_strict:
            assert line == head + one_line(case.text) + b',"tags":' + TAGS + b"}", case.name
        else:
            assert json.loads(line)["output"] == case.text, case.name
    raw = rejected_at(site, "response_not_json")
    bad = {row: case.text for row, case in enumerate(CASES) if case not in kept}
    assert {row: payload["response"] for row, payload in raw.items()} == bad


def test_a_text_payload_holds_any_text_of_the_corpus(site):
    mapping = {"response": {"column": "response", "kind": "text"}}

    lines = lines_of(
        site,
        events({"response": case.text} for case in CASES),
        source={"mapping": mapping},
        compression="none",
    )

    outputs = [json.loads(line)["output"] for line in lines]
    assert outputs == [case.text for case in CASES]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        pytest.param("", "empty text", id="empty"),
        pytest.param(" \n", "empty text", id="white-space"),
        pytest.param("\ufeff{}", "starts with a byte order mark", id="bom"),
        pytest.param("[1,]", "trailing comma, NaN or Infinity", id="trailing-comma"),
        pytest.param('{"a":NaN}', "trailing comma, NaN or Infinity", id="nan"),
        pytest.param(
            r'"\ud800"', "lone surrogate escape, malformed or truncated JSON", id="surrogate"
        ),
        pytest.param("{", "malformed or truncated JSON", id="truncated"),
    ],
)
def test_the_detail_of_a_reject_says_what_is_wrong(site, text, detail):
    lines = lines_of(site, [event(request=text)])

    assert lines == []
    assert [reject["detail"] for reject in read_rejects(site)] == [detail]


def test_too_many_rejects_fail_the_run_and_commit_nothing(site):
    site.put("batch.parquet", write_batch(events([{}, {"request": "{"}])))

    with pytest.raises(AssertionError, match=r"request_not_json 1 \(such as batch.parquet row 1\)"):
        export(make_config(site))

    assert not [path for path in site.paths() if "manifests" in path]


def test_too_many_rejects_are_a_quality_error():
    assert not QualityError.retryable


# Bytes that are not UTF-8.

BAD_BYTES = [b'{"a":"\xff"}', b"\xc3\x28", b'{"a":"\xed\xa0\x80"}', b"\x80", b'"\xf4\x90\x80\x80"']


def as_reject(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


@pytest.mark.parametrize("column", ["request", "response"])
def test_binary_payloads_that_are_not_utf8_are_rejects_kept_as_base64(site, column):
    texts = [EVENT[column].encode(), *BAD_BYTES, EVENT[column].encode(), None]
    rows = events({column: text} for text in texts)

    lines = lines_of(site, rows, schema=schema_with(**{column: pa.binary()}))

    assert len(lines) == 3
    raw = rejected_at(site, f"{column}_not_json")
    assert {row: found[column] for row, found in raw.items()} == {
        row: as_reject(data) for row, data in enumerate(texts) if data in BAD_BYTES
    }


@pytest.mark.parametrize("column", ["request", "response", "tags", "model", "id", "error_message"])
@pytest.mark.parametrize("changes", [{}, {"order_by": "requested_at"}], ids=["as-read", "ordered"])
def test_text_columns_that_are_not_utf8_lose_and_double_nothing(site, column, changes):
    chance = random.Random(7)  # noqa: S311 - a choice of rows, no secret
    rows, expected, batches = [], [], 5
    for batch in range(batches):
        count = 3_000 if batch == 1 else 40
        own = events(
            {"id": f"{batch}-{n}", "requested_at": EVENT["requested_at"] + timedelta(seconds=n)}
            for n in range(count)
        )
        values: list[bytes | None] = []
        for n, row in enumerate(own):
            bad = batch in (1, 3) and (n == count - 1 or chance.random() < 0.01)
            values.append(chance.choice(BAD_BYTES) if bad else (row[column] or "x").encode())
            row["request"] = json.dumps({"row": f"{batch}-{n}"})
            if column == "id" and bad:  # or they would be copies of one event
                values[-1] = chance.choice(BAD_BYTES) + f"{batch}-{n}".encode()
            if column == "request" and not bad:
                values[-1] = row["request"].encode()
            if not (bad and column in ("request", "response", "tags")):
                expected.append(f"{batch}-{n}")
        table = pa.Table.from_pylist(own, SCHEMA)
        place = SCHEMA.get_field_index(column)
        table = table.set_column(place, SCHEMA.field(column), unchecked_text(values))
        site.put(f"{batch}.parquet", write_table(table, row_group_size=700))
        rows += [f"{batch}-{n}" for n in range(count)]

    export(make_config(site, max_reject_ratio=1, **changes))

    seen = [json.loads(line)["input"]["row"] for line in read_records(site)]
    assert sorted(seen) == sorted(expected)
    if not changes:
        assert seen == expected
    rejects = read_rejects(site)
    ledger = read_manifest(site).ledger
    assert (ledger.read, ledger.exported) == (len(rows), len(expected))
    assert ledger.rejected == len(rejects) == len(rows) - len(expected)
    names = [f"{reject['batch'].removesuffix('.parquet')}-{reject['row']}" for reject in rejects]
    assert sorted(names) == sorted(set(rows) - set(expected))
    assert all(set(reject["raw"][column]) == {"base64"} for reject in rejects)


def test_lines_handed_out_before_bad_bytes_are_found_come_once(site):
    count = 20_000
    rows = events({"request": f"[{number}]"} for number in range(count))
    table = pa.Table.from_pylist(rows, SCHEMA)
    values = [b'"x"'] * (count - 1) + [b"\xff"]
    place = SCHEMA.get_field_index("response")
    table = table.set_column(place, SCHEMA.field("response"), unchecked_text(values))
    site.put("batch.parquet", write_table(table, row_group_size=2_048))

    export(make_config(site, threads=1))

    inputs = [json.loads(line)["input"] for line in read_records(site)]
    assert inputs == [[number] for number in range(count - 1)]
    assert [reject["row"] for reject in read_rejects(site)] == [count - 1]


# Properties.

SPACE = st.text(" \t\n\r", max_size=3)
HEX = st.sampled_from(["%04x", "%04X"])


@st.composite
def json_strings(draw):
    pieces = []
    for char in draw(st.text(st.characters(codec="utf-8"), max_size=8)):
        escape = draw(st.booleans())
        if char in '"\\' or char < " " or escape:
            units = char.encode("utf-16-be")
            codes = [units[n] * 256 + units[n + 1] for n in range(0, len(units), 2)]
            pieces += ["\\u" + draw(HEX) % code for code in codes]
        else:
            pieces.append(char)
        pieces.append(draw(st.sampled_from(["", "", "", r"\/", r"\n", r"\"", r"\\", ",]", "NaN"])))
    return '"' + "".join(pieces) + '"'


NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,4})?", fullmatch=True
)
SCALARS = st.one_of(NUMBERS, json_strings(), st.sampled_from(["null", "true", "false"]))


@st.composite
def containers(draw, children):
    is_object = draw(st.booleans())
    items = draw(st.lists(children, max_size=3))
    if is_object:
        items = [draw(json_strings()) + draw(SPACE) + ":" + draw(SPACE) + item for item in items]
    body = ",".join(draw(SPACE) + item + draw(SPACE) for item in items) or draw(SPACE)
    return "{" + body + "}" if is_object else "[" + body + "]"


JSON = st.recursive(SCALARS, containers, max_leaves=8)
TEXT = st.text(st.characters(codec="utf-8"))


@MANY
@given(texts=st.lists(st.tuples(SPACE, JSON, SPACE).map("".join), min_size=1, max_size=60))
def test_any_json_is_exported_byte_for_byte(request, tmp_path_factory, texts):
    site = fresh(request, tmp_path_factory)

    lines = lines_of(site, events({"request": text, "response": text} for text in texts))

    both = [one_line(text) for text in texts]
    tail = b',"tags":' + TAGS + b"}"
    assert lines == [b'{"input":' + text + b',"output":' + text + tail for text in both]


@MANY
@given(texts=st.lists(TEXT, min_size=1, max_size=60))
def test_any_text_comes_back_from_a_text_payload_and_from_a_tag(request, tmp_path_factory, texts):
    site = fresh(request, tmp_path_factory)
    mapping = {"response": {"column": "response", "kind": "text"}}
    rows = events({"response": text, "tags": [(text, text)]} for text in texts)
    schema = schema_with(tags=pa.map_(pa.string(), pa.string()))

    lines = lines_of(site, rows, schema=schema, source={"mapping": mapping})

    found = [json.loads(line) for line in lines]
    assert [record["output"] for record in found] == texts
    assert [record["tags"] for record in found] == [{text: text} for text in texts]


@MANY
@given(payloads=st.lists(st.binary(max_size=20) | TEXT.map(str.encode), min_size=1, max_size=60))
def test_a_reject_holds_the_payload_as_recorded(request, tmp_path_factory, payloads):
    site = fresh(request, tmp_path_factory)
    payloads = [b"{" + payload for payload in payloads if b"}" not in payload]

    lines_of(
        site,
        events({"response": payload} for payload in payloads),
        schema=schema_with(response=pa.binary()),
    )

    raws = [reject["raw"]["response"] for reject in read_rejects(site)]
    assert raws == [as_reject(payload) for payload in payloads]


# Extra fields, the ledger, and filters that read payloads.

EXTRAS = ("id", "requested_at", "received_at", "model", "status_code", "duration_ms", "cost",
          "cache_hit", "error_message")  # fmt: skip


def test_extra_fields_follow_the_three_keys_in_the_order_asked(site):
    schema = schema_with(cost=pa.float64(), cache_hit=pa.bool_())

    lines = lines_of(site, [event(cost=0.25, cache_hit=False)], schema=schema, extra_fields=EXTRAS)

    three = b'{"input":%b,"output":%b,"tags":%b' % (
        EVENT["request"].encode(),
        EVENT["response"].encode(),
        TAGS,
    )
    assert lines == [
        three + b',"id":"call-1","requested_at":"2024-06-01T09:30:00.000000Z",'
        b'"received_at":"2024-06-01T09:30:02.000000Z","model":"gpt-4o","status_code":200,'
        b'"duration_ms":850,"cost":0.25,"cache_hit":false,"error_message":null}'
    ]


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), float("-inf"), None], ids=str)
def test_an_extra_field_that_json_cannot_hold_is_null(site, cost):
    schema = schema_with(cost=pa.float64())

    lines = lines_of(site, [event(cost=cost)], schema=schema, extra_fields=["cost"])

    assert lines[0].endswith(b',"tags":' + TAGS + b',"cost":null}')


@pytest.mark.parametrize("name", ["model", "error_message", "id"])
def test_an_extra_field_of_any_text_is_a_json_string(site, name):
    text = 'a"b\\c\n\r\0\u2028é😀</script>'

    lines = lines_of(site, [event(**{name: text})], extra_fields=[name])

    assert json.loads(lines[0])[name] == text


MIXED = [
    {},
    {"id": "call-0", "received_at": EVENT["received_at"] + timedelta(hours=1)},
    {"id": None, "status_code": 500},
    {"id": None, "model": "other"},
    {"request": "{"},
    {"response": "[1,]"},
    {"tags": "7"},
    {"request": '{"same":1}'},
    {"request": '{"same":1}'},
    {"request": None, "response": None, "tags": None},
]


def test_the_ledger_adds_up_whatever_becomes_of_events(site):
    for number in range(3):
        rows = events(MIXED)
        for row in rows:
            row["id"] = row["id"] and f"{number}-{row['id']}"
        site.put(f"{number}.parquet", write_batch(rows, row_group_size=4))
    site.put("undated.parquet", write_batch([event(requested_at=None)]))

    export(
        make_config(
            site,
            max_reject_ratio=1,
            exclude_errors=True,
            remove_duplicates="input",
            filters=[{"field": "model", "comparator": "=", "value": "gpt-4o"}],
        )
    )

    document = read_manifest_json(site)["export"]
    for ledger in (document["ledger"], *(batch["ledger"] for batch in document["batches"])):
        parts = ["exported", "filtered", "errors_excluded", "superseded", "duplicate",
                 "sampled_out", "rejected"]  # fmt: skip
        assert ledger["read"] == sum(ledger[part] for part in parts)
    ledger = document["ledger"]
    assert ledger["read"] == 30
    assert ledger["superseded"] == 3
    assert ledger["filtered"] == 3
    assert ledger["errors_excluded"] == 3
    assert ledger["rejected_by"] == {
        "request_not_json": 3,
        "response_not_json": 3,
        "tags_not_object": 3,
    }
    assert ledger["exported"] == len(read_records(site)) == 5
    assert ledger["duplicate"] == 7
    reasons = [reject["reason"] for reject in read_rejects(site)]
    assert reasons.count("event_time_missing") == 1
    assert len(reasons) == 10


def test_rejects_are_gzip_lines_of_exactly_six_keys(site):
    site.put("batch.parquet", write_batch(events([{"request": "{"}, {"tags": "[", "id": None}])))

    export(make_config(site, max_reject_ratio=1))

    (part,) = read_manifest(site).rejects
    data = site.destination.read_bytes(part.path)
    lines = split_lines(gzip.decompress(data))
    assert part.path.endswith(".jsonl.gz")
    assert data[4:8] == bytes(4)
    assert part.records == len(lines) == 2
    first, second = (json.loads(line) for line in lines)
    assert list(first) == list(second) == REJECT_KEYS
    assert first["raw"]["request"] == "{"
    assert second["id"] is None
    assert second["raw"]["tags"] == "["


@pytest.mark.parametrize(
    ("first", "then"), [("request", "status_code"), ("status_code", "request")]
)
def test_a_filter_on_the_payload_counts_each_event_once_by_the_first_rule(site, first, then):
    conditions = {
        "request": {"field": "request", "comparator": "contains", "value": "Hello"},
        "status_code": {"field": "status_code", "comparator": "=", "value": 200},
    }
    rows = events(
        [
            {},
            {"request": '{"x":"other"}'},
            {"request": "other {"},
            {"request": "Hello {"},
            {"status_code": 500},
            {"request": "other", "status_code": 500},
            {"request": "Hello", "status_code": 500},
            {"response": "{"},
            {"request": None},
        ]
    )

    lines = lines_of(site, rows, filters=[conditions[first], conditions[then]])

    ledger = read_manifest(site).ledger
    by_status, by_request = (3, 3) if first == "status_code" else (2, 4)
    expected = {"request": by_request, "status_code": by_status}
    found = {reason.split()[0]: count for reason, count in ledger.filtered_by.items()}
    assert found == expected
    assert len(lines) == ledger.exported == 1
    assert ledger.rejected_by == {"request_not_json": 1, "response_not_json": 1}
    assert ledger.read == 9
