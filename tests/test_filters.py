"""Declared filters against real DuckDB: what each comparator keeps, and what a config may say."""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.errors import ConfigError
from pipelines.filters import EventFilter, compile_filters, compile_sample

NOW = datetime(2024, 6, 15, 12, 0, tzinfo=UTC)
COLUMNS = {
    "request": "varchar",
    "response": "varchar",
    "model": "varchar",
    "completion_id": "varchar",
    "error_message": "varchar",
    "tags": "varchar",
    "cache_hit": "boolean",
    "status_code": "integer",
    "duration_ms": "bigint",
    "cost": "double",
    "requested_at": "timestamp",
}
TAG_NAMES = [
    *("prompt_id", "$sdk", "$sdk.version", "a/b", "a.b", 'a"b', "", "*", "**", "~", "~1", "~01"),
    *("0", "00", "-", "-1", "#", "$", "$.a", "[0]", "a[0]", "é", "😀", "a b", "'", "\\", "\n"),
]


@pytest.fixture(scope="module")
def con():
    with duckdb.connect(":memory:") as con:
        con.execute("set timezone = 'UTC'")
        yield con


def make_filter(field, comparator, value=None):
    return EventFilter(field=field, comparator=comparator, value=value)


def fill_events(con, column, values):
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    con.execute(f"create or replace temp table events (id integer, {columns})")
    insert = f"insert into events (id, {column}) values (?, ?)"  # noqa: S608 - a name of COLUMNS
    for position, value in enumerate(values):
        con.execute(insert, [position, value])


def select(con, what, where, params):
    query = f"select {what} from events where {where}"  # noqa: S608 - the text under test
    return con.execute(query, params).fetchall()


def keep(con, predicate, column, values):
    """The values that the predicate keeps, in their order."""
    fill_events(con, column, values)
    found = select(con, "id", predicate.sql, predicate.params)
    return [values[position] for (position,) in sorted(found)]


def instant(text):
    return datetime.fromisoformat(text)


TEXTS = [None, "", "gpt-4", "GPT-4", "gpt_4%", "claude"]
FLAGS = [None, True, False]
NUMBERS = [None, 0, 199, 200, 201]
COSTS = [None, 0.0, 0.1, 0.25]
TIMES = [None, *(instant(f"2024-06-{day}") for day in ("08 12:00:00", "14", "15", "16"))]
SHOWN = {
    "model": TEXTS,
    "cache_hit": FLAGS,
    "status_code": NUMBERS,
    "cost": COSTS,
    "requested_at": TIMES,
}


