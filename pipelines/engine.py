"""DuckDB connections: sandboxed, limited, in UTC, with this package's macros."""

import functools
import importlib.resources
import math
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from pipelines.errors import ConfigError, ContractError, PipelineError, ResourceError
from pipelines.interrupts import interruptible
from pipelines.scratch import open_scratch

_MACROS = (
    "single_line",
    "lenient_json",
    "strict_json",
    "json_payload",
    "json_or_text_payload",
    "malformed_detail",
    "tags_from_list",
    "tags_from_pairs",
    "tags_from_text",
    "floor_div",
    "number_json",
)
_SLOT = re.compile(r"\{\{(\w+)\}\}")
# Strings, quoted names and comments stand first: a dollar sign in one is no parameter.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\$(\w+)""")
_STOPPED = re.compile(r"^(INTERRUPT Error|Query interrupted)")  # by a signal; the second by DuckDB
_EVENT_HINT = "on an event's value: look at `where`, the mapping and `partition_by`"
_ROWS_PER_READ = 100_000
# What DuckDB's threads may be ahead of an Arrow stream's reader. Vectors of logs are larger than
# its default of 10 MB: then they stand still while one is taken, a tenth of a plain export.
_STREAM_BUFFER = "32MB"
_MIN_MEMORY_BYTES = 350_000_000  # DuckDB 2.0 fails on ordinary batches below that


@functools.cache
def statement(name: str) -> str:
    """Return the statement of `sql/<name>.sql`, without its header."""
    text = importlib.resources.files("pipelines").joinpath(f"sql/{name}.sql").read_text("utf-8")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("--"))


def compose(name: str, **slots: str) -> str:
    """Return statement `name` with its `{{slot}}`s filled.

    Slots hold only SQL that this package built from checked parts: expressions that
    `expressions.py` parsed, quoted identifiers, and literals from a closed set. Values are bound.
    What a slot is filled with is never searched for slots: a literal in it may read like one.
    """
    text = statement(name)
    found = set(_SLOT.findall(text))
    for slot in sorted(found ^ slots.keys()):
        marker = "{{" + slot + "}}"
        has = f"has no slot {marker}" if slot in slots else f"needs {marker}"
        raise ValueError(f"{name}.sql {has}")
    return _SLOT.sub(lambda match: slots[match[1]], text)


def parameters_of(sql: str) -> frozenset[str]:
    """Return the names of a statement's `$parameters`, not those that only stand in literals."""
    return frozenset(match[1] for match in _TOKEN.finditer(sql) if match[1])


def quote(identifier: str) -> str:
    """Return a quoted SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def guarded(sql: str, columns: Collection[str], *, absent: Collection[str] = ()) -> str:
    """Return SQL of a checked expression that is NULL where its evaluation fails.

    TRY alone is not enough: what two expressions share DuckDB 2.0 computes ahead of both, outside
    of TRY (its optimizer common_subexpressions). It takes nothing out of a lambda.

    Args:
        sql: the expression.
        columns: what it reads.
        absent: those of them that are not there and read as NULL; they become the parameters.
    """
    free = "_"
    while free in {column.lower() for column in columns}:
        free += "_"
    sql = f"try({sql})"
    for name in sorted(absent) or [free]:
        sql = f"list_transform([null], lambda {quote(name)}: {sql})[1]"
    return sql


@dataclass(frozen=True, slots=True)
class Engine:
    """A connection, and a folder that it may read."""

    con: duckdb.DuckDBPyConnection
    folder: Path


@contextmanager
def connect(
    *, memory_limit: int, threads: int | None, readable: Sequence[str] = ()
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the connection of an engine; see `open_engine`."""
    with open_engine(memory_limit=memory_limit, threads=threads, readable=readable) as engine:
        yield engine.con


