import pyarrow as pa
import pytest

from pipelines.config import Source
from pipelines.errors import ConfigError, ContractError
from pipelines.sources.columns import columns_of
from pipelines.sources.contract import check_same_contract
from pipelines.sources.detection import detect_preset, list_presets, resolve_mapping
from pipelines.sources.fields import event_sql
from tests.builders import (
    SCHEMA,
    event,
    export,
    make_config,
    read_records,
    schema_with,
    write_batch,
)

GENERIC = columns_of(SCHEMA)
OPENPIPE = columns_of(
    pa.schema(
        {
            "id": pa.string(),
            "requestedAt": pa.timestamp("ms"),
            "reqPayload": pa.string(),
            "respPayload": pa.string(),
            "statusCode": pa.int32(),
        }
    )
)


def source(**changes):
    return Source.model_validate({"url": "raw"} | changes)


@pytest.mark.parametrize(
    ("columns", "origin"), [(GENERIC, "generic@1"), (OPENPIPE, "openpipe@1")], ids=["gen", "op"]
)
def test_preset_is_found_by_its_columns(columns, origin):
    assert resolve_mapping(source(), columns).origin == origin


def test_presets_are_sorted_and_versioned():
    presets = list_presets()

    assert [preset.name for preset in presets] == sorted(preset.name for preset in presets)
    assert all(preset.version >= 1 for preset in presets)


def test_unknown_source_shows_columns_and_the_nearest_preset():
    columns = columns_of(pa.schema({"requestedAt": pa.timestamp("ms"), "reqPayload": pa.string()}))

    with pytest.raises(ConfigError) as caught:
        resolve_mapping(source(), columns)

    assert "Columns: requestedAt, reqPayload" in str(caught.value)
    assert "Nearest preset: openpipe, which also needs id, respPayload" in str(caught.value)


def test_source_that_fits_several_presets_must_name_one():
    both = columns_of(
        pa.schema([pa.field(name, pa.string()) for name in (*GENERIC.names, *OPENPIPE.names[1:])])
    )

    with pytest.raises(ConfigError, match=r"several presets fit \(generic, openpipe\); name one"):
        detect_preset(both)


def test_preset_typo_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown preset 'openpip'; did you mean 'openpipe'\?"):
        resolve_mapping(source(preset="openpip"), OPENPIPE)


def test_mapping_stands_over_the_preset():
    mapping = resolve_mapping(source(preset="generic", mapping={"model": "engine"}), GENERIC)

    assert mapping.fields["model"].column == "engine"
    assert mapping.fields["request"].column == "request"


def test_payload_mapped_over_a_preset_keeps_its_kind():
    mapping = resolve_mapping(source(preset="generic", mapping={"response": "body"}), GENERIC)

    assert mapping.fields["response"].kind == "json_or_text"


def test_mapping_of_both_payloads_needs_no_preset():
    mapping = resolve_mapping(source(mapping={"request": "q", "response": "a"}), GENERIC)

    assert mapping.origin == "mapping"
    assert set(mapping.fields) == {"request", "response"}
    assert mapping.fields["request"].kind == "json"


def test_mapping_without_both_payloads_is_laid_over_the_detected_preset():
    mapping = resolve_mapping(source(mapping={"model": "status_code"}), GENERIC)

    assert mapping.origin == "generic@1"
    assert mapping.fields["model"].column == "status_code"


def test_expression_reads_its_columns():
    mapping = resolve_mapping(
        source(preset="generic", mapping={"model": {"expression": "lower(model) || id"}}), GENERIC
    )

    assert mapping.reads("model", GENERIC.names) == {"model", "id"}
    assert mapping.reads("request", GENERIC.names) == {"request"}
    assert mapping.reads("nothing", GENERIC.names) == frozenset()


