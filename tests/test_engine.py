import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pipelines.engine import (
    compose,
    connect,
    engine_errors,
    kept_engines,
    open_engine,
    quote,
    usable_cores,
)
from pipelines.errors import ConfigError, ContractError, ResourceError
from pipelines.export import run_export
from tests.builders import NOW, event, make_config, write_batch

LIMITS: dict[str, Any] = {"memory_limit": 10**9, "threads": 2}


@pytest.fixture
def folders(tmp_path):
    """A folder that may be read and one that may not, with a batch each."""
    for name in ("inside", "inside-out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.parquet").write_bytes(write_batch([event()]))
        (tmp_path / name / "a.txt").write_text("secret")
    return tmp_path


@pytest.fixture
def con(folders):
    with connect(**LIMITS, readable=[str(folders / "inside")]) as con:
        yield con


def test_parquet_below_an_allowed_folder_is_read(con, folders):
    rows = con.execute("select id from read_parquet($f)", {"f": f"{folders}/inside/a.parquet"})

    assert rows.fetchall() == [("call-1",)]


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("select * from read_parquet('{}/inside-out/a.parquet')", id="sibling"),
        pytest.param("select * from read_parquet('{}/inside/../inside-out/a.parquet')", id="up"),
        pytest.param("select * from '{}/inside-out/a.parquet'", id="replacement-scan"),
        pytest.param("select * from read_text('{}/inside-out/a.txt')", id="read_text"),
        pytest.param("select * from read_blob('{}/inside-out/a.txt')", id="read_blob"),
        pytest.param("select * from read_csv('{}/inside-out/a.txt')", id="read_csv"),
        pytest.param("select * from glob('{}/inside-out/*')", id="glob"),
        pytest.param("attach '{}/inside-out/a.db'", id="attach"),
        pytest.param("copy (select 1) to '{}/inside-out/b.csv'", id="copy"),
        pytest.param("export database '{}/inside-out'", id="export"),
        pytest.param("install httpfs", id="install"),
        pytest.param("load httpfs", id="load"),
        pytest.param("select * from read_parquet('https://localhost/a.parquet')", id="https"),
        pytest.param("select * from read_parquet('s3://raw/a.parquet')", id="s3"),
    ],
)
def test_sandbox_refuses(con, folders, sql):
    with pytest.raises(duckdb.Error):
        con.execute(sql.format(folders)).fetchall()

    assert sorted(path.name for path in (folders / "inside-out").iterdir()) == [
        "a.parquet",
        "a.txt",
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "set lock_configuration = false",
        "reset lock_configuration",
        "set memory_limit = '100GB'",
        "set TimeZone = 'Europe/Berlin'",
        "pragma threads = 8",
    ],
)
def test_configuration_is_locked(con, sql):
    with pytest.raises(duckdb.Error, match="locked"):
        con.execute(sql)


def test_environment_cannot_be_read(con, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "hunter2")

    with pytest.raises(duckdb.Error):
        con.execute("select getenv('SECRET_OF_THE_HOST')").fetchall()


def test_time_zone_is_utc(con):
    assert con.execute("select current_setting('TimeZone')").fetchone() == ("UTC",)


def test_spill_folder_goes_with_the_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with connect(**LIMITS):
        assert len(list(tmp_path.iterdir())) == 1

    assert not list(tmp_path.iterdir())