@contextmanager
def open_engine(
    *, memory_limit: int, threads: int | None, readable: Sequence[str] = ()
) -> Iterator[Engine]:
    """Yield an engine that reads only below its folder and `readable`, its settings locked.

    Args:
        memory_limit: bytes DuckDB may hold before it spills.
        threads: worker threads; None is one for each of `usable_cores`.
        readable: absolute folders that `read_parquet` may open; all else is refused.

    Raises:
        ConfigError: the limit is below what DuckDB needs.
        KeyboardInterrupt: a statement was stopped.
    """
    if memory_limit < _MIN_MEMORY_BYTES:
        raise ConfigError(
            f"memory_limit: {memory_limit} bytes is too little for DuckDB; "
            f"give at least {_MIN_MEMORY_BYTES}"
        )
    limits = _Limits(memory_limit, threads or usable_cores(), tuple(readable))
    with _interruptions():
        database = _kept.take(limits) or _Database(limits)
        try:
            with interruptible(database.con):
                yield Engine(database.con, database.folder)
            database.clear()
        except BaseException:
            database.close()
            raise
        _kept.put(limits, database)


@contextmanager
def _interruptions() -> Iterator[None]:
    """Let what DuckDB raises for a statement that a signal stopped be an interruption."""
    try:
        yield
    except (duckdb.Error, OSError, RuntimeError) as exc:
        if _STOPPED.search(str(exc)):
            raise KeyboardInterrupt from exc
        raise


@contextmanager
def kept_engines() -> Iterator[None]:
    """Let engines that are opened in the body serve again: to make one takes 20 ms."""
    _kept.begin()
    try:
        yield
    finally:
        _kept.end()


class _Limits(NamedTuple):
    memory: int
    threads: int
    readable: tuple[str, ...]


class _Database:
    """One DuckDB in memory with the macros, and its own folders: one to spill, one to read."""

    def __init__(self, limits: _Limits) -> None:
        self._open = ExitStack()
        scratch = self._open.enter_context(open_scratch())
        self.folder = scratch / "read"
        self.folder.mkdir()
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{limits.memory}B",
            "threads": limits.threads,
            "temp_directory": str(scratch / "spill"),
            "preserve_insertion_order": True,
            "arrow_large_buffer_size": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            self.con = self._open.enter_context(duckdb.connect(config=config))
            self.con.execute("set global TimeZone = 'UTC'")  # for cursors too
            # On by default where DuckDB was imported without a script, and it writes to stdout.
            self.con.execute("set enable_progress_bar = false")
            self.con.execute("set streaming_buffer_size = $size", {"size": _STREAM_BUFFER})
            for macro in _MACROS:
                self.con.execute(statement(macro))
            folders = [f"{folder.rstrip('/')}/" for folder in (str(self.folder), *limits.readable)]
            self.con.execute("set allowed_directories = $folders", {"folders": folders})
            self.con.execute("set enable_external_access = false")
            self.con.execute("set lock_configuration = true")
        except BaseException:
            self.close()
            raise

    def clear(self) -> None:
        """Drop what its last user made or registered."""
        for kind in ("view", "table"):
            found = f"select {kind}_name from duckdb_{kind}s() where temporary and not internal"  # noqa: S608 - closed set
            for (name,) in self.con.execute(found).fetchall():
                self.con.execute(f"drop {kind} {quote(name)}")

    def close(self) -> None:
        """Close it and remove its folders."""
        self._open.close()