def test_expression_makes_the_field(site):
    site.put("a.parquet", write_batch([event(model="GPT-4o")]))
    mapping = {"model": {"expression": "lower(model)"}}
    config = make_config(site, source={"mapping": mapping}, extra_fields=["model"])

    export(config)

    assert read_records(site)[0].endswith(b',"model":"gpt-4o"}')


def test_expression_that_reads_files_is_refused(site):
    site.put("a.parquet", write_batch([event()]))
    mapping = {"model": {"expression": "(select content from read_text('/etc/hosts'))"}}

    with pytest.raises(ConfigError, match=r"source\.mapping\.model"):
        export(make_config(site, source={"mapping": mapping}))


def test_missing_column_names_batch_column_and_nearest():
    mapping = resolve_mapping(source(preset="generic"), GENERIC)
    columns = columns_of(schema_with(request=None, requests=pa.string()))

    with pytest.raises(ContractError) as caught:
        event_sql(mapping, columns, batch="day/a.parquet")

    assert "day/a.parquet: no column 'request'" in str(caught.value)
    assert "the nearest is 'requests'" in str(caught.value)
    assert caught.value.batch == "day/a.parquet"
    assert caught.value.column == "request"


def test_missing_column_of_an_expression_is_named():
    mapping = resolve_mapping(
        source(preset="generic", mapping={"model": {"expression": "engine || id"}}), GENERIC
    )

    with pytest.raises(ContractError, match="no column 'engine', which model is mapped to"):
        event_sql(mapping, GENERIC, batch="a.parquet")


def test_missing_column_of_an_optional_field_is_null():
    mapping = resolve_mapping(
        source(preset="generic", mapping={"project_id": {"column": "project", "optional": True}}),
        GENERIC,
    )

    sql = event_sql(mapping, GENERIC, batch="a.parquet")

    assert sql.fields["project_id"] == "cast(null as varchar)"


@pytest.mark.parametrize("name", ["file_index", "file_row_number", "FILE_ROW_NUMBER"])
def test_reserved_column_name_is_refused(name):
    mapping = resolve_mapping(source(preset="generic"), GENERIC)
    columns = columns_of(schema_with(**{name: pa.int64()}))

    with pytest.raises(ContractError, match=f"column '{name}' has a name that DuckDB keeps"):
        event_sql(mapping, columns, batch="a.parquet")


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.string())])
def test_time_of_a_type_that_is_no_time_is_refused(kind):
    mapping = resolve_mapping(source(preset="generic"), GENERIC)

    with pytest.raises(ContractError, match=r"requested_at is mapped to a column of .* no time"):
        event_sql(mapping, columns_of(schema_with(requested_at=kind)), batch="a.parquet")


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (pa.int32(), pa.int64()),
        (pa.string(), pa.large_string()),
        (pa.string(), pa.binary()),
        (pa.timestamp("ms"), pa.timestamp("us", tz="UTC")),
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
    ],
    ids=str,
)
def test_types_without_loss_are_one_contract(first, other):
    mapping = resolve_mapping(source(preset="generic"), GENERIC)

    batches = [("a.parquet", columns_of(schema_with(model=kind))) for kind in (first, other)]
    check_same_contract(mapping, batches)


@pytest.mark.parametrize("first", [None, pa.string()], ids=["first-lacks-it", "first-has-it"])
def test_other_type_breaks_the_contract_and_names_both(first):
    mapping = resolve_mapping(source(preset="generic"), GENERIC)
    kinds = {"a.parquet": first, "b.parquet": pa.string(), "c.parquet": pa.int64()}

    with pytest.raises(ContractError, match=r"c\.parquet: .*'model' .model. is integer here, text"):
        check_same_contract(
            mapping, [(path, columns_of(schema_with(model=kind))) for path, kind in kinds.items()]
        )


def test_meaning_changes_with_the_mapping():
    one = resolve_mapping(source(preset="generic"), GENERIC).meaning()
    two = resolve_mapping(source(preset="generic", mapping={"model": "id"}), GENERIC).meaning()

    assert one != two
