"""User expressions: what is let through, word for word, and what is refused and why."""

import json

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.expressions import parse_expression
from pipelines.functions import explain_function

EVENT = """
    create table event as select
        '{"a":{"b":1}}' as tags, 'gpt-4%' as model, 200 as status_code, [1, 2, 3] as l,
        {'k': {'j': 5}} as s, map {'k': 'v'} as m, timestamp '2024-01-02 03:04:05' as requested_at,
        'Ab' as x, null::varchar as n, 1.5::double as d, 'odd' as "weird ""column"
"""
PURE = [
    "status_code in (200, 201) and tags->>'$.a' = 'x'",
    "status_code not in (1, 2)",
    r"model like 'gpt%' escape '\'",
    r"model not ilike 'GPT\%' escape '\'",
    "model similar to 'g.*'",
    "model ~ 'gpt' and model !~ 'x' and model glob 'g*'",
    "case when status_code = 200 then 'a' else 'b' end",
    "case status_code when 200 then 'a' when 201 then 'b' end",
    "x::int is null or true",
    "try_cast(x as int)",
    "try(x::int)",
    "list_contains([1, 2], status_code)",
    "list_transform(l, lambda v: v || 'a')",
    "list_filter(l, lambda v, i: v + i > status_code)",
    "list_reduce(l, lambda a, b: a + b)",
    "[v * 2 for v in l if v > 1]",
    "requested_at + interval '1 day'",
    "requested_at - interval 5 minute",
    "requested_at >= timestamp '2024-01-01'",
    "date_trunc('day', requested_at)",
    "extract(hour from requested_at)",
    "requested_at at time zone 'UTC'",
    "age(requested_at, timestamp '2020-01-01')",
    "regexp_matches(model, '^gpt')",
    "regexp_extract(tags, '\"b\":(\\d)', 1)",
    '"weird ""column" = \'odd\'',
    "s.k.j",
    "(s).k.j = 5",
    "s['k']['j']",
    "m['k']",
    "l[1:2]",
    "l[-1]",
    "n is distinct from x",
    "n is not distinct from null",
    "n is null and x is not null",
    "not status_code = 200",
    "not not true",
    "status_code between 1 and 2",
    "status_code not between 1 and 2 and d > 1",
    "x collate nocase = 'aB'",
    "x in ('a', 'b') or (x, d) = ('a', 1)",
    "2 in l",
    "- d",
    "-(-d)",
    "2 - -1",
    "-2 ** 2",
    "d % 2 // 1",
    "~5 & 3 | 8 << 1",
    "{'a': 1, 'b c': l}",
    "struct_pack(a := 1)",
    "map {'a': 1}",
    "[1, 2]",
    "array[1, 2]",
    "x'ab'",
    "1e3 + 1_000 + 1.50",
    "12345678901234567890123",
    "d::decimal(10, 4)",
    "l::bigint[]",
    "{'a': 1}::struct(a varchar)",
    "tags::json -> 'a'",
    "(tags -> '$.a') is not null",
    "json_extract_string(tags, '$.a.b')",
    "'it''s'",
    "$$it's; -- /* not a comment */$$",
    "e'a\\tb'",
    "'a\nb'",
    "'-- no comment; /* none */'",
    "coalesce(n, x)",
    "nullif(x, 'Ab')",
    "if(d > 1, 'y', 'n')",
    "split_part(model, '-', 1)",
    "md5_number_lower(x) % 100",
    "list_aggr(l, 'sum')",
    "list_max(l)",
    "array_to_string(l, ',')",
    "fdiv(d, 2) + fmod(d, 2)",
    "days_in_month(requested_at)",
    "trim(both 'A' from x)",
    "substring(x from 2 for 1)",
    "'a'.upper()",
    "strftime(requested_at, '%Y-%m')",
]
TREE_ONLY = {"query_location", "query_location_length", "is_operator", "alias"}


@pytest.fixture(scope="module")
def con():
    with duckdb.connect(":memory:") as con:
        con.execute("set timezone = 'UTC'")
        con.execute(EVENT)
        yield con


def read_tree(text):
    """DuckDB's tree of an expression, without positions and spelling."""
    with duckdb.connect(":memory:", config={"threads": "1"}) as con:
        ((tree,),) = con.execute(
            "select json_serialize_sql($t)", {"t": f"select {text}"}
        ).fetchall()
    return json.loads(
        tree, object_hook=lambda node: {k: v for k, v in node.items() if k not in TREE_ONLY}
    )


def evaluate(con, text):
    query = f"select ({text})::varchar, typeof({text}) from event"  # noqa: S608 - under test
    return con.execute(query).fetchall()