@pytest.mark.parametrize(
    ("field", "comparator", "value", "kept"),
    [
        pytest.param("model", "=", "gpt-4", ["gpt-4"], id="equal-never-matches-null"),
        pytest.param("model", "=", "", [""], id="equal-takes-the-empty-text"),
        pytest.param(
            "model", "!=", "gpt-4", [None, "", "GPT-4", "gpt_4%", "claude"], id="unequal-keeps-null"
        ),
        pytest.param("model", "contains", "gpt", ["gpt-4", "gpt_4%"], id="contains-minds-case"),
        pytest.param("model", "contains", "_4%", ["gpt_4%"], id="contains-has-no-wildcards"),
        pytest.param(
            "model",
            "not_contains",
            "t",
            [None, "", "GPT-4", "claude"],
            id="not-contains-keeps-null",
        ),
        pytest.param("model", "starts_with", "gpt_", ["gpt_4%"], id="starts-with-has-no-wildcards"),
        pytest.param("model", "in", ["claude", "gpt-4"], ["gpt-4", "claude"], id="in-skips-null"),
        pytest.param("model", "in", ["x"], [], id="in-may-match-nothing"),
        pytest.param(
            "model",
            "not_in",
            ["", "gpt-4", "GPT-4"],
            [None, "gpt_4%", "claude"],
            id="not-in-keeps-null",
        ),
        pytest.param("model", "exists", None, TEXTS[1:], id="exists-keeps-the-empty-text"),
        pytest.param("model", "not_exists", None, [None], id="not-exists-keeps-null-alone"),
        pytest.param("cache_hit", "=", True, [True], id="flag-equal"),
        pytest.param("cache_hit", "!=", True, [None, False], id="flag-unequal-keeps-null"),
        pytest.param("cache_hit", "exists", None, [True, False], id="flag-exists"),
        pytest.param("cache_hit", "not_exists", None, [None], id="flag-not-exists"),
        pytest.param("status_code", "=", 200, [200], id="number-equal"),
        pytest.param("status_code", "=", 200.0, [200], id="number-equal-float"),
        pytest.param("status_code", "=", 200.5, [], id="number-equal-fraction"),
        pytest.param("status_code", "=", 2**40, [], id="number-beyond-the-column"),
        pytest.param("status_code", "!=", 200, [None, 0, 199, 201], id="number-unequal-keeps-null"),
        pytest.param("status_code", "<", 200, [0, 199], id="number-less"),
        pytest.param("status_code", "<=", 200, [0, 199, 200], id="number-at-most"),
        pytest.param("status_code", ">", 200, [201], id="number-greater"),
        pytest.param("status_code", ">=", 200, [200, 201], id="number-at-least"),
        pytest.param(
            "status_code", "between", [199, 200], [199, 200], id="number-between-both-ends"
        ),
        pytest.param("status_code", ">", Decimal("199.5"), [200, 201], id="number-decimal"),
        pytest.param(
            "status_code", ">", Decimal("1E-30"), [199, 200, 201], id="number-tiny-decimal"
        ),
        pytest.param("cost", "=", 0.1, [0.1], id="cost-equal"),
        pytest.param("cost", ">=", Decimal("0.1"), [0.1, 0.25], id="cost-decimal"),
    ],
)
def test_comparator_keeps(con, field, comparator, value, kept):
    (predicate,) = compile_filters([make_filter(field, comparator, value)], now=None)

    assert keep(con, predicate, field, SHOWN[field]) == kept


@pytest.mark.parametrize("field", ["sent_at", "requested_at"])
@pytest.mark.parametrize(
    ("comparator", "value", "kept"),
    [
        pytest.param("last", "24h", ["15", "16"], id="last-hours"),
        pytest.param("last", "2880m", ["14", "15", "16"], id="last-minutes"),
        pytest.param("last", "7d", ["08 12:00:00", "14", "15", "16"], id="last-includes-its-start"),
        pytest.param("before", "2024-06-15", ["08 12:00:00", "14"], id="before-excludes"),
        pytest.param("after", "2024-06-15", ["15", "16"], id="after-includes"),
        pytest.param("after", "2024-06-15T02:00:00+02:00", ["15", "16"], id="zone-counts"),
        pytest.param("after", "2024-06-14T22:00:00-02:00", ["15", "16"], id="zone-crosses-days"),
        pytest.param("between", ["2024-06-14", "2024-06-15"], ["14"], id="between-half-open"),
        pytest.param("after", date(2024, 6, 15), ["15", "16"], id="date-of-yaml"),
        pytest.param("after", instant("2024-06-15"), ["15", "16"], id="naive-of-yaml-is-utc"),
        pytest.param(
            "after",
            datetime(2024, 6, 15, 5, tzinfo=timezone(timedelta(hours=5))),
            ["15", "16"],
            id="aware-of-yaml",
        ),
    ],
)
def test_time_comparator_keeps(con, field, comparator, value, kept):
    (predicate,) = compile_filters([make_filter(field, comparator, value)], now=NOW)

    found = keep(con, predicate, "requested_at", TIMES)

    assert found == [instant(f"2024-06-{day}") for day in kept]


@pytest.mark.parametrize("field", ["request", "response", "completion_id", "error_message"])
def test_every_text_field_compares_as_text(con, field):
    (predicate,) = compile_filters([make_filter(field, "contains", '"a"')], now=None)

    assert keep(con, predicate, field, [None, '{"a":1}', "{}"]) == ['{"a":1}']


