"""Killed at any boundary, the next run finishes the work: the crash matrix on a disk and on S3."""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from pipelines.owner import open_destination
from tests.aftermath import (
    Generation,
    Verdict,
    copy_objects,
    crash_config,
    first_generations,
    format_table,
    judge_finished,
    judge_killed,
    put_early,
    put_late,
    read_generations,
)
from tests.conftest import Site, forget_connections, use_identity
from tests.crash import (
    FILE_POINTS,
    FRESH_POINTS,
    POINTS,
    Job,
    count_passages,
    finish_run,
    messages,
    run,
)

_SEED = 20240601
_CHILDREN = 2


@dataclass
class Arena:
    """One store with a source, a run that was never killed, and children that are."""

    site: Site
    scratch: Path
    before: dict[str, Generation]
    wanted: dict[str, Generation]
    passages: Counter[str]
    jobs: dict[str, Job] = field(default_factory=dict)
    codes: dict[str, Future[int]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


def points_of(kind: str) -> tuple[str, ...]:
    return (*POINTS, *FRESH_POINTS, *(FILE_POINTS if kind == "file" else ()))


@contextmanager
def open_site(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Site]:
    """A site for a whole module, with the credentials it needs in the environment."""
    if kind == "file":
        yield Site(kind, f"file://{folder}/source", f"file://{folder}/destination")
        return
    server = request.getfixturevalue("s3")
    with pytest.MonkeyPatch.context() as patch:
        use_identity(patch, server, server.admin)
        options = {"endpoint_url": server.endpoint}
        yield Site(kind, "s3://raw/crashes", "s3://exports/crashes", options, server)
    forget_connections()


@contextmanager
def open_arena(site: Site, scratch: Path) -> Iterator[Arena]:
    """Export early and late data once, and start a child for every point on copies of the first."""
    rng = random.Random(_SEED)  # noqa: S311 - data, no secret
    base, reference = crash_config(site, "base"), crash_config(site, "reference")
    put_early(site, rng)
    finish_run(base)
    copy_objects(open_destination(base), open_destination(reference))
    put_late(site, rng)
    environment = site.server.environment() if site.server else {}
    unharmed = Job(reference, scratch / "reference", environment)
    passages = count_passages(unharmed)
    arena = Arena(site, scratch, read_generations(base), read_generations(reference), passages)
    with ThreadPoolExecutor(_CHILDREN) as pool:
        for point in points_of(site.kind):
            name = point.replace(" ", "-").replace(",", "")
            job = Job(crash_config(site, name), scratch / name, environment, point)
            arena.jobs[point] = job = at_middle_passage(job, passages)
            arena.codes[point] = pool.submit(prepare_and_run, job, base)
        yield arena
        pool.shutdown(cancel_futures=True)


def at_middle_passage(job: Job, passages: Counter[str]) -> Job:
    return Job(**{**vars(job), "passage": passages[job.point] // 2 + 1})


def prepare_and_run(job: Job, base: Any) -> int:
    if job.point not in FRESH_POINTS:
        copy_objects(open_destination(base), open_destination(job.config))
    return run(job)


@pytest.fixture(scope="module")
def open_once(request, tmp_path_factory):
    """The arena of a kind of store, opened when first asked for; prints the table (-s)."""
    arenas: dict[str, Arena] = {}
    with ExitStack() as stack:

        def arena_of(kind: str) -> Arena:
            if kind not in arenas:
                folder = tmp_path_factory.mktemp(kind)
                site = stack.enter_context(open_site(kind, request, folder))
                arenas[kind] = stack.enter_context(open_arena(site, folder / "scratch"))
            return arenas[kind]

        yield arena_of
    rows = [
        (point, kind, 1, verdict)
        for kind, arena in arenas.items()
        for point, verdict in arena.verdicts.items()
    ]
    sys.stdout.write("\n" + format_table(rows))


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        pytest.param(
            kind,
            point,
            id=f"{kind}-{point}",
            marks=[pytest.mark.s3] * (kind == "s3"),
        )
        for kind in ("file", "s3")
        for point in points_of(kind)
    ],
)
def test_run_after_a_kill_finishes_the_work(kind, point, open_once, monkeypatch):
    arena = open_once(kind)
    job = arena.jobs[point]
    before, wanted = arena.before, arena.wanted
    if point in FRESH_POINTS:
        before, wanted = {}, first_generations(wanted)
    code = arena.codes[point].result()
    assert code == -SIGKILL, f"{point} was not reached: exit code {code}, {messages(job)}"
    monkeypatch.setattr(tempfile, "tempdir", str(job.scratch))

    killed = judge_killed(job.config, before, wanted)
    summary = finish_run(job.config)
    finished = judge_finished(arena.site, job.config, wanted, job.scratch)

    arena.verdicts[point] = verdict = killed + finished
    assert [window.error for window in summary.failed] == []
    assert not verdict.problems, "\n".join(verdict.problems)
    assert verdict == Verdict()
