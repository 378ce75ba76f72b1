import json
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema  # type: ignore[import-untyped] # Prefect brings it
import pytest
import yaml

from pipelines.config import ExportConfig, load_config
from pipelines.errors import ConfigError
from pipelines.overrides import with_overrides
from pipelines.sample import sample_config
from pipelines.values import parse_bytes

CONFIGS = Path(__file__).parent.parent / "configs"
EXPORTS = sorted(
    path
    for path in CONFIGS.glob("*.yaml")
    if not {"deployments", "automations"} & yaml.safe_load(path.read_text()).keys()
)
GOOD = """\
name: chats
source: {url: raw}
destination: {url: out}
"""


@pytest.fixture
def write(tmp_path):
    """Write a config file: good lines, then those of the test."""

    def write(text, *, whole=False):
        path = tmp_path / "export.yaml"
        path.write_text(text if whole else GOOD + text, "utf-8")
        return path

    return write


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.name)
def test_every_config_of_the_repository_loads(path):
    assert load_config(path).name


def test_config_survives_json(write):
    config = load_config(write("window: {every: 1d, start: 2024-01-01}\norder_by: requested_at\n"))

    assert ExportConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "place", "nearest"),
    [
        pytest.param("partition_bye: [date]", "partition_bye", "partition_by", id="top"),
        pytest.param("window: {evry: 1d, every: 1d}", "window.evry", "every", id="window"),
        pytest.param("sample: {fractoin: 1, fraction: 1}", "sample.fractoin", "fraction", id="s"),
        pytest.param(
            "filters: [{field: model, comparater: exists, comparator: exists}]",
            "filters.0.comparater",
            "comparator",
            id="filter",
        ),
        pytest.param(
            "partition_by: [{name: a, expresion: model, expression: model}]",
            "partition_by.0.expresion",
            "expression",
            id="partition-expression",
        ),
    ],
)
def test_unknown_key_names_file_path_and_nearest_key(write, text, place, nearest):
    path = write(text)

    message = refusal(path)

    assert f"{path}: {place}: unknown key; did you mean '{nearest}'?" in message


@pytest.mark.parametrize(
    ("source", "place", "nearest"),
    [
        pytest.param("{url: raw, presett: generic}", "source.presett", "preset", id="source"),
        pytest.param(
            "{url: raw, mapping: {request: {colum: a, column: a}}}",
            "source.mapping.request.colum",
            "column",
            id="field",
        ),
    ],
)
def test_unknown_key_of_the_source_names_the_nearest(write, source, place, nearest):
    path = write(GOOD.replace("{url: raw}", source), whole=True)

    assert f"{path}: {place}: unknown key; did you mean '{nearest}'?" in refusal(path)


def test_unknown_event_field_of_a_mapping_names_the_nearest(write):
    source = "{url: raw, mapping: {reqest: body}}"
    path = write(GOOD.replace("{url: raw}", source), whole=True)

    assert "source.mapping.reqest" in refusal(path)
    assert "did you mean 'request'?" in refusal(path)


def test_unknown_key_like_no_other_lists_the_known_ones(write):
    assert "known keys: name, source, destination" in refusal(write("zzz: 1"))


def test_every_wrong_key_is_named_at_once(write):
    message = refusal(write("thread: 1\nmax_partitions: many\n"))

    assert "thread:" in message
    assert "max_partitions:" in message


def test_missing_key_is_named(write):
    path = write("name: chats\nsource: {url: raw}\n", whole=True)

    assert f"{path}: destination: this key is needed" in refusal(path)


