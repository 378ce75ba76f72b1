"""Processes that end themselves with SIGKILL at a named boundary of an export, and what is left.

The boundaries are the product's own seams, wrapped in the child alone: users pay for none of it.
"""

import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial, wraps
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pipelines
from pipelines.config import ExportConfig
from pipelines.export import run_export
from pipelines.owner import open_destination
from pipelines.parts import PartWriter
from pipelines.sources.listing import open_source
from pipelines.storage import ObjectWriter, Store
from pipelines.summary import ExportSummary

AFTER = datetime(2024, 6, 6, 1, tzinfo=UTC)
_ALL = -60  # seconds: leftovers however young, for S3 tells its time in whole seconds
_PACKAGE = Path(pipelines.__file__).parent
_CHILD_SECONDS = 120  # a child that hangs is an error; none takes two seconds


def _has(text: str) -> bool:
    """Whether the package's code speaks of something, such as a path that it writes."""
    return any(text in path.read_text("utf-8") for path in _PACKAGE.rglob("*.py"))


HAS_GARBAGE_COLLECTION = importlib.util.find_spec("pipelines.garbage") is not None

# Objects that one `Store.create` writes, by the start of their path.
_CREATED = {
    "owner": "_meta/owner.json",
    "manifest": "_meta/manifests",
    "index": "_meta/batches",
    "digests": "_meta/windows",
}
_BUILT = [name for name, start in _CREATED.items() if name != "owner" and _has(start)]
POINTS = (
    "after listing",
    "in a footer read",
    "in a part upload",
    "between parts",
    "after parts, before rejects",
    "in a reject upload",
    "after rejects",
    *(f"{when} {name}" for name in _BUILT for when in ("before", "after")),
    *(["before a removal", "after a removal"] if HAS_GARBAGE_COLLECTION else []),
)
FRESH_POINTS = ("before owner", "after owner")  # passed where nothing was ever committed
FILE_POINTS = tuple(f"torn {name}" for name in _BUILT)  # S3 takes one put whole


@dataclass(frozen=True)
class Job:
    """One child: what to export, and where to die.

    Attributes:
        scratch: the child's folder for temporary files.
        environment: variables of the child, such as credentials.
        point: the boundary, "" for none.
        passage: at which passage of it, counted from 1.
    """

    config: ExportConfig
    scratch: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    point: str = ""
    passage: int = 1
    seen: Path | None = None


def start(job: Job) -> Any:
    """Start a child; its `exitcode` is -9 once it has killed itself, 0 when it came through."""
    context = get_context("forkserver")
    # Imports once, not per child; pyarrow asks pandas what an array is, where there is pandas.
    context.set_forkserver_preload(["tests.crash", "pipelines.s3", "pandas"])
    job.scratch.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_run_child, args=(job,))
    process.start()
    return process


def run(job: Job) -> int:
    """Run a child to its end and return its exit code."""
    process = start(job)
    process.join(_CHILD_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"the child for {job.point!r} did not end")
    code = process.exitcode
    process.close()
    return code


def count_passages(job: Job) -> Counter[str]:
    """Run a child that is not killed, and return how often it passed each boundary."""
    seen = job.scratch.parent / f"{job.scratch.name}.json"
    code = run(replace(job, point="", seen=seen))
    assert code == 0, f"a run that is not killed ended with {code}: {messages(job)}"
    return Counter(json.loads(seen.read_text("utf-8")))


def messages(job: Job) -> str:
    """What a child wrote to stderr."""
    return (job.scratch / "stderr").read_text("utf-8", errors="replace")


def finish_run(config: ExportConfig) -> ExportSummary:
    """One whole run: export what is due, then clean up whatever is left, however young."""
    summary = run_export(config, now=AFTER)
    store = open_destination(config)
    if HAS_GARBAGE_COLLECTION:
        garbage = importlib.import_module("pipelines.garbage")
        garbage.collect_garbage(store, keep_generations=1, grace_seconds=_ALL)
    store.clear_leftovers(_ALL)
    return summary