@pytest.mark.parametrize("name", TAG_NAMES)
def test_tag_name_is_literal(con, name):
    hit, other = json.dumps({"x": "no", name: "yes"}), json.dumps({"x": "yes", f"{name}x": "yes"})
    (predicate,) = compile_filters([make_filter(f"tags.{name}", "=", "yes")], now=None)

    assert keep(con, predicate, "tags", [None, "{}", other, hit]) == [hit]


@settings(deadline=None)
@given(name=st.text(max_size=8), other=st.text(max_size=8))
def test_any_tag_name_finds_its_own_value(name, other):
    tags = json.dumps({other: "other", name: "own"})
    (predicate,) = compile_filters([make_filter(f"tags.{name}", "=", "own")], now=None)

    with duckdb.connect(":memory:", config={"threads": "1"}) as con:
        assert keep(con, predicate, "tags", [tags]) == [tags]


@pytest.mark.parametrize(
    ("comparator", "value", "kept"),
    [
        pytest.param("=", "7", ['{"k":"7"}', '{"k":7}'], id="number-as-text"),
        pytest.param("!=", "7", [None, "{}", '{"k":null}'], id="unequal-keeps-untagged"),
        pytest.param("exists", None, ['{"k":"7"}', '{"k":7}'], id="json-null-does-not-exist"),
        pytest.param("not_exists", None, [None, "{}", '{"k":null}'], id="untagged-does-not-exist"),
        pytest.param("not_in", ["7"], [None, "{}", '{"k":null}'], id="not-in-keeps-untagged"),
    ],
)
def test_tag_comparator_keeps(con, comparator, value, kept):
    (predicate,) = compile_filters([make_filter("tags.k", comparator, value)], now=None)

    values = [None, "{}", '{"k":null}', '{"k":"7"}', '{"k":7}']

    assert keep(con, predicate, "tags", values) == kept


@pytest.mark.parametrize("comparator", ["=", "contains", "starts_with", "in", "!=", "not_in"])
def test_is_not_true_finds_the_rest(con, comparator):
    value = ["gpt-4"] if comparator.endswith("in") else "gpt-4"
    (predicate,) = compile_filters([make_filter("model", comparator, value)], now=None)
    kept = keep(con, predicate, "model", TEXTS)

    found = select(con, "model", f"({predicate.sql}) is not true", predicate.params)
    dropped = [model for (model,) in found]

    assert sorted(map(str, [*kept, *dropped])) == sorted(map(str, TEXTS))


def test_filters_of_one_config_can_be_joined(con):
    filters = [
        make_filter("model", "!=", "a"),
        make_filter("model", "in", ["b", "c"]),
        make_filter("tags.k", "=", "1"),
        make_filter("tags.j", "=", "2"),
    ]
    predicates = compile_filters(filters, now=None)
    con.execute(
        """create or replace temp table events as select 'b' as model, '{"k":1,"j":2}' as tags"""
    )

    where = " and ".join(f"({predicate.sql})" for predicate in predicates)
    params = {name: value for predicate in predicates for name, value in predicate.params.items()}

    assert select(con, "count(*)", where, params) == [(1,)]


@pytest.mark.parametrize(
    ("column", "comparator", "value"),
    [
        ("model", "=", "gpt-4"),
        ("model", "in", ["gpt-4", "gpt-5"]),
        ("status_code", "between", [200, 299]),
        ("requested_at", "after", "2024-06-15"),
    ],
)
def test_plain_comparison_reaches_the_parquet_scan(con, tmp_path, column, comparator, value):
    fill_events(con, column, SHOWN[column])
    con.execute(f"copy events to '{tmp_path}/events.parquet'")
    (predicate,) = compile_filters([make_filter(column, comparator, value)], now=NOW)

    source = f"read_parquet('{tmp_path}/events.parquet')"
    query = f"explain select id from {source} where {predicate.sql}"  # noqa: S608 - under test
    ((_, plan),) = con.execute(query, predicate.params).fetchall()

    assert "Filters:" in plan.partition("READ_PARQUET")[2]