def refusal(text, **options):
    with pytest.raises(ConfigError) as caught:
        parse_expression(text, place="configs/a.yaml: where", **options)
    return str(caught.value)


@pytest.mark.parametrize("text", PURE)
def test_canonical_text_means_the_same(con, text):
    canonical = parse_expression(text, place="where").sql

    assert evaluate(con, canonical) == evaluate(con, text)


@pytest.mark.parametrize("text", PURE)
def test_canonical_text_is_a_fixed_point(text):
    canonical = parse_expression(text, place="where")

    assert parse_expression(f"({canonical.sql})", place="where") == canonical


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        pytest.param("STATUS_CODE = 1 and Model = 'a'", {"status_code", "model"}, id="any-case"),
        pytest.param("s.k.j = 1", {"s"}, id="struct-field-is-no-column"),
        pytest.param("list_transform(l, lambda v: v || model)", {"l", "model"}, id="lambda-name"),
        pytest.param("list_transform(l, lambda MODEL: model)", {"l"}, id="lambda-hides-a-column"),
        pytest.param(
            "list_transform(l, lambda v: list_filter(l, lambda w: w = v.a))",
            {"l"},
            id="lambda-nested",
        ),
        pytest.param("case when a then b else c end::int", {"a", "b", "c"}, id="every-branch"),
        pytest.param("map {a: b}[c]", {"a", "b", "c"}, id="map-and-subscript"),
        pytest.param("'model'", set(), id="constant"),
        pytest.param("\"user\" = 'me'", {"user"}, id="keyword-that-is-a-column"),
    ],
)
def test_columns_read_are_spelled_as_given(text, columns):
    known = ("status_code", "model", "s", "l", "a", "b", "c", "user")

    assert parse_expression(text, place="where", columns=known).columns == columns


