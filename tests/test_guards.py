import ast
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import errors
from pipelines.engine import NotUtf8Error

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipelines"
MODULES = sorted(PACKAGE.rglob("*.py"))
STATEMENTS = sorted(PACKAGE.rglob("*.sql"))
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.PipelineError)
]
# What `compose` puts where a slot stands may bind parameters of its own: `those of …`.
_HEADER = re.compile(r"(?:--.*\n)+")
_PARAMETER = re.compile(r"\$([a-z_]+)")
# Parameters that Python puts into slots.
SLOT_PARAMETERS = {name for path in MODULES for name in _PARAMETER.findall(path.read_text("utf-8"))}
_INCLUDED = re.compile(r"\{\{([a-z_]+)\}\}")


def name_of(path):
    return str(path.relative_to(ROOT))


def split(path):
    """A statement's header and its body without comments and strings."""
    text = path.read_text("utf-8")
    header = _HEADER.match(text)
    assert header, f"{name_of(path)} has no header"
    body = re.sub(r"--.*|'(?:[^']|'')*'", "", text[header.end() :])
    return header[0], body


def params_line(header):
    """The header's `params` entry with its continuation lines, '' when it has none."""
    found = re.search(r"^-- params {3}(.*(?:\n-- {10}.*)*)", header, re.MULTILINE)
    return found[1] if found else ""


def inherited(header):
    """Parameters of the statements that a header refers to as `those of …`."""
    found = set()
    for name in re.findall(r"those of ([a-z_]+)", params_line(header)):
        other, _ = split(PACKAGE / "sql" / f"{name}.sql")
        found |= set(_PARAMETER.findall(params_line(other))) | inherited(other)
    return found


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_sql_header_begins_with_the_name_of_the_file(path):
    header, _ = split(path)

    assert re.match(rf"-- {path.stem}(\([a-z]\))?: ", header)


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_sql_header_lists_exactly_the_params_of_its_body(path):
    header, body = split(path)

    own, used = set(_PARAMETER.findall(params_line(header))), set(_PARAMETER.findall(body))

    assert used - own <= inherited(header), "used, not listed"
    assert own - used <= SLOT_PARAMETERS, "listed, not used"
    assert not own & inherited(header), "listed here and there"


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_sql_header_refers_to_the_params_of_every_statement_it_includes(path):
    header, body = split(path)
    included = [
        name for name in _INCLUDED.findall(body) if (PACKAGE / "sql" / f"{name}.sql").exists()
    ]

    for name in included:
        assert f"those of {name}" in params_line(header)


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_sql_header_says_what_a_statement_gives(path):
    header, body = split(path)

    if not body.lstrip().startswith("create"):
        assert re.search(r"^-- (returns|creates)  ", header, re.MULTILINE)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_error_survives_pickling_with_its_attributes(error):
    own = next((base for base in error.__mro__ if "__init__" in vars(base)), error)
    code = getattr(own.__init__, "__code__", None)  # None where it is a built-in's
    names = code.co_varnames[2 : 2 + code.co_kwonlyargcount] if code else ()
    raised = error("what happened", **{name: f"some {name}" for name in names})

    copy = pickle.loads(pickle.dumps(raised))  # noqa: S301 - our own bytes

    assert type(copy) is error
    assert str(copy) == "what happened"
    assert vars(copy) == vars(raised)
    assert all(getattr(copy, name) == f"some {name}" for name in names)


def test_errors_of_other_modules_survive_pickling():
    raised = NotUtf8Error("text", batch="a.parquet", column="request")

    assert vars(pickle.loads(pickle.dumps(raised))) == vars(raised)  # noqa: S301


def test_only_wrong_usage_exits_with_2():
    assert {error.__name__ for error in ERRORS if error.exit_code == 2} == {"ConfigError"}
    assert {error.exit_code for error in ERRORS} == {1, 2}


def test_only_throttling_is_retryable():
    assert [error.__name__ for error in ERRORS if error.retryable] == ["ThrottledError"]


def public_definitions(body, prefix):
    """Yield (name, node) of public functions, classes and methods, nested functions apart."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text("utf-8"))

    assert ast.get_docstring(tree) or not tree.body
    bare = [n for n, node in public_definitions(tree.body, "") if not ast.get_docstring(node)]
    assert bare == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_command_line_prints(path):
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]

    assert calls == [] or path.name == "terminal.py"


def test_the_command_line_starts_without_heavy_imports():
    code = (
        "import sys, pipelines.cli\n"
        "print([m for m in ('duckdb', 'pyarrow', 'prefect', 's3fs') if m in sys.modules])"
    )

    done = subprocess.run(  # noqa: S603 - this package
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
