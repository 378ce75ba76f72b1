"""Validate one SQL expression that a user wrote; hand back text that is safe to splice.

DuckDB's own parser reads the text, a walk over the syntax tree lets through what is known to be
pure, and the text is written anew from that tree, so nothing that the walk did not see survives.
Nothing is bound or run here: types are the caller's to check.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from pipelines.errors import ConfigError
from pipelines.functions import (
    AGGREGATE_BY_NAME,
    PRIVATE,
    PURE_AGGREGATES,
    TAKES_LAMBDA,
    VOLATILE,
    explain_function,
    explain_type,
    explain_word,
    nearest,
)

_Node = dict[str, Any]  # one object of DuckDB's JSON syntax tree

_MAX_CHARS = 20_000
# DuckDB's parser needs quadratic time for unclosed brackets and for rows of signs (duckdb 2.0.0:
# 98 s for 10,000 minus signs), so both are counted before it sees the text.
_MAX_DEPTH = 150
_MAX_SIGNS = 8
_SHOWN_CHARS = 60

_COMPARISONS = (
    "COMPARE_EQUAL COMPARE_NOTEQUAL COMPARE_LESSTHAN COMPARE_GREATERTHAN COMPARE_LESSTHANOREQUALTO "
    "COMPARE_GREATERTHANOREQUALTO COMPARE_DISTINCT_FROM COMPARE_NOT_DISTINCT_FROM"
)
_OPERATORS = (
    "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE OPERATOR_TRY "
    "COMPARE_IN COMPARE_NOT_IN STRUCT_EXTRACT ARRAY_EXTRACT ARRAY_SLICE ARRAY_CONSTRUCTOR"
)
_CALL_KEYS = (
    "function_name schema catalog qualified_name arguments filter order_bys distinct is_operator "
    "export_state"
)
# Class of a syntax node: its allowed types, and the keys it may carry besides the common ones.
_SHAPES: dict[str, tuple[str, str]] = {
    "CONSTANT": ("VALUE_CONSTANT", "literal"),
    "COLUMN_REF": ("COLUMN_REF", "column_names"),
    "COMPARISON": (_COMPARISONS, "left right"),
    "CONJUNCTION": ("CONJUNCTION_AND CONJUNCTION_OR", "children"),
    "OPERATOR": (_OPERATORS, "children"),
    "BETWEEN": ("COMPARE_BETWEEN", "input lower upper"),
    "CASE": ("CASE_EXPR", "case_checks else_expr"),
    "CAST": ("OPERATOR_CAST", "child type_expr try_cast"),
    "COLLATE": ("COLLATE", "child collation"),
    "LAMBDA": ("LAMBDA", "lhs expr syntax_type"),
    "TYPE": ("TYPE", "type_name children schema catalog qualified_name"),
    "FUNCTION": ("FUNCTION", _CALL_KEYS),
}
_COMMON_KEYS = frozenset({"class", "type", "alias"})
_REFUSED_SHAPES = {
    "SUBQUERY": "a subquery is not allowed (also as EXISTS, IN (select …) and = ANY (…))",
    "WINDOW": "a window function is not allowed",
    "STAR": "'*' and COLUMNS are not allowed: name the columns",
    "PARAMETER": "a parameter ($name or ?) is not allowed: write the value",
    "POSITIONAL_REFERENCE": "a positional reference (#1) is not allowed: name the column",
    "DEFAULT": "DEFAULT is not allowed: write the value",
    "OPERATOR_UNPACK": "UNPACK is not allowed: name the columns",
    "GROUPING_FUNCTION": "GROUPING is an aggregate, and aggregates are not allowed",
}
# Every key of a SELECT besides its list: the value when it is not there, and what it is called.
_CLAUSES: dict[str, tuple[object, str]] = {
    "modifiers": ([], "DISTINCT, ORDER BY or LIMIT"),
    "cte_map": ({"map": []}, "WITH"),
    "from_table": ({"type": "EMPTY", "alias": "", "sample": None}, "FROM"),
    "where_clause": (None, "WHERE"),
    "group_expressions": ([], "GROUP BY"),
    "group_sets": ([], "GROUP BY"),
    "aggregate_handling": ("STANDARD_HANDLING", "GROUP BY ALL"),
    "having": (None, "HAVING"),
    "sample": (None, "USING SAMPLE"),
    "qualify": (None, "QUALIFY"),
}
_STATEMENT = re.compile(
    r"(?:alter|analyze|attach|begin|call|checkpoint|comment|commit|copy|create|deallocate|delete"
    r"|describe|detach|drop|execute|explain|export|force|from|import|insert|install|load|merge"
    r"|pivot|pragma|prepare|reset|rollback|select|set|show|summarize|truncate|unpivot|update|use"
    r"|vacuum|values|with)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Expression:
    """One checked expression.

    Attributes:
        sql: canonical text, written from the checked syntax tree; safe between parentheses.
        columns: the columns it reads, spelled as the caller's `columns` has them.
    """

    sql: str
    columns: frozenset[str]


class _RefusedError(Exception):
    """Why an expression is refused; the place is added at the door."""


def parse_expression(
    text: str, *, place: str, columns: tuple[str, ...] | None = None, boolean: bool = False
) -> Expression:
    """Return the checked expression; it is parsed, never bound or run.

    Args:
        text: hostile until this returns.
        place: where the text stands, such as "configs/a.yaml: where"; begins every message.
        columns: the columns it may read; names match as in DuckDB, whatever their ASCII case.
            None allows any name, except words such as `current_date` that DuckDB would call.
        boolean: the value serves as a condition. A bare number or string is refused; any other
            type shows only when the caller binds `sql`.

    Raises:
        ConfigError: it is not one pure expression over `columns`; the message says why.
    """
    try:
        return _parse(text.strip(" \t\r\n"), columns, boolean)  # others may be names to DuckDB
    except _RefusedError as exc:
        raise ConfigError(f"{place}: {exc}") from exc
    except duckdb.Error as exc:
        raise ConfigError(f"{place}: {_first_line(str(exc))}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{place}: nested too deeply") from exc


@functools.lru_cache(256)  # a run asks for the same few for every batch
def _parse(text: str, columns: tuple[str, ...] | None, boolean: bool) -> Expression:  # noqa: FBT001 - private
    _check_characters(text)
    _check_tokens(text)
    # Only the first reading is limited: written back, every operator stands in parentheses.
    written = _serialize(f"select {text}", "set max_expression_depth = 150")
    try:
        root = _sole_expression(_load(written))
    except _RefusedError as exc:
        # "INSTALL httpfs" parses as a column with an alias, "COPY t TO 'f'" not at all.
        if statement := _STATEMENT.match(text):
            word = statement[0].upper()
            raise _RefusedError(f"{word} begins a statement, not an expression ({exc})") from exc
        raise
    found = _check_tree(root, None if columns is None else {_fold(name): name for name in columns})
    if boolean and root["class"] == "CONSTANT" and root["literal"]["kind"] != "BOOLEAN":
        raise _RefusedError("the condition is a constant, not a comparison")
    return Expression(_write(written), found)


def _check_characters(text: str) -> None:
    if not text.strip():
        raise _RefusedError("the expression is empty")
    if len(text) > _MAX_CHARS:
        raise _RefusedError(f"{len(text):,} characters are too long, {_MAX_CHARS:,} is the limit")
    if "\0" in text:
        raise _RefusedError("a NUL character is not allowed")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise _RefusedError(f"not valid Unicode text: {exc.reason}") from exc


def _check_tokens(text: str) -> None:
    depth = signs = 0
    for kind, piece in _pieces(text):
        if kind == duckdb.token_type.comment:
            raise _RefusedError("a comment (-- or /* */) is not allowed")
        if kind != duckdb.token_type.operator:
            signs = 0
        elif piece == ";":
            raise _RefusedError("';' is not allowed: write one expression")
        elif piece in {"(", "[", "{"}:
            depth += 1
        elif piece in {")", "]", "}"}:
            depth -= 1
        else:
            signs += len(piece)
        if depth > _MAX_DEPTH or signs > _MAX_SIGNS:
            limits = f"{_MAX_DEPTH} brackets, or {_MAX_SIGNS} signs in a row, at most"
            raise _RefusedError(f"nested too deeply ({limits})")
    if depth:
        raise _RefusedError("brackets do not match")


def _pieces(text: str) -> Iterator[tuple[duckdb.token_type, str]]:
    data = text.encode()
    tokens = duckdb.tokenize(text)
    ends = [*(start for start, _ in tokens[1:]), len(data)]  # offsets count bytes
    for (start, kind), end in zip(tokens, ends, strict=True):
        yield kind, data[start:end].decode(errors="replace").strip()


@functools.cache
def _parser() -> duckdb.DuckDBPyConnection:
    """An empty database that reaches nothing; each use takes a cursor of its own."""
    return duckdb.connect(":memory:", config=PRIVATE)


def _ask(statement: str, text: str, *settings: str) -> str:
    with _parser().cursor() as con:
        for setting in settings:
            con.execute(setting)
        rows = con.execute(statement, {"text": text}).fetchall()
    answer: str = rows[0][0]
    return answer


def _serialize(query: str, *settings: str) -> str:
    return _ask("select json_serialize_sql($text)", query, *settings)


def _load(written: str, *dropped: str) -> _Node:
    """The tree without source positions and the dropped keys."""

    def keep(node: _Node) -> _Node:
        return {
            key: value
            for key, value in node.items()
            if not key.startswith("query_location") and key not in dropped
        }

    tree: _Node = json.loads(written, object_hook=keep)
    return tree


def _write(written: str) -> str:
    """The text of a checked tree, once it is sure to read back as that tree in parentheses."""
    text = _ask("select json_deserialize_sql($text)", written).removeprefix("SELECT ")
    # Written back, ESCAPE is a call and not an operator, and a named argument has an alias too.
    again = _load(_serialize(f"select ({text})"), "is_operator", "alias")
    if again != _load(written, "is_operator", "alias"):
        raise _RefusedError("DuckDB cannot write this expression back; say it more simply")
    return text


def _sole_expression(tree: _Node) -> _Node:
    """The expression of `select <expression>`, when the statement is nothing else."""
    if tree["error"]:
        message = _first_line(tree["error_message"])
        deep = message.startswith("Max expression depth")
        raise _RefusedError("nested too deeply" if deep else message)
    if len(tree["statements"]) != 1:
        raise _RefusedError("several statements are not allowed: write one expression")
    node = dict(tree["statements"][0]["node"])
    if node.pop("type") != "SELECT_NODE":
        raise _RefusedError("UNION, EXCEPT and INTERSECT are not allowed: write one expression")
    roots = node.pop("select_list")
    clauses = [name for key, (bare, name) in _CLAUSES.items() if node.pop(key, bare) != bare]
    if clauses or node:
        name = (clauses or list(node))[0]
        raise _RefusedError(f"{name} is not allowed: write one expression")
    if len(roots) != 1:
        raise _RefusedError(f"{len(roots)} expressions with commas between, where one belongs")
    root: _Node = roots[0]
    if root["alias"]:
        raise _RefusedError(f"an alias ({_short(root['alias'])}) is not allowed")
    return root


def _check_tree(root: _Node, known: Mapping[str, str] | None) -> frozenset[str]:
    """The columns that the tree reads, or the first thing in it that is not allowed."""
    found: set[str] = set()
    pending: list[tuple[_Node, frozenset[str]]] = [(root, frozenset())]
    while pending:
        node, bound = pending.pop()
        _check_shape(node)
        match node["class"]:
            case "COLUMN_REF":
                found.update(_columns_read(node["column_names"], known, bound))
                continue
            case "FUNCTION":
                _check_function(node)
            case "TYPE":
                _check_type(node)
            case "LAMBDA" if node["syntax_type"] == "LAMBDA_KEYWORD":
                parameters = frozenset(_fold(name) for name in _lambda_parameters(node["lhs"]))
                pending.append((node["expr"], bound | parameters))
                continue
        pending.extend((child, bound) for child in _children(node))
    return frozenset(found)


def _check_shape(node: _Node) -> None:
    kind, detail = node["class"], node["type"]
    if refusal := _REFUSED_SHAPES.get(kind) or _REFUSED_SHAPES.get(detail):
        raise _RefusedError(refusal)
    types, keys = _SHAPES.get(kind, ("", ""))
    if detail not in types.split() or node.keys() - _COMMON_KEYS - set(keys.split()):
        raise _RefusedError(f"unsupported syntax ({detail})")


def _children(node: _Node) -> Iterator[_Node]:
    """Every syntax node below this one, whatever key it hangs on."""
    pending: list[object] = list(node.values())
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict) and "class" in value:
            yield value
        elif isinstance(value, dict):
            pending.extend(value.values())


def _columns_read(
    names: list[str], known: Mapping[str, str] | None, bound: frozenset[str]
) -> Iterator[str]:
    """The column behind a reference; more names are fields of a struct, never a table's."""
    name = _fold(names[0])
    if name in bound:
        return
    if known is not None and name in known:
        yield known[name]
    elif len(names) == 1 and (reason := explain_word(name)):
        raise _RefusedError(f"{name!r} {reason}")
    elif known is not None:
        table = ", and tables cannot be named" if len(names) > 1 else ""
        raise _RefusedError(f"unknown column {_short(names[0])}{table}{nearest(name, known)}")
    else:
        yield names[0]