@pytest.mark.parametrize(
    ("text", "place", "seen"),
    [
        pytest.param("max_partitions: many", "max_partitions", "'many'", id="word"),
        pytest.param("window: daily", "window", "'daily'", id="no-mapping"),
        pytest.param("partition_by: date", "partition_by", "'date'", id="no-list"),
        pytest.param("max_reject_ratio: 2", "max_reject_ratio", "2", id="ratio"),
        pytest.param("sample: {fraction: -1}", "sample.fraction", "-1", id="fraction"),
        pytest.param("threads: 0", "threads", "0", id="threads"),
        pytest.param("threads: many", "threads", "'many'", id="threads-word"),
        pytest.param("memory_limit: big", "memory_limit", "'big'", id="size"),
        pytest.param("target_part_bytes: -1", "target_part_bytes", "-1", id="negative-size"),
        pytest.param("window: {every: daily}", "window.every", "'daily'", id="duration"),
        pytest.param("window: {every: 1d, start: soon}", "window.start", "'soon'", id="instant"),
        pytest.param("window: {every: 1d, start: 7}", "window.start", "7", id="no-instant"),
    ],
)
def test_wrong_value_is_named_with_its_key_and_what_was_seen(write, text, place, seen):
    path = write(text)

    message = refusal(path)

    assert f"{path}: {place}: " in message
    assert f"(seen: {seen})" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads: 1.5", "threads: must be a whole number of at least 1, or auto (seen: 1.5)"),
        ("threads: yes", "threads: must be a whole number of at least 1, or auto (seen: True)"),
        ("threads: 0", "threads: must be a whole number of at least 1, or auto (seen: 0)"),
        ("threads: 999", "threads: must be at most 512 (seen: 999)"),
        ("max_partitions: 1.5", "max_partitions: must be a whole number (seen: 1.5)"),
        ("max_partitions: 0", "max_partitions: must be at least 1 (seen: 0)"),
        ("max_reject_ratio: few", "max_reject_ratio: must be a number (seen: 'few')"),
        ("max_reject_ratio: 2", "max_reject_ratio: must be at most 1 (seen: 2)"),
        ("target_part_bytes: 0", "target_part_bytes: must be more than 0 (seen: 0)"),
        ("exclude_errors: maybe", "exclude_errors: must be true or false (seen: 'maybe')"),
        ("partition_by: [7]", "partition_by.0: must be text or a mapping of keys (seen: 7)"),
        (
            "filters: [{field: cost, comparator: '=', value: {a: 1}}]",
            "filters.0.value: must be text, a number, true or false, or a time, or a list of these",
        ),
        (
            "filters: [{field: cost, comparator: between, value: [0, [1]]}]",
            "filters.0.value.1: must be text, a number, true or false, or a time (seen: [1])",
        ),
    ],
)
def test_wrong_value_is_told_in_one_line_that_says_what_is_allowed(write, text, said):
    path = write(text)

    assert refusal(path) == f"{path}: {said}"


def test_instants_that_are_too_few_or_too_many_are_told(write):
    for times, said in (
        ("[2024-01-01]", "source.valid_times.1: this value is needed"),
        ("[1999-01-01, 2000-01-01, 2001-01-01]", "source.valid_times: must be a list of 2 at most"),
    ):
        path = write(GOOD.replace("{url: raw}", f"{{url: raw, valid_times: {times}}}"), whole=True)

        assert refusal(path).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("text", "choices", "nearest"),
    [
        ("compression: gzp", "gzip, zstd, none", "gzip"),
        ("remove_duplicates: inputs", "record, input, none", "input"),
        ("order_by: requested_at descending", "asc, desc", "desc"),
        ("extra_fields: [modle]", "status_code", "model"),
    ],
)
def test_wrong_choice_names_the_choices(write, text, choices, nearest):
    message = refusal(write(text))

    assert choices in message
    assert f"did you mean '{nearest}'?" in message


def test_duplicate_key_is_refused(write):
    message = refusal(write("threads: 1\nthreads: 2\n"))

    assert "'threads' stands there twice" in message
    assert "line 5" in message


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words"])
def test_file_that_is_no_mapping_is_refused(write, text):
    assert "an export is a mapping of keys" in refusal(write(text, whole=True))


def test_file_that_is_not_there_is_refused(tmp_path):
    assert "cannot be read: No such file" in refusal(tmp_path / "none.yaml")


def test_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "export.yaml"
    path.write_bytes(b"name: \xff\xfe\n")

    assert "not UTF-8 text" in refusal(path)


def test_equals_sign_needs_no_quotes(write):
    config = load_config(write("filters: [{field: model, comparator: =, value: gpt-4o}]"))

    assert config.filters[0].comparator == "="


@pytest.mark.parametrize("comparator", ["!=", ">="])
def test_comparator_without_quotes_gives_a_hint(write, comparator):
    path = write(f"filters:\n  - field: status_code\n    comparator: {comparator} \n    value: 1\n")

    assert "need quotes in YAML" in refusal(path)


def test_yaml_error_names_the_place_and_not_the_line(write):
    message = refusal(write('storage_options: {secret: hunter2, "key: [}\n'))

    assert "line 4, column" in message or "line 5, column" in message
    assert "not valid YAML" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("section", ["source", "destination"])
