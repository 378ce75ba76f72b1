"""What a person sees of a run in Prefect's pages, in Debian's Chromium; `make test-ui`.

Screens are kept in build/screens, to be looked at.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.flows.servers import ROOT, serve_prefect

pytestmark = pytest.mark.ui

SCREENS = ROOT / "build" / "screens"
CHROMIUM = shutil.which("chromium") or "chromium"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on which the demo has run once."""
    with serve_prefect(tmp_path_factory.mktemp("prefect") / "home") as running:
        home = {"PREFECT_HOME": str(tmp_path_factory.mktemp("run"))}
        folder = tmp_path_factory.mktemp("demo")
        (folder / "configs").mkdir()
        demo = (ROOT / "configs" / "demo.yaml").read_text("utf-8")
        (folder / "configs" / "demo.yaml").write_text(demo, "utf-8")
        (folder / "pipelines").mkdir()
        (folder / "pipelines" / "sample").symlink_to(ROOT / "pipelines" / "sample")
        subprocess.run(
            [sys.executable, "-m", "flows.export", "configs/demo.yaml"],
            cwd=folder,
            env=running.environment() | home,
            check=True,
            capture_output=True,
            timeout=300,
        )
        yield running


@pytest.fixture(scope="module")
def run(server):
    (found,) = server.post("/flow_runs/filter", {})
    return found


@pytest.fixture
def page(server):
    """Show a page: keep its picture, and return its words."""
    site = str(server.client.base_url).partition("/api")[0]

    def page(path, name):
        SCREENS.mkdir(parents=True, exist_ok=True)
        words = chromium(f"{site}/{path}", "--dump-dom")
        chromium(f"{site}/{path}", f"--screenshot={SCREENS / name}.png")
        text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", words, flags=re.DOTALL)
        return re.sub(r"\s+", " ", text)

    return page


def chromium(url, what):
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(  # noqa: S603 - Debian's browser on our own page
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--window-size=1400,1500",
                "--virtual-time-budget=20000",
                f"--user-data-dir={profile}",
                what,
                url,
            ],
            env={**os.environ, "HOME": profile},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    return done.stdout


def artifact(server, run, name):
    return server.artifacts(run["id"])[name]["id"]


def test_the_run_page_names_export_windows_and_state(page, run):
    words = page(f"runs/flow-run/{run['id']}", "run")

    assert f"demo due {run['expected_start_time'][:10]}" in words
    assert "Completed" in words
    assert "export-request-logs" in words
    assert "36 Task runs" in words


def test_the_report_shows_ledger_rejects_and_manifests(page, server, run):
    words = page(f"artifacts/artifact/{artifact(server, run, 'demo-export')}", "report")

    assert "read exported filtered errors_excluded superseded duplicate sampled_out" in words
    assert "300 283 0 0 0 0 0 17" in words
    assert "event_time_missing 17 year=__HIVE_DEFAULT_PARTITION__/batch-0001.parquet 0" in words
    assert "20240112T000000Z_20240211T000000Z" in words
    assert "35 windows committed: 300 events read, 283 exported, 17 rejected" in words


def test_the_table_shows_each_window(page, server, run):
    words = page(f"artifacts/artifact/{artifact(server, run, 'demo-windows')}", "windows")

    assert "20240211T000000Z_20240312T000000Z" in words
    assert "committed" in words


def test_the_progress_artifact_ends_at_all_events(page, server, run):
    words = page(f"artifacts/artifact/{artifact(server, run, 'demo-progress')}", "progress")

    assert "300 of up to 300 events" in words


def test_pictures_were_kept():
    pictures = sorted(path.name for path in SCREENS.glob("*.png"))

    assert pictures == ["progress.png", "report.png", "run.png", "windows.png"]
    assert all(Path(SCREENS / name).stat().st_size > 20_000 for name in pictures)
