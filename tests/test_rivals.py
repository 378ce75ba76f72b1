"""Several runs of one window, and other exports at one destination: one is committed, whole."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from isal import isal_zlib
from typer.testing import CliRunner

from pipelines import codecs
from pipelines.cli import app
from pipelines.export import export_window
from pipelines.owner import claim_destination
from pipelines.plan import plan_export
from pipelines.sources.fetch import Spool
from pipelines.verification import verify_export
from tests.builders import (
    NOW,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    write_batch,
)

RIVALS = 8
ROUNDS = 3
START = datetime(2024, 6, 1, 9, tzinfo=UTC)
_starting_line: Any = None  # the barrier, in a rival's process


def _line_up(barrier):
    global _starting_line  # noqa: PLW0603 - a barrier goes to a process only as it starts
    _starting_line = barrier


def _export_at_once(path, environment):
    """In a rival's process: run the command line when all rivals are ready to."""
    os.environ.update(environment)
    _starting_line.wait(timeout=120)
    result = CliRunner().invoke(app, ["export", path])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def rivals():
    """Eight processes that have the package imported, and wait for a config."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(RIVALS)
    with ProcessPoolExecutor(RIVALS, spawn, _line_up, (barrier,)) as pool:

        def race(path, environment):
            waiting = [pool.submit(_export_at_once, str(path), environment) for _ in range(RIVALS)]
            return [rival.result() for rival in waiting]

        yield race


@pytest.fixture(scope="module")
def table():
    """Rows of runs and commits, shown with -s."""
    rows: list[tuple] = []
    yield rows
    sys.stdout.write(
        "\n| store | rounds | runs | commits | exit 0 |\n| --- | --- | --- | --- | --- |\n"
    )
    for row in rows:
        sys.stdout.write(f"| {' | '.join(map(str, row))} |\n")


def put_batches(site, count=2):
    for number in range(count):
        changes = [
            {
                "id": f"{number}-{event}",
                "requested_at": START + timedelta(minutes=number * 60 + event),
                "model": ("gpt-4o", "gpt-4o-mini")[event % 2],
            }
            for event in range(40)
        ]
        site.put(f"{number}.parquet", write_batch(events(changes)))


def at(site, number):
    """A site with the same source and a destination of its own."""
    return replace(site, destination_url=f"{site.destination_url}-{number}")


def write_config(folder, config, **changes):
    path = folder / "export.yaml"
    document = config.model_dump(mode="json", exclude_unset=True) | changes
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def parts(site):
    """The bytes of every object under data/."""
    found = [path for path in site.paths() if path.startswith("data/")]
    return {path: site.destination.read_bytes(path) for path in found}


def manifests(site):
    return [path for path in site.paths() if path.startswith("_meta/manifests/")]


def run_cli(path, *arguments):
    result = CliRunner().invoke(app, ["export", str(path), *arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_eight_runs_of_a_window_at_once_commit_it_once(site, rivals, table, tmp_path):
    put_batches(site)
    alone = at(site, "alone")
    export(make_config(alone, partition_by=["date", "model"]))
    environment = site.server.environment() if site.server else {}
    commits, runs = 0, []
    for number in range(ROUNDS):
        place = at(site, number)
        config = make_config(place, partition_by=["date", "model"])

        outcomes = rivals(write_config(tmp_path, config), environment)

        committed = [output for _, output in outcomes if "1 committed" in output]
        others = [output for _, output in outcomes if "1 committed" not in output]
        assert [code for code, _ in outcomes] == [0] * RIVALS, outcomes
        assert len(committed) == 1
        assert all("committed by" in text or "Nothing to do" in text for text in others), others
        assert len(manifests(place)) == 1
        assert parts(place) == parts(alone)
        assert not verify_export(config, deep=True).problems
        commits += len(manifests(place))
        runs += outcomes
    table.append((site.kind, ROUNDS, len(runs), commits, sum(code == 0 for code, _ in runs)))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"name": "another-export"}, id="export"),
        pytest.param({"window": {"every": "1h", "start": "2024-06-01"}}, id="grid"),
        pytest.param({"source": "other"}, id="source"),
    ],
)
def test_destination_of_another_export_is_refused(site, tmp_path, changes):
    put_batches(site)
    export(make_config(site))
    before = site.paths()
    if "source" in changes:
        other = replace(site, source_url=f"{site.source_url}-other")
        put_batches(other)
        path = write_config(tmp_path, make_config(other))
    else:
        path = write_config(tmp_path, make_config(site), **changes)
    days = ("--start", "2024-06-01", "--end", "2024-06-02") if "window" in changes else ()

    code, output = run_cli(path, *days)

    assert code == 2
    assert "belongs to another" in output
    assert "take a new destination" in output
    assert site.paths() == before


def test_changed_filter_of_the_same_export_is_the_next_generation(site, tmp_path):
    put_batches(site)
    export(make_config(site))

    code, _ = run_cli(write_config(tmp_path, make_config(site, where="model = 'gpt-4o'")))

    assert code == 0
    assert read_manifest(site).generation == 2
    assert len(read_records(site)) == 40


def compress_otherwise(patch, version):
    """Let gzip give other bytes, as another version of its library may."""
    patch.setattr("pipelines.parts.open_codec", lambda *_: isal_zlib.compressobj(3, wbits=31))
    patch.setattr("pipelines.plan.codec_version", lambda _: version)


@pytest.mark.parametrize(
    "version",
    [
        pytest.param("isal 99.0", id="other-version"),
        # The names then are the same, and the bytes are not.
        pytest.param(codecs.codec_version("gzip"), id="same-version"),
    ],
)
def test_slow_rival_with_another_codec_leaves_committed_parts_alone(site, monkeypatch, version):
    put_batches(site)
    config = make_config(site, partition_by=["date", "model"])
    with monkeypatch.context() as patch:
        compress_otherwise(patch, version)
        slow = plan_export(config, now=NOW)
        claim_destination(config)
    export(config)
    committed = parts(site)

    with monkeypatch.context() as patch:
        compress_otherwise(patch, version)
        summary = export_window(slow, slow.windows[0])

    assert "committed by" in summary.status
    assert len(manifests(site)) == 1
    assert parts(site).items() >= committed.items()
    assert set(parts(site).values()) > set(committed.values())
    assert not verify_export(config, deep=True).problems


def test_batch_overwritten_after_planning_is_planned_again_in_the_same_run(site, monkeypatch):
    put_batches(site)
    newer = write_batch(events([{"id": "newer", "model": "gpt-4o"}]))
    materialise = Spool.materialise
    overwritten: list[str] = []

    def overwrite_first(spool, path, *listed):
        # Planning reads the time column or nothing; the export reads the request.
        if path == "0.parquet" and "request" in listed[-1] and not overwritten:
            overwritten.append(path)
            site.put(path, newer)
        return materialise(spool, path, *listed)

    monkeypatch.setattr(Spool, "materialise", overwrite_first)

    summary = export(make_config(site, partition_by=["date", "model"]))

    assert overwritten == ["0.parquet"]
    assert [window.status for window in summary.windows] == ["committed"]
    assert read_manifest(site).ledger.exported == 41
    assert len(read_records(site)) == 41
    assert len(manifests(site)) == 1