def test_columns_are_as_written_when_none_are_given():
    assert parse_expression("Foo.bar = 1", place="where").columns == {"Foo"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("modle = 'x'", "unknown column 'modle'; did you mean 'model'?", id="typo"),
        pytest.param("MODLE = 'x'", "did you mean 'model'?", id="typo-in-capitals"),
        pytest.param("main.events.x = 1", "tables cannot be named", id="table"),
        pytest.param("list_transform(model, lambda v: w)", "unknown column 'w'", id="in-lambda"),
        pytest.param("É = 1", "unknown column 'É'", id="case-is-ascii-as-in-duckdb"),
    ],
)
def test_unknown_column_is_named_with_the_nearest(text, message):
    assert message in refusal(text, columns=("model", "é"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param(" \n ", "empty", id="blank"),
        pytest.param("x +", "syntax error", id="syntax"),
        pytest.param("'x", "unterminated", id="open-string"),
        pytest.param("(x", "brackets do not match", id="open-bracket"),
        pytest.param("x = 1;", "';' is not allowed", id="semicolon"),
        pytest.param("1; drop table x", "';' is not allowed", id="two-statements"),
        pytest.param("x -- y", "a comment", id="line-comment"),
        pytest.param("x /* y */ = 1", "a comment", id="block-comment"),
        pytest.param("x, y", "2 expressions with commas", id="two-expressions"),
        pytest.param("x as y", "an alias ('y')", id="alias"),
        pytest.param("y: x", "an alias ('y')", id="prefix-alias"),
        pytest.param("x from events", "FROM is not allowed", id="from"),
        pytest.param("x from 'events.parquet'", "FROM is not allowed", id="from-file"),
        pytest.param("x where y", "WHERE is not allowed", id="where"),
        pytest.param("x group by y", "GROUP BY is not allowed", id="group-by"),
        pytest.param("x group by all", "GROUP BY ALL is not allowed", id="group-by-all"),
        pytest.param("x having y", "HAVING is not allowed", id="having"),
        pytest.param("x qualify y", "QUALIFY is not allowed", id="qualify"),
        pytest.param("x order by y", "ORDER BY or LIMIT is not allowed", id="order-by"),
        pytest.param("x limit 1", "LIMIT is not allowed", id="limit"),
        pytest.param("distinct x", "DISTINCT", id="distinct"),
        pytest.param("x using sample 1", "SAMPLE is not allowed", id="sample"),
        pytest.param("1 union select 2", "UNION", id="union"),
        pytest.param("1) union (select 2", "syntax error", id="bracket-escape"),
        pytest.param("(select 1)", "a subquery", id="subquery"),
        pytest.param("exists (select 1)", "a subquery", id="exists"),
        pytest.param("x in (select 1)", "a subquery", id="in-subquery"),
        pytest.param("x = any (select 1)", "a subquery", id="any-subquery"),
        pytest.param("array(select 1)", "a subquery", id="array-subquery"),
        pytest.param("(from 'f.parquet')", "a subquery", id="from-first"),
        pytest.param("(values (1))", "a subquery", id="values"),
        pytest.param("list_transform(l, lambda v: (select v))", "a subquery", id="lambda-subquery"),
        pytest.param("x::decimal(10, (select 1))", "", id="type-subquery"),
        pytest.param("sum(x) over ()", "a window function", id="window"),
        pytest.param("row_number() over ()", "a window function", id="row-number"),
        pytest.param("lag(x)", "is a window function", id="window-without-over"),
        pytest.param("count(*)", "'count_star' is an aggregate", id="count-star"),
        pytest.param("max(x)", "'max' is an aggregate", id="aggregate"),
        pytest.param("grouping(x)", "GROUPING", id="grouping"),
        pytest.param("lower(distinct x)", "are for aggregates", id="distinct-argument"),
        pytest.param("lower(x) filter (where y)", "are for aggregates", id="filter-clause"),
        pytest.param("lower(x order by y)", "are for aggregates", id="ordered-argument"),
        pytest.param("*", "name the columns", id="star"),
        pytest.param("t.*", "name the columns", id="table-star"),
        pytest.param("columns('a.*') = 1", "name the columns", id="columns"),
        pytest.param("unpack(x)", "UNPACK", id="unpack"),
        pytest.param("unnest(x)", "several rows", id="unnest"),
        pytest.param("$1", "a parameter", id="numbered-parameter"),
        pytest.param("$name", "a parameter", id="named-parameter"),
        pytest.param("x = ?", "a parameter", id="question-mark"),
        pytest.param("#1", "a positional reference", id="positional"),
        pytest.param("default", "DEFAULT", id="default"),
        pytest.param("x::main.mood", "without a schema", id="schema-type"),
        pytest.param("x::intt", "type 'intt' is unknown; did you mean 'int'?", id="unknown-type"),
        pytest.param("x.upper()", "must be written 'upper'(…)", id="method-call"),
        pytest.param("system.main.lower(x)", "without a schema", id="schema-function"),
        pytest.param("x operator(pg_catalog.+) 1", "without a schema", id="schema-operator"),
        pytest.param("list_transform(l, v -> v)", "'lambda x: …'", id="old-lambda"),
        pytest.param("list_transform(l, (v, i) -> v)", "'lambda x: …'", id="old-lambda-of-two"),
    ],
)
def test_what_is_not_one_expression_is_refused(text, message):
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("COPY events TO 'f.csv'", "COPY"),
        ("attach 'x.db' as y", "ATTACH"),
        ("attach 'x.db'", "attach"),  # reads as a constant of the type "attach"
        ("INSTALL httpfs", "INSTALL"),
        ("LOAD httpfs", "LOAD"),
        ("set threads = 1", "SET"),
        ("pragma version", "PRAGMA"),
        ("drop table events", "DROP"),
        ("select 1", "SELECT"),
        ("with a as (select 1) select 1", "WITH"),
    ],
)
def test_statement_is_refused_by_name(text, name):
    assert name in refusal(text)


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        *(
            (call, call.partition("(")[0], "is volatile")
            for call in (
                "now()",
                "random()",
                "uuid()",
                "gen_random_uuid()",
                "today()",
                "current_date()",
                "get_current_time()",
                "get_current_timestamp()",
                "transaction_timestamp()",
                "current_localtimestamp()",
                "ago('1 day')",
                *("current_date", "current_time", "current_timestamp"),
                *("localtime", "localtimestamp"),
            )
        ),
        ("CURRENT_TIMESTAMP", "current_timestamp", "is volatile"),
        ("age(x)", "age", "is volatile"),
        *(
            (call, call.partition("(")[0], "reads the environment")
            for call in (
                "getenv('HOME')",
                "current_setting('threads')",
                "getvariable('x')",
                "nextval('s')",
                "current_user",
                "session_user",
                "user",
                "current_schema",
                "current_catalog",
                "current_role",
                "current_database()",
                "current_query()",
                "txid_current()",
                "version()",
            )
        ),
        *(
            (call, call.partition("(")[0], "is a table function")
            for call in (
                "read_text('/etc/passwd')",
                "read_blob('/etc/passwd')",
                "read_csv('f')",
                "read_json('f')",
                "read_parquet('s3://b/k')",
                "parquet_scan('f')",
                "glob('*')",
                "duckdb_settings()",
                "which_secret('a', 'b')",
            )
        ),
        *(
            (call, call.partition("(")[0], "does something besides")
            for call in (
                "error('x')",
                "sleep_ms(1000)",
                "pg_sleep(1)",
                "write_log('x')",
                "setseed(0.5)",
                "assert_true(false)",
            )
        ),
        *(
            (call, call.partition("(")[0], "takes SQL text")
            for call in (
                "query('select 1')",
                "query_table('t')",
                "json_serialize_plan('select 1')",
                "json_execute_serialized_sql('{}')",
            )
        ),
        ("hash(x)", "hash", "use md5_number_lower"),
        ("list_approx_count_distinct(x)", "list_approx_count_distinct", "not known to be pure"),
        ("list_aggr(x, 'reservoir_quantile')", "list_aggr", "exact aggregate"),
        ("list_aggr(x, lower('SUM'))", "list_aggr", "exact aggregate"),
        ("pg_get_viewdef(1)", "pg_get_viewdef", "not known to be pure"),
        ("lowr(x)", "lowr", "is unknown; did you mean 'lower'?"),
        ("__internal_decompress_string(x)", "__internal", "is unknown"),
        ('"READ_TEXT"(x)', "read_text", "is a table function"),
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "coalesce(x, ({})::varchar)", "case when true then {} end"]
)
def test_impure_function_is_refused_by_name(text, name, reason, around):
    message = refusal(around.format(text))

    assert name in message
    assert reason in message