@pytest.mark.parametrize("name", ["secret", "aws_secret_access_key", "token"])
def test_secret_in_storage_options_is_refused_and_never_shown(tmp_path, section, name):
    document = yaml.safe_load(GOOD)
    document[section]["storage_options"] = {name: "hunter2"}
    path = tmp_path / "export.yaml"
    path.write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert f"{path}: {section}.storage_options" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{url: raw, storage_option: {secret: hunter2}}",
        "{url: raw, storage_options: hunter2}",
        "{url: raw, secret_key: hunter2}",
        "{url: raw, extra: {password: hunter2}}",
        "{url: raw, extra: [hunter2]}",
    ],
)
def test_secret_at_a_wrong_place_is_not_shown(write, source):
    assert "hunter2" not in refusal(write(GOOD.replace("{url: raw}", source), whole=True))


def test_partition_key_typo_names_the_nearest(write):
    message = refusal(write("partition_by: [date, modle]"))

    assert "partition_by.1" in message
    assert "did you mean 'model'?" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("partition_by: [date, date]", "'date' stands there twice", id="twice"),
        pytest.param(
            "partition_by: [date, {name: Date, expression: model}]",
            "'date' stands there twice",
            id="twice-but-for-case",
        ),
        pytest.param(
            "partition_by: [{name: tags, expression: model}]",
            "'tags' is a key of the record already",
            id="record-key",
        ),
        pytest.param(
            "partition_by: [{name: Input, expression: model}]",
            "'input' is a key of the record already",
            id="record-key-but-for-case",
        ),
        pytest.param(
            "partition_by: [model]\nextra_fields: [model]",
            "'model' is a key of the record already",
            id="extra-field",
        ),
        pytest.param("extra_fields: [id, id]", "'id' stands there twice", id="extra-twice"),
        pytest.param(
            "partition_by: [{name: a/b, expression: model}]", "partition_by.0.name", id="slash"
        ),
        pytest.param("compression_level: 4", "gzip takes 0 to 3", id="gzip-level"),
        pytest.param(
            "compression: zstd\ncompression_level: 23", "zstd takes 1 to 22", id="zstd-level"
        ),
        pytest.param("compression: none\ncompression_level: 1", "takes no level", id="none-level"),
    ],
)
def test_contradiction_is_refused(write, text, reason):
    assert reason in refusal(write(text))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{url: r, mapping: {model: {column: a, expression: b}}}", "exactly one of `column`"),
        ("{url: r, mapping: {model: {}}}", "exactly one of `column`"),
        ("{url: r, mapping: {model: {column: m, kind: json}}}", "only request and response"),
        ("{url: r, valid_times: [2024-01-02, 2024-01-01]}", "must be before the second"),
    ],
)
def test_contradiction_in_the_source_is_refused(write, source, reason):
    assert reason in refusal(write(GOOD.replace("{url: raw}", source), whole=True))


def test_where_that_is_no_expression_is_refused_with_the_file(write):
    path = write('where: "model = 1; drop table events"')

    assert str(path) in refusal(path)
    assert "where" in refusal(path)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128MiB", 128 * 1024**2),
        ("1GB", 10**9),
        ("1G", 10**9),
        ("1.5 kib", 1536),
        ("7", 7),
        ("7B", 7),
        (7, 7),
    ],
)
def test_size_is_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "lag"),
    [("20m", timedelta(minutes=20)), ("0", timedelta(0)), ("1h", timedelta(0, 3600))],
)
def test_lag_is_a_duration_or_none(write, text, lag):
    config = load_config(write(f"window: {{every: 1d, lag: {text}}}"))

    assert config.window is not None
    assert config.window.lag == lag


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        pytest.param("2024-04-01", datetime(2024, 4, 1, tzinfo=UTC), id="date"),
        pytest.param("2024-04-01T06:00:00", datetime(2024, 4, 1, 6, tzinfo=UTC), id="naive"),
        pytest.param("'2024-04-01 06:00'", datetime(2024, 4, 1, 6, tzinfo=UTC), id="text"),
        pytest.param(
            "'2024-04-01T06:00:00+02:00'", datetime(2024, 4, 1, 4, tzinfo=UTC), id="zoned-text"
        ),
        pytest.param("2024-04-01T06:00:00+02:00", datetime(2024, 4, 1, 4, tzinfo=UTC), id="zoned"),
    ],
)
def test_instant_is_utc(write, text, instant):
    window = load_config(write(f"window: {{every: 1d, start: {text}}}")).window

    assert window is not None
    assert window.start == instant
    assert window.start.utcoffset() == timedelta(0)