def _run_child(job: Job) -> None:
    os.environ.update(job.environment)
    tempfile.tempdir = str(job.scratch)
    with (job.scratch / "stderr").open("wb") as log:
        os.dup2(log.fileno(), 2)
    fuse = _Fuse(job.point, job.passage)
    _install(fuse, open_source(job.config.source).store.url)
    summary = finish_run(job.config)
    if job.seen is not None:
        job.seen.write_text(json.dumps(fuse.passed), "utf-8")
    if summary.failed:
        sys.exit("; ".join(window.error for window in summary.failed))


class _Fuse:
    """Counts passages of boundaries, and ends the process at the one it was set to."""

    def __init__(self, point: str, passage: int) -> None:
        self.passed: Counter[str] = Counter()
        self._point = point
        self._left = passage
        self._lock = threading.Lock()

    def reach(self, point: str) -> bool:
        """Count a passage; return whether the process must end here."""
        with self._lock:
            self.passed[point] += 1
            self._left -= point == self._point
            return point == self._point and self._left == 0

    def pass_by(self, point: str) -> None:
        """End the process if this is its boundary and its passage."""
        if self.reach(point):
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _install(fuse: _Fuse, source_url: str) -> None:
    """Put the fuse into every seam of this process."""
    seams = _Seams(fuse, source_url)
    for owner, names in {
        Store: ("list_objects", "list_wide", "read_bytes", "create", "delete"),
        ObjectWriter: ("write", "commit"),
        PartWriter: ("finish",),
    }.items():
        for name in names:
            setattr(owner, name, _wrapped(getattr(owner, name), getattr(seams, name)))


def _wrapped(method: Callable[..., Any], seam: Callable[..., Any]) -> Callable[..., Any]:
    """The method, called by a seam."""

    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return seam(method, *args, **kwargs)

    return wrapped


@dataclass(frozen=True)
class _Seams:
    """Each method stands in for the product's method of its name, and calls it."""

    fuse: _Fuse
    source_url: str

    def list_objects(self, method, store, *args, **kwargs):
        yield from method(store, *args, **kwargs)
        if store.url == self.source_url:
            self.fuse.pass_by("after listing")

    list_wide = list_objects

    def read_bytes(self, method, store, *args, **kwargs):
        data = method(store, *args, **kwargs)
        if store.url == self.source_url:
            self.fuse.pass_by("in a footer read")
        return data

    def create(self, method, store, path, data):
        name = next((name for name, start in _CREATED.items() if path.startswith(start)), "other")
        self.fuse.pass_by(f"before {name}")
        if store.is_local and self.fuse.reach(f"torn {name}"):
            with store.open_writer(path) as writer:
                _write_half(writer.write, data, writer)
        created = method(store, path, data)
        self.fuse.pass_by(f"after {name}")
        return created

    def delete(self, method, store, path):
        self.fuse.pass_by("before a removal")
        method(store, path)
        self.fuse.pass_by("after a removal")

    def write(self, method, writer, data):
        part = "/data/" in writer.url
        if self.fuse.reach("in a part upload" if part else "in a reject upload"):
            _write_half(partial(method, writer), data, writer)
        method(writer, data)

    def commit(self, method, writer):
        created = method(writer)
        if "/data/" in writer.url:
            self.fuse.pass_by("between parts")
        return created

    def finish(self, method, parts):
        found = method(parts)
        if any(part.path.startswith("data/") for part in found):
            self.fuse.pass_by("after parts, before rejects")
        elif found:
            self.fuse.pass_by("after rejects")
        return found


def _write_half(write: Callable[[memoryview], None], data: bytes, writer: ObjectWriter) -> None:
    """Write half of the bytes, see them off to the disk or the server, and end the process."""
    write(memoryview(data)[: len(data) // 2])
    upload: Any = writer._upload  # noqa: SLF001 - what no user of a writer can do
    if hasattr(upload, "_file"):
        upload._file.flush()  # noqa: SLF001
    else:  # opens a multipart upload, with one part that is too small to be completed
        upload._send_part()  # noqa: SLF001
        upload._collect(0)  # noqa: SLF001
    _die()