def test_nothing_is_drawn_on_stdout_where_no_script_was_started():
    code = (
        "from pipelines.engine import connect\n"
        "with connect(memory_limit=10**9, threads=1) as con:\n"
        "    print(con.execute(\"select current_setting('enable_progress_bar')\").fetchone()[0])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own arguments

    assert found.stdout.strip() == "False"


def test_memory_limit_below_what_duckdb_needs_is_a_config_error():
    with (
        pytest.raises(ConfigError, match="memory_limit: 1000 bytes is too little"),
        connect(memory_limit=1000, threads=1),
    ):
        pass


def test_too_small_memory_limit_of_a_config_is_refused_before_anything_is_written(file_site):
    file_site.put("a.parquet", write_batch([event()]))

    with pytest.raises(ConfigError, match="memory_limit"):
        run_export(make_config(file_site, memory_limit="1MB"), now=NOW)

    assert not file_site.paths()


def test_real_out_of_memory_names_the_settings():
    with (
        connect(memory_limit=350_000_000, threads=1) as con,
        pytest.raises(ResourceError, match="raise memory_limit or lower threads"),
        engine_errors("testing"),
    ):
        con.execute("select string_agg(repeat('x', 1000), '') from range(2000000)").fetchall()


@pytest.mark.parametrize(
    ("error", "ours", "text"),
    [
        pytest.param(
            OSError("Out of Memory Error: could not allocate block"),
            ResourceError,
            "doing: DuckDB needs more than memory_limit",
            id="memory-inside-a-stream",
        ),
        pytest.param(
            duckdb.IOException("IO Error: No space left on device"),
            ResourceError,
            "doing: no space left to spill.*TMPDIR",
            id="disk",
        ),
        pytest.param(
            duckdb.BinderException("Binder Error: no column x\nLINE 1: secret"),
            ConfigError,
            "^doing: Binder Error: no column x$",
            id="binder",
        ),
        pytest.param(
            duckdb.ConversionException("Conversion Error: Could not convert string 'top secret'"),
            ContractError,
            r"string … \(on an event's value",
            id="value-hidden",
        ),
        pytest.param(duckdb.Error(), ContractError, "doing: Error", id="no-text"),
    ],
)
def test_foreign_error_becomes_ours(error, ours, text):
    with pytest.raises(ours, match=text) as caught, engine_errors("doing"):
        raise error

    assert caught.value.__cause__ is error


def test_value_that_cannot_be_converted_is_not_shown(con):
    with pytest.raises(ContractError) as caught, engine_errors("reading a batch"):
        con.execute("select cast('my ''own'' secret' as integer)").fetchall()

    assert "secret" not in str(caught.value)


def test_compose_refuses_an_unknown_slot():
    with pytest.raises(ValueError, match=r"time_range\.sql has no slot \{\{requested\}\}"):
        compose("time_range", requested="a")


def test_compose_fills_every_slot():
    text = compose("time_range", requested_at="made_at")

    assert "epoch_us(made_at)" in text
    assert "{{" not in text


@pytest.mark.parametrize("name", ["plain", 'a"b', "a b", "", "select"])
def test_quoted_name_is_one_identifier(con, name):
    column = quote(name) if name else '"x"'

    assert con.execute(f"select 1 as {column}").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", 64), ("150000 100000", 2), ("50000 100000", 1), ("6400000 100000", 64)],
)
def test_threads_are_those_that_the_container_may_use(tmp_path, monkeypatch, text, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(text)

    assert usable_cores(tmp_path / "cpu.max") == cores
    assert usable_cores(tmp_path / "absent") == 64


def test_engines_serve_again_while_they_are_kept_and_hold_nothing_of_their_last_user(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with kept_engines():
        with open_engine(**LIMITS) as first:
            first.con.execute("create temp table held as select 1 as one")
            first.con.register("shown", pa.table({"one": [1]}))
        with open_engine(**LIMITS) as again:
            for name in ("held", "shown"):
                with pytest.raises(duckdb.CatalogException):
                    again.con.execute(f"from {name}")
            assert again.con is first.con
            with pytest.raises(duckdb.Error, match="configuration"):
                again.con.execute("set threads = 8")
            zone = again.con.execute("select current_setting('TimeZone')").fetchone()
            with open_engine(**LIMITS) as beside, open_engine(**LIMITS | {"threads": 1}) as other:
                folders = {first.folder, again.folder, beside.folder, other.folder}
        assert zone == ("UTC",)
        assert len(folders) == len(list(tmp_path.iterdir())) == 3

    assert not list(tmp_path.iterdir())


def test_an_engine_that_failed_serves_nobody_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with kept_engines():
        with pytest.raises(duckdb.Error), open_engine(**LIMITS) as engine:
            engine.con.execute("select error('no')")

        assert not list(tmp_path.iterdir())


def test_a_forked_process_makes_engines_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with kept_engines():
        with open_engine(**LIMITS):
            pass
        (kept,) = tmp_path.iterdir()
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            folder = pool.submit(_folder_of_an_engine).result(60)

        assert kept not in folder.parents
        assert list(tmp_path.iterdir()) == [kept]


def _folder_of_an_engine():
    with open_engine(**LIMITS) as engine:
        engine.con.execute("select 1")
        return engine.folder