def test_relative_urls_start_at_the_folder_of_the_config(write, tmp_path, monkeypatch):
    path = write("")
    monkeypatch.chdir("/")

    config = load_config(path)

    assert config.source.url == str(tmp_path / "raw")
    assert config.destination.url == str(tmp_path / "out")


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "/somewhere/else"])
def test_absolute_urls_stay(write, url):
    path = write(GOOD.replace("url: out", f"url: {url}"), whole=True)

    assert load_config(path).destination.url == url


def test_demo_config_and_bundled_sample_mean_the_same():
    written = load_config(CONFIGS / "demo.yaml").model_dump(mode="json")
    bundled = sample_config("out").model_dump(mode="json")

    assert Path(written["source"].pop("url")).resolve() == Path(bundled["source"].pop("url"))
    del written["destination"], bundled["destination"]
    assert written == bundled


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.name)
def test_schema_accepts_every_config_of_the_repository(path):
    # An editor's YAML 1.2 has no dates.
    document = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))

    jsonschema.validate(document, ExportConfig.model_json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"memory_limit": "1GiB"},
        {"memory_limit": 10**9},
        {"window": {"every": "1h", "lag": "0"}},
        {"order_by": "requested_at desc"},
        {"source": {"url": "raw", "mapping": {"request": "body"}}},
    ],
)
def test_schema_accepts_short_forms(change):
    jsonschema.validate(yaml.safe_load(GOOD) | change, ExportConfig.model_json_schema())


def test_schema_refuses_an_unknown_key():
    with pytest.raises(jsonschema.ValidationError, match="bucket"):
        jsonschema.validate(yaml.safe_load(GOOD) | {"bucket": 1}, ExportConfig.model_json_schema())


def test_overrides_join_conditions_with_and(write, tmp_path):
    config = load_config(write('where: "status_code = 200 or cost > 1"'))

    changed = with_overrides(config, to="slice", where="model = 'a' or model = 'b'", base=tmp_path)

    assert changed.where == "(status_code = 200 or cost > 1) and (model = 'a' or model = 'b')"
    assert changed.destination.url == str(tmp_path / "slice")


def test_condition_cannot_leave_its_parentheses(write, tmp_path):
    config = load_config(write('where: "status_code = 200"'))

    with pytest.raises(ConfigError, match="where"):
        with_overrides(config, to="slice", where="true) or (true", base=tmp_path)


@pytest.mark.parametrize("to", ["{url}", "{url}/", "file://{url}", "{url}/sub/.."])
def test_a_slice_cannot_go_to_the_destination_of_the_export_under_any_spelling(write, tmp_path, to):
    config = load_config(write(""))

    with pytest.raises(ConfigError, match="own destination"):
        with_overrides(
            config, to=to.format(url=config.destination.url), where="true", base=tmp_path
        )


def test_no_overrides_change_nothing(write, tmp_path):
    config = load_config(write(""))

    assert with_overrides(config, to=None, where=None, base=tmp_path) == config


def test_destination_keeps_one_generation_and_an_hour_by_default(write):
    destination = load_config(write("")).destination

    assert (destination.keep_generations, destination.grace) == (1, timedelta(hours=1))
    assert destination.strict_commit is False


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param("keep_generations: 0", "destination.keep_generations", id="no-generation"),
        pytest.param("grace: 0", "destination.grace", id="no-grace"),
        pytest.param("grace: -1h", "destination.grace", id="negative-grace"),
        pytest.param("grace: soon", "'soon' is not a duration", id="no-duration"),
    ],
)
def test_wrong_clean_up_of_the_destination_is_refused(write, setting, said):
    document = GOOD.replace("{url: out}", f"{{url: out, {setting}}}")

    assert said in refusal(write(document, whole=True))


def test_strict_commit_of_a_run_keeps_the_rest_of_the_destination(write, tmp_path):
    document = GOOD.replace("{url: out}", "{url: out, grace: 2h}")
    config = load_config(write(document, whole=True))

    strict = with_overrides(config, to=None, where=None, base=tmp_path, strict_commit=True)

    assert strict.destination == config.destination.model_copy(update={"strict_commit": True})


def test_threads_may_be_left_to_the_machine(write):
    assert load_config(write("threads: auto\n")).threads is None
    assert load_config(write("threads: 2\n")).threads == 2