def test_message_begins_with_the_place():
    assert refusal("now()").startswith("configs/a.yaml: where: ")


def test_long_names_are_cut_in_messages():
    assert len(refusal(f"{'x' * 10_000}(1)")) < 200


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(" * 10_000 + "1" + ")" * 9_999, id="brackets"),
        pytest.param("(" * 9_000, id="open-brackets"),
        pytest.param("(" * 400 + "1" + ")" * 400, id="fewer-brackets"),
        pytest.param("- " * 9_000 + "1", id="signs"),
        pytest.param("not " * 4_900 + "x", id="not"),
        pytest.param("+".join("1" * 9_000), id="sums"),
        pytest.param("x" + "::int" * 3_000, id="casts"),
        pytest.param("case when a then " * 1_000 + "1" + " end" * 1_000, id="cases"),
        pytest.param("f(" * 2_000 + ")" * 2_000, id="calls"),
        pytest.param("lambda x: " * 1_500 + "1", id="lambdas"),
        pytest.param("x" * 1_000_000, id="megabyte"),
        pytest.param("'" + "x" * 20_000 + "'", id="just-too-long"),
    ],
)
def test_huge_or_deep_text_is_refused(text):
    message = refusal(text)

    assert "too deeply" in message or "too long" in message or "do not match" in message


def test_long_flat_condition_is_fine():
    text = " or ".join(f"model = 'model-{number}'" for number in range(700))

    assert parse_expression(text, place="where").columns == {"model"}


@pytest.mark.parametrize("text", ["x = '\0'", "x\ud800", "'\udfff'"])
def test_text_that_sql_cannot_hold_is_refused(text):
    assert "configs/a.yaml: where: " in refusal(text)


@pytest.mark.parametrize("text", ["1", "'yes'", "null", "1.5"])
def test_condition_is_no_bare_constant(text):
    assert "constant" in refusal(text, boolean=True)


@pytest.mark.parametrize("text", ["true", "x = 1", "is_error", "not x"])
def test_condition_may_be_anything_else(text):
    assert parse_expression(text, place="where", boolean=True).sql


def test_every_allowed_function_is_consistent_in_the_catalogue():
    with duckdb.connect(":memory:") as con:
        rows = con.execute(
            "select distinct function_name from duckdb_functions()"
            " where stability <> 'CONSISTENT' or function_type in ('table', 'pragma')"
            " and function_name not in ('generate_series', 'range', 'repeat')"
        ).fetchall()

    allowed = {name for (name,) in rows if not explain_function(name)}

    assert allowed == set()


FRAGMENTS = (
    "a b.c 1 'x' \"q\" ( ) [ ] { } , . : :: ; - + * / = < -> ->> || ? $1 #1 -- /* */ not and or in "
    "is null between case when then else end cast( as int try_cast( lambda x: lower( now() count( "
    "select from where over () interval date like escape collate nocase exists( map struct( "
    "[x for in if row( list_transform( distinct * columns( at time zone"
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(FRAGMENTS.split()), max_size=12).map(" ".join),
)


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_any_text_is_refused_or_reads_back_the_same(text):
    try:
        expression = parse_expression(text, place="where")
    except ConfigError:
        return

    assert read_tree(f"({expression.sql})") == read_tree(text)


@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_any_constant_survives(text):
    literal = "'" + text.replace("\0", "").replace("'", "''") + "'"

    expression = parse_expression(f"x = {literal}", place="where")

    assert expression.sql == f"(x = {literal})"