def test_reason_names_field_and_comparator_but_no_value():
    predicates = compile_filters(
        [make_filter("model", "=", "secret"), make_filter("tags.prompt_id", "in", ["secret"])],
        now=None,
    )

    assert [predicate.reason for predicate in predicates] == ["model =", "tags.prompt_id in"]


def test_values_are_bound_and_never_in_the_text():
    hostile = "'; drop table events; --"
    predicates = compile_filters(
        [make_filter("model", "=", hostile), make_filter(f"tags.{hostile}", "in", [hostile])],
        now=None,
    )

    assert not any("drop" in predicate.sql for predicate in predicates)


@pytest.mark.parametrize(
    ("field", "column"),
    [("model", "model"), ("tags.a", "tags"), ("sent_at", "requested_at"), ("cost", "cost")],
)
def test_fields_are_the_columns_read(field, column):
    comparator, value = {"cost": ("=", 1), "sent_at": ("after", "2024-01-01")}.get(
        field, ("=", "x")
    )
    (predicate,) = compile_filters([make_filter(field, comparator, value)], now=None)

    assert predicate.fields == {column}


def test_last_without_a_moment_is_a_config_error():
    with pytest.raises(ConfigError, match="sent_at last 24h"):
        compile_filters([make_filter("sent_at", "last", "24h")], now=None)


def test_last_before_the_calendar_is_a_config_error():
    with pytest.raises(ConfigError, match="too far back"):
        compile_filters([make_filter("sent_at", "last", "999999d")], now=NOW)


@pytest.mark.parametrize(
    ("field", "comparator", "value", "message"),
    [
        pytest.param("modle", "=", "x", "did you mean 'model'", id="field-typo"),
        pytest.param("statusCode", "=", 1, "did you mean 'status_code'", id="field-camel-case"),
        pytest.param("tag.k", "=", "x", "did you mean 'tags.k'", id="field-tag-typo"),
        pytest.param(
            "$sdk.version", "=", "x", "did you mean 'tags.$sdk.version'", id="field-bare-tag"
        ),
        pytest.param("zzz", "=", "x", "known are request", id="field-unlike-any"),
        pytest.param("model", "==", "x", "did you mean '='", id="comparator-typo"),
        pytest.param("model", "NOT IN", ["x"], "did you mean 'not_in'", id="comparator-spelled"),
        pytest.param("model", "zzz", "x", "known are =", id="comparator-unlike-any"),
        pytest.param("model", "<", "x", "has no comparator '<'", id="text-has-no-order"),
        pytest.param(
            "status_code", "contains", 2, "has no comparator", id="number-has-no-contains"
        ),
        pytest.param("sent_at", "=", "2024-01-01", "it has last before", id="time-has-no-equal"),
        pytest.param("cache_hit", "in", [True], "has no comparator", id="flag-has-no-in"),
        pytest.param("model", "=", None, "takes one value, found None", id="value-missing"),
        pytest.param("model", "=", 4, "model is compared with text", id="text-from-number"),
        pytest.param("tags.v", "=", 4, "tags.v is compared with text", id="tag-from-number"),
        pytest.param("model", "=", ["x"], "takes one value", id="list-for-equal"),
        pytest.param("model", "in", "x", "takes a list", id="in-from-text"),
        pytest.param("model", "in", [], "takes a list", id="in-of-nothing"),
        pytest.param("model", "in", ["x", None], "", id="in-with-null"),
        pytest.param("model", "in", ["x", 1], "compared with text", id="in-with-number"),
        pytest.param("model", "exists", "x", "takes no value", id="exists-with-value"),
        pytest.param("cache_hit", "=", 1, "true or false", id="flag-from-number"),
        pytest.param("status_code", "=", True, "finite number", id="number-from-flag"),
        pytest.param("status_code", "=", "200", "a number", id="number-from-text"),
        pytest.param("cost", "<", float("nan"), "finite number", id="number-nan"),
        pytest.param("cost", "<", float("inf"), "finite number", id="number-infinite"),
        pytest.param("cost", "<", Decimal("NaN"), "finite number", id="decimal-nan"),
        pytest.param("cost", "<", Decimal("1E+999999"), "finite number", id="decimal-huge"),
        pytest.param("cost", "<", 10**400, "finite number", id="integer-huge"),
        pytest.param("cost", "between", [2, 1], "smaller one first", id="between-reversed"),
        pytest.param("cost", "between", [1], "two values", id="between-of-one"),
        pytest.param("cost", "between", [1, 2, 3], "two values", id="between-of-three"),
        pytest.param("sent_at", "between", ["2024-01-02"] * 2, "first before", id="between-empty"),
        pytest.param("sent_at", "after", "yesterday", "not an ISO 8601", id="time-in-words"),
        pytest.param("sent_at", "after", 1718452800, "a time or date", id="time-from-number"),
        pytest.param(
            "sent_at",
            "after",
            "0001-01-01T00:00:00+14:00",
            "not an ISO 8601",
            id="time-before-year-1",
        ),
        pytest.param("sent_at", "last", "24 h", "such as 15m, 24h or 7d", id="last-with-space"),
        pytest.param("sent_at", "last", "0h", "such as", id="last-of-nothing"),
        pytest.param("sent_at", "last", "-1h", "such as", id="last-negative"),
        pytest.param("sent_at", "last", 24, "such as", id="last-from-number"),
    ],
)
def test_wrong_filter_is_refused_and_says_why(field, comparator, value, message):
    with pytest.raises(ValidationError) as caught:
        make_filter(field, comparator, value)

    assert message in str(caught.value)


