"""The built wheel holds everything the package reads, and nothing else."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "flows")


def run_python(*arguments, cwd, **environment):
    return subprocess.run(  # noqa: S603 - this interpreter on our own arguments
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run_python("-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def list_tree(pattern):
    found = (path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.is_file())
    return {path for path in found if "__pycache__" not in path}


@pytest.mark.parametrize(
    "pattern",
    [
        "pipelines/**/*.py",
        "pipelines/**/*.sql",
        "pipelines/**/presets/*.yaml",
        "pipelines/sample/**/*",
        "flows/**/*.py",
    ],
)
def test_the_wheel_holds_every_file_of(pattern, names):
    assert list_tree(pattern) <= names


def test_the_wheel_holds_configs_to_start_from(names):
    found = {name for name in names if name.startswith("flows/configs/")}

    assert found == {f"flows/configs/{n}.yaml" for n in ("automations", "prefect", "s3-daily")}


def test_deployments_from_the_wheel_need_no_other_file_of_the_clone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = yaml.safe_load(archive.read("flows/configs/prefect.yaml"))["deployments"]
    modules = {each["entrypoint"].rpartition(".")[0] for each in found}
    parameters = [each["parameters"] for each in found]
    configs = {
        name for each in parameters for name in [*each.get("configs", []), each.get("config")]
    }

    assert modules <= {"flows.backfill", "flows.export", "flows.pull", "flows.verify"}
    # The one that the README says to put another in place of: the demo's source is of a clone.
    assert configs - {None} == {"configs/demo.yaml"}


def test_the_wheel_holds_the_sample_and_its_licences(names):
    sample = {name for name in names if name.startswith("pipelines/sample/")}

    assert sum(name.endswith(".parquet") for name in sample) == 8
    assert sum(name.endswith(".LICENSE") for name in sample) == 7
    assert "pipelines/sample/ORIGIN.md" in sample


def test_the_wheel_holds_nothing_but_the_two_packages(names):
    tops = {name.split("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_names_the_console_script_and_the_python_it_needs(wheel, names):
    (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
    (metadata,) = (name for name in names if name.endswith("/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        scripts = archive.read(entry_points).decode()
        described = archive.read(metadata).decode()

    assert "request-logs = pipelines.cli:main" in scripts
    assert "Name: request-log-export\n" in described
    assert "Requires-Python: >=3.11\n" in described


def test_pipelines_imports_from_the_wheel_without_prefect(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import importlib, pkgutil, sys, pipelines\n"
        "for module in pkgutil.walk_packages(pipelines.__path__, 'pipelines.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "print(pipelines.__file__, 'prefect' in sys.modules)"
    )

    printed = run_python("-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert printed.split() == [str(tmp_path / "pipelines" / "__init__.py"), "False"]


@pytest.mark.parametrize(
    ("lock", "group", "own"),
    [
        pytest.param("requirements.lock", "dev", True, id="package"),
        pytest.param("tests/benchmarks/requirements.lock", "peers", False, id="peers"),
    ],
)
def test_the_lock_pins_every_requirement_and_holds_no_address(lock, group, own):
    text = (ROOT / lock).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("    --hash=sha256:")]
    pinned = {line.split("==")[0].split("[")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = project["dependency-groups"][group]
    wanted += project["project"]["dependencies"] if own else []

    assert all("==" in line for line in lines)
    assert "/" not in text
    assert {normalise(requirement) for requirement in wanted} <= pinned


def normalise(requirement):
    name = requirement
    for mark in "[<>=":
        name = name.split(mark)[0]
    return name.strip().lower().replace("_", "-")
