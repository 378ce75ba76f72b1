"""Which SQL functions, types and words an expression may use, and why not the others.

Pure means: the value depends on the arguments alone, in every run and DuckDB version. DuckDB's
catalogue says most of it; the tables add what it leaves out or gets wrong.
"""

import difflib
import functools
from collections.abc import Iterable, Mapping

import duckdb

PRIVATE: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "threads": "1",
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PURE_AGGREGATES = _names(  # of one list: exact, and the same with every DuckDB version
    "any_value avg bit_and bit_or bit_xor bool_and bool_or count entropy first histogram kurtosis "
    "kurtosis_pop last mad max median min mode product sem skewness stddev_pop stddev_samp "
    "string_agg sum var_pop var_samp"
)
_PURE_MACROS = frozenset(f"list_{name}" for name in PURE_AGGREGATES) | _names(
    "array_append array_pop_back array_pop_front array_prepend array_push_back array_push_front "
    "array_reverse array_to_string array_to_string_comma_default date_add days_in_month fdiv fmod "
    "if json list_append list_prepend list_reverse map_contains_entry map_contains_value "
    "md5_number_lower md5_number_upper nullif split_part"
)
AGGREGATE_BY_NAME = frozenset(
    ("aggregate", "array_aggr", "array_aggregate", "list_aggr", "list_aggregate")
)
TAKES_LAMBDA = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "array_", "list_")
    for name in ("apply", "transform", "filter", "reduce")
)

VOLATILE = "is volatile: the same event would give different records; use a column or a constant"
_ENVIRONMENT = "reads the environment of the run: the same event would give different records"
_EFFECT = "does something besides computing a value"
_SQL_TEXT = "takes SQL text, which cannot be checked"
# What the catalogue does not say, or says wrongly: current_localtimestamp counts as consistent.
_REFUSED_FUNCTIONS = {
    "hash": "differs between DuckDB versions: use md5_number_lower",
    "create_sort_key": "differs between DuckDB versions",
    "columns": "reads every column: name the columns",
    "unnest": "makes several rows of one event",
    **dict.fromkeys(
        _names(
            "ago current_localtime current_localtimestamp current_time current_timestamp localtime "
            "localtimestamp pg_conf_load_time pg_postmaster_start_time"
        ),
        VOLATILE,
    ),
    **dict.fromkeys(
        _names(
            "current_catalog current_connection_id current_database current_query current_query_id "
            "current_role current_schema current_schemas current_setting current_transaction_id "
            "current_user currval getenv getvariable in_search_path index_key nextval "
            "parse_duckdb_log_message session_user stats txid_current user vector_type "
            "version"
        ),
        _ENVIRONMENT,
    ),
    **dict.fromkeys(
        _names("assert_true error pg_sleep setseed setval sleep_ms write_log"), _EFFECT
    ),
    **dict.fromkeys(
        _names(
            "json_deserialize_sql json_execute_serialized_sql json_serialize_plan "
            "json_serialize_sql query query_table"
        ),
        _SQL_TEXT,
    ),
}
_REFUSED_KINDS = {
    "table": "is a table function: an expression sees the columns of one event, nothing else",
    "table_macro": "is a table function: an expression sees the columns of one event, nothing else",
    "aggregate": "is an aggregate: an expression sees one event at a time",
    "window": "is a window function: an expression sees one event at a time",
    "pragma": "is a pragma, not a function",
    "macro": "is a macro that is not known to be pure",
}
# Words that DuckDB takes for a call where no column has that name.
_KEYWORD_CALLS = _names(
    "current_catalog current_date current_role current_schema current_time current_timestamp "
    "current_user localtime localtimestamp session_user user"
)


@functools.cache
def _catalogue() -> Mapping[str, tuple[frozenset[str], frozenset[str]]]:
    """The kinds and the stabilities of every built-in function, by its name in lower case."""
    with duckdb.connect(":memory:", config=PRIVATE) as con:
        rows = con.execute(
            "select lower(function_name), list(distinct function_type),"
            " list(distinct coalesce(stability, '')) from duckdb_functions() group by 1"
        ).fetchall()
    return {name: (frozenset(kinds), frozenset(stable)) for name, kinds, stable in rows}


@functools.cache
def _types() -> frozenset[str]:
    with duckdb.connect(":memory:", config=PRIVATE) as con:
        rows = con.execute("select distinct lower(type_name) from duckdb_types()").fetchall()
    return frozenset(name for (name,) in rows)


def explain_function(name: str) -> str:
    """Why a function, in lower case, is refused; "" when it is pure."""
    if reason := _REFUSED_FUNCTIONS.get(name):
        return reason
    kinds, stabilities = _catalogue().get(name, (frozenset(), frozenset()))
    if not kinds or "__" in name:
        return f"is unknown{nearest(name, _usable())}"
    if "scalar" in kinds:
        return "" if stabilities <= {"CONSISTENT", ""} else VOLATILE
    if name in _PURE_MACROS:
        return ""
    reasons = (reason for kind, reason in _REFUSED_KINDS.items() if kind in kinds)
    return next(reasons, "is not a scalar function")


@functools.cache
def _usable() -> tuple[str, ...]:
    names = (name for name in _catalogue() if name.isidentifier() and "__" not in name)
    return tuple(sorted(name for name in names if not explain_function(name)))


def explain_type(name: str) -> str:
    """Why a type, in lower case, is refused; "" when DuckDB has it built in."""
    return "" if name in _types() else f"is unknown{nearest(name, _types())}"


def explain_word(name: str) -> str:
    """Why a bare word, in lower case, is no column: DuckDB would call it; "" otherwise."""
    return _REFUSED_FUNCTIONS.get(name, VOLATILE) if name in _KEYWORD_CALLS else ""


def nearest(name: str, choices: Iterable[str]) -> str:
    """A question that names the closest choice, "" when none is close."""
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