def test_unknown_option_is_refused():
    with pytest.raises(ValidationError, match="valeu"):
        EventFilter.model_validate({"field": "model", "comparator": "exists", "valeu": 1})


@pytest.mark.parametrize(
    "item",
    [
        make_filter("model", "=", "2024-06-15"),
        make_filter("model", "in", ["a", "b"]),
        make_filter("status_code", "between", [200, 299.5]),
        make_filter("cache_hit", "=", value=True),
        make_filter("sent_at", "after", NOW),
        make_filter("sent_at", "before", date(2024, 6, 15)),
    ],
)
def test_filter_means_the_same_after_json(item):
    again = EventFilter.model_validate_json(item.model_dump_json())

    assert compile_filters([again], now=NOW) == compile_filters([item], now=NOW)


def test_schema_for_a_form_can_be_made():
    assert EventFilter.model_json_schema()["required"] == ["field", "comparator"]


@pytest.mark.parametrize(("fraction", "seed"), [(0.05, 7), (0.5, -1), (0.000001, 0), (1, 7)])
def test_sample_equals_its_python_form(con, fraction, seed):
    ids = [*(f"call-{number}" for number in range(2_000)), "", "é😀"]
    fill_events(con, "completion_id", ids)
    predicate = compile_sample(fraction, seed, "completion_id")

    found = select(con, "completion_id", predicate.sql, predicate.params)

    assert sorted(found) == sorted((name,) for name in ids if is_sampled(name, fraction, seed))


def is_sampled(name, fraction, seed):
    digest = hashlib.md5(f"{seed}:{name}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % 1_000_000 < round(fraction * 1_000_000)


def test_sample_never_keeps_an_event_without_id(con):
    predicate = compile_sample(1, 7, "completion_id")

    assert keep(con, predicate, "completion_id", [None, "a"]) == ["a"]


def test_larger_sample_holds_the_smaller_one():
    ids = [f"call-{number}" for number in range(2_000)]

    small = {name for name in ids if is_sampled(name, 0.05, 7)}

    assert small < {name for name in ids if is_sampled(name, 0.1, 7)}


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan"), 0.0000001])
def test_sample_fraction_out_of_range_is_a_config_error(fraction):
    with pytest.raises(ConfigError, match="fraction"):
        compile_sample(fraction, 7)
