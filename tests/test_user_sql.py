"""User SQL (`where`, mappings, partition keys) meets values and texts it was not written for."""

import json
import re
from hashlib import md5
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.layout import parse_partition
from tests.builders import (
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    read_rejects,
    schema_with,
    write_batch,
)

SQL = Path(__file__).parents[1] / "pipelines" / "sql"
TEXTS = [path.read_text("utf-8") for path in sorted(SQL.glob("*.sql"))]
SLOTS = sorted({slot for text in TEXTS for slot in re.findall(r"\{\{\w+\}\}", text)})
PARAMETERS = sorted({name for text in TEXTS for name in re.findall(r"\$[a-z_]+", text)})


def test_a_literal_that_reads_like_a_slot_or_a_parameter_is_text(site):
    texts = [*SLOTS, *PARAMETERS, "$f0_value", "$sample_salt", "{{nothing}}"]
    literals = ", ".join(f"'{text}'" for text in texts)
    site.put("a.parquet", write_batch(events({"model": text} for text in [*texts, "other"])))
    config = make_config(
        site,
        where=f"model in ({literals})",
        source={"mapping": {"error_message": {"expression": f"concat({literals})"}}},
        partition_by=[{"name": "key", "expression": f"md5(concat(model, {literals}))"}],
        extra_fields=["model", "error_message"],
        filters=[{"field": "status_code", "comparator": "=", "value": 200}],
        sample={"fraction": 1.0},
        remove_duplicates="record",
    )

    export(config)

    found = {json.loads(record)["model"]: json.loads(record) for record in read_records(site)}
    assert found.keys() == set(texts)
    assert all(record["error_message"] == "".join(texts) for record in found.values())
    assert read_manifest(site).ledger.filtered_by == {"where": 1}
    keys = {parse_partition(part.partition)[0][1] for part in read_manifest(site).parts}
    assert keys == {md5((text + "".join(texts)).encode()).hexdigest() for text in texts}  # noqa: S324


def test_a_literal_in_where_is_not_filled_with_a_partition_expression(site):
    site.put("a.parquet", write_batch([event()]))
    config = make_config(
        site,
        where="contains('{{partition_values}}', 'YES')",
        partition_by=[{"name": "key", "expression": "''' || $$YES$$ || '''"}],
    )

    export(config)

    assert read_manifest(site).ledger.filtered_by == {"where": 1}


TRUNCATED = '{"model":"gpt-4o"'
IS_MODEL = "(request ->> 'model') = 'gpt-4o'"


@pytest.mark.parametrize(
    "where",
    [
        IS_MODEL,
        "(request ->> 'model') = 'gpt-4o' or (request ->> 'model') = 'gpt-4'",  # a shared part
        "list_contains(['gpt-4o'], request ->> 'model')",
        "cast(duration_ms as utinyint) = 1 or " + IS_MODEL,
    ],
)
def test_an_event_whose_where_fails_is_filtered(site, where):
    rows = events([{"duration_ms": 1}, {"request": TRUNCATED}, {"request": None}])
    site.put("a.parquet", write_batch(rows))

    export(make_config(site, where=where))

    ledger = read_manifest(site).ledger
    assert (ledger.exported, ledger.filtered_by) == (1, {"where": 2})


def test_filters_stand_before_a_where_that_fails(site):
    rows = events([{}, {"status_code": 502, "response": "<html>"}])
    site.put("a.parquet", write_batch(rows))
    condition = {"field": "status_code", "comparator": "=", "value": 200}

    export(make_config(site, filters=[condition], where="(response ->> 'id') = 'c-1'"))

    assert read_manifest(site).ledger.filtered_by == {"status_code =": 1}


def test_a_partition_expression_that_fails_gives_the_partition_of_null(site):
    values = ["850", "n/a"]
    site.put("a.parquet", write_batch(events({"model": value} for value in values)))
    keys = [
        {"name": "size", "expression": "cast(model as int) // 100"},
        {"name": "half", "expression": "cast(model as int) // 200"},
    ]

    export(make_config(site, partition_by=keys))

    found = [parse_partition(part.partition) for part in read_manifest(site).parts]
    assert sorted(found, key=str) == [
        (("size", "8"), ("half", "4")),
        (("size", None), ("half", None)),
    ]


@pytest.mark.parametrize(
    "expression", ["json(blob) -> 'request'", "json(blob || extra) -> 'request'"]
)
def test_a_payload_whose_expression_fails_is_a_reject_that_shows_the_columns(site, expression):
    blobs = ['{"request":{"n":1}}', '{"other":1}', '{"request":', None]
    rows = events({"blob": blob, "extra": ""} for blob in blobs)
    site.put("a.parquet", write_batch(rows, schema_with(blob=pa.string(), extra=pa.string())))
    mapping = {
        "request": {"expression": expression},
        "model": {"expression": "json(blob) -> 'request' ->> 'model'"},  # shares a part of it
    }

    export(make_config(site, source={"mapping": mapping}, max_reject_ratio=1))

    assert [json.loads(line)["input"] for line in read_records(site)] == [{"n": 1}, None, None]
    (reject,) = read_rejects(site)
    assert (reject["row"], reject["reason"]) == (2, "request_not_json")
    assert reject["detail"] == "the expression that it is mapped to fails"
    shown = reject["raw"]["request"]
    assert shown == (blobs[2] if "extra" not in expression else {"blob": blobs[2], "extra": ""})


def test_tags_whose_expression_fails_are_a_reject(site):
    texts = ['{"tags":{"a":1}}', '{"tags":', None]
    site.put("a.parquet", write_batch(events({"error_message": text} for text in texts)))
    mapping = {"tags": {"expression": "json(error_message) -> 'tags'"}}

    export(make_config(site, source={"mapping": mapping}, max_reject_ratio=1))

    assert [json.loads(line)["tags"] for line in read_records(site)] == [{"a": "1"}, {}]
    (reject,) = read_rejects(site)
    assert (reject["reason"], reject["raw"]["tags"]) == ("tags_not_object", texts[1])


def test_a_field_whose_expression_fails_is_null(site):
    site.put("a.parquet", write_batch(events([{"model": "7"}, {"model": "x"}])))
    mapping = {"status_code": {"expression": "cast(model as int) + 193"}}

    export(make_config(site, source={"mapping": mapping}, extra_fields=["status_code"]))

    found = [json.loads(line)["status_code"] for line in read_records(site)]
    assert found == [200, None]


def test_a_column_named_like_the_guards_own_parameter_is_read(site):
    rows = events([{"_": "a", "__": "b"}])
    site.put("a.parquet", write_batch(rows, schema_with(_=pa.string(), __=pa.string())))
    mapping = {"model": {"expression": '"_" || "__"'}}

    export(make_config(site, source={"mapping": mapping}, extra_fields=["model"]))

    assert json.loads(read_records(site)[0])["model"] == "ab"