def _lambda_parameters(node: _Node) -> Iterator[str]:
    """The names between `lambda` and its colon: one column reference, or a row of them."""
    parameters = [node]
    if node["class"] == "FUNCTION" and node["function_name"] == "row":
        parameters = [argument["expression"] for argument in node["arguments"]]
    for parameter in parameters:
        if parameter["class"] != "COLUMN_REF" or len(parameter["column_names"]) != 1:
            raise _RefusedError("a lambda's parameters must be plain names")
        yield parameter["column_names"][0]


def _check_type(node: _Node) -> None:
    shown = _short(node["type_name"])
    if node["schema"] or node["catalog"]:
        raise _RefusedError(f"type {shown} must stand without a schema")
    if reason := explain_type(_fold(node["type_name"])):
        raise _RefusedError(f"type {shown} {reason}")
    if any(child["class"] not in {"TYPE", "CONSTANT"} for child in _children(node)):
        raise _RefusedError(f"type {shown} must be written out")


def _check_function(node: _Node) -> None:
    name = _fold(node["function_name"])
    shown = _short(node["function_name"])
    if node["schema"] or node["catalog"]:
        path = _short(".".join(node["qualified_name"]["path"]))
        raise _RefusedError(
            f"{path}(…) must be written {shown}(…), without a schema or a method dot"
        )
    if reason := explain_function(name):
        raise _RefusedError(f"function {shown} {reason}")
    if node["filter"] or node["order_bys"]["orders"] or node["distinct"] or node["export_state"]:
        raise _RefusedError(f"function {shown}: DISTINCT, FILTER and ORDER BY are for aggregates")
    arguments = [argument["expression"] for argument in node["arguments"]]
    if name == "age" and len(arguments) == 1:
        raise _RefusedError(f"function age with one argument {VOLATILE}")
    if name in AGGREGATE_BY_NAME and not _names_pure_aggregate(arguments[1:2]):
        raise _RefusedError(f"function {shown} needs the name of an exact aggregate, such as 'sum'")
    if name in TAKES_LAMBDA and any(
        argument["class"] == "LAMBDA" and argument["syntax_type"] != "LAMBDA_KEYWORD"
        for argument in arguments[1:]
    ):
        raise _RefusedError(f"function {shown}: write 'lambda x: …' instead of 'x -> …'")


def _names_pure_aggregate(arguments: list[_Node]) -> bool:
    return bool(arguments) and (
        arguments[0]["class"] == "CONSTANT"
        and _fold(arguments[0]["literal"].get("text", "")) in PURE_AGGREGATES
    )


def _fold(name: str) -> str:
    """Lower case as DuckDB compares names: ASCII letters only."""
    return name.encode().lower().decode()


def _short(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}…")


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0]