class _KeptDatabases:
    """Databases that nobody uses at the moment; kept while somebody asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._idle: list[tuple[_Limits, _Database]] = []
        self._of_parent: list[tuple[_Limits, _Database]] = []

    def forget(self) -> None:
        """Begin anew in a forked process, which has the databases without their threads.

        They are not let go: to close one means to wait for its threads.
        """
        self._lock, self._users = threading.Lock(), 0
        self._idle, self._of_parent = [], self._idle

    def begin(self) -> None:
        with self._lock:
            self._users += 1

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            idle = [] if self._users else self._idle
            self._idle = self._idle if self._users else []
        for _, database in idle:
            database.close()

    def take(self, limits: _Limits) -> _Database | None:
        with self._lock:
            for entry in self._idle:
                if entry[0] == limits:
                    self._idle.remove(entry)
                    return entry[1]
        return None

    def put(self, limits: _Limits, database: _Database) -> None:
        with self._lock:
            if self._users:
                self._idle.append((limits, database))
                return
        database.close()


_kept = _KeptDatabases()
os.register_at_fork(after_in_child=_kept.forget)


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may keep busy, by its affinity and its container's quota.

    Args:
        quota: `max 100000`, or microseconds of each so many: the second group of Linux has it.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text("ascii").split()
        cores = min(cores, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):  # no such file, or no limit
        pass
    return max(cores, 1)


def read_table(
    con: duckdb.DuckDBPyConnection, query: str, params: Mapping[str, object] | None = None
) -> pa.Table:
    """Return the result of a query that fits into memory."""
    with con.sql(query, params=dict(params or {})).to_arrow_reader(_ROWS_PER_READ) as reader:
        return reader.read_all()


def check_condition(
    con: duckdb.DuckDBPyConnection, query: str, params: Mapping[str, object] | None = None
) -> None:
    """Make sure that a query's one column, made of a user's `where`, is a condition; reads no row.

    Raises:
        ConfigError: it gives something else than true or false.
    """
    (kind,) = con.sql(query, params=dict(params or {})).types
    if str(kind) != "BOOLEAN":
        raise ConfigError(f"where: gives {kind}, and must give true or false")


def stream_batches(
    con: duckdb.DuckDBPyConnection,
    query: str,
    params: Mapping[str, object] | None = None,
    *,
    rows_at_once: int = _ROWS_PER_READ,
) -> Iterator[pa.RecordBatch]:
    """Yield the result of a query of any size; the connection is busy until the last is taken."""
    with con.sql(query, params=dict(params or {})).to_arrow_reader(rows_at_once) as reader:
        yield from reader


@contextmanager
def engine_errors(doing: str, *, hint: str = "") -> Iterator[None]:
    """Turn DuckDB's errors into ours; `doing` says what was under way, without payload text.

    Errors inside of an Arrow stream arrive as OSError with DuckDB's text.

    Args:
        doing: what fails.
        hint: what to look at where an expression or a value is wrong; by default what an export
            has of them.

    Raises:
        KeyboardInterrupt: the statement was stopped.
    """
    try:
        with _interruptions():
            yield
    except (duckdb.Error, OSError) as exc:
        raise _translated(exc, doing, hint) from exc


class NotUtf8Error(ContractError):
    """A text column holds bytes that are not UTF-8; it must be read as bytes."""


def _translated(exc: duckdb.Error | OSError, doing: str, hint: str) -> PipelineError:
    """Our error for one of DuckDB's, whose own text is cut to the first line."""
    line = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if "Invalid string encoding" in line:
        return NotUtf8Error(f"{doing}: text that is not UTF-8")
    if "No space left" in line:
        return ResourceError(
            f"{doing}: no space left to spill; free space in the temporary folder (TMPDIR) "
            f"or raise memory_limit"
        )
    if line.startswith("Out of Memory Error"):
        return ResourceError(
            f"{doing}: DuckDB needs more than memory_limit; raise memory_limit or lower threads"
        )
    if line.startswith(("Binder Error", "Parser Error", "Catalog Error")):
        return ConfigError(f"{doing}: {line}{f' ({hint})' if hint else ''}")
    return ContractError(f"{doing}: {_without_values(line, hint or _EVENT_HINT)}")


def _without_values(line: str, hint: str) -> str:
    """DuckDB quotes values, which may be an event's own text: keep what stands before them."""
    kind, _, rest = line.partition(": ")
    kept = re.split(r"['\"{\[]|: ", rest, maxsplit=1)[0].rstrip()
    cut = "" if kept == rest else " …"
    said = f" ({hint})" if kind in {"Conversion Error", "Invalid Input Error"} else ""
    return f"{kind}: {kept}{cut}{said}" if rest else kind
