"""User SQL (`where`, mappings, partition keys) meets values and texts it was not written for."""

import json
import re
from hashlib import md5
from pathlib import Path

from pipelines.layout import parse_partition
from tests.builders import (
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    write_batch,
)

SQL = Path(__file__).parents[1] / "pipelines" / "sql"
TEXTS = [path.read_text("utf-8") for path in sorted(SQL.glob("*.sql"))]
SLOTS = sorted({slot for text in TEXTS for slot in re.findall(r"\{\{\w+\}\}", text)})
PARAMETERS = sorted({name for text in TEXTS for name in re.findall(r"\$[a-z_]+", text)})


def test_a_literal_that_reads_like_a_slot_or_a_parameter_is_text(file_site):
    texts = [*SLOTS, *PARAMETERS, "$f0_value", "$sample_salt", "{{nothing}}"]
    literals = ", ".join(f"'{text}'" for text in texts)
    file_site.put("a.parquet", write_batch(events({"model": text} for text in [*texts, "other"])))
    config = make_config(
        file_site,
        where=f"model in ({literals})",
        source={"mapping": {"error_message": {"expression": f"concat({literals})"}}},
        partition_by=[{"name": "key", "expression": f"md5(concat(model, {literals}))"}],
        extra_fields=["model", "error_message"],
        filters=[{"field": "status_code", "comparator": "=", "value": 200}],
        sample={"fraction": 1.0},
        remove_duplicates="record",
    )

    export(config)

    found = {json.loads(record)["model"]: json.loads(record) for record in read_records(file_site)}
    assert found.keys() == set(texts)
    assert all(record["error_message"] == "".join(texts) for record in found.values())
    assert read_manifest(file_site).ledger.filtered_by == {"where": 1}
    keys = {parse_partition(part.partition)[0][1] for part in read_manifest(file_site).parts}
    assert keys == {md5((text + "".join(texts)).encode()).hexdigest() for text in texts}  # noqa: S324


def test_a_literal_in_where_is_not_filled_with_a_partition_expression(file_site):
    file_site.put("a.parquet", write_batch([event()]))
    config = make_config(
        file_site,
        where="contains('{{partition_values}}', 'YES')",
        partition_by=[{"name": "key", "expression": "''' || $$YES$$ || '''"}],
    )

    export(config)

    assert read_manifest(file_site).ledger.filtered_by == {"where": 1}
