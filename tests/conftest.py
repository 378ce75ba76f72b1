"""Fixtures of every test: an S3 server, and one place to read from and write to on disk and S3."""

import re
import signal
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from pipelines.storage import Store, open_store
from tests.s3_server import S3Server, serve_s3


def pytest_configure(config):
    config.addinivalue_line("markers", "s3: needs the S3 server of the test run")
    config.addinivalue_line("markers", "ui: shows pages in Chromium; run by `make test-ui` alone")
    config.addinivalue_line("markers", "consumers: `make test-consumers` runs these alone")
    # Processes that share the tests ignore Ctrl-C, and what they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests that share a server, or what was made once: they stay in one process. Groups of xdist's own
# do nothing with pytest 9.2, which has no `Item._nodeid` any more.
_TOGETHER = re.compile(
    r"tests/flows/test_deployments|tests/flows/|tests/test_crashes\.py::\w+\[(file|s3)"
    r"|tests/targets/test_bundles|tests/targets/test_consumers|tests/test_cluster"
)


class _Together(LoadScopeScheduling):
    """Hands out tests one by one, and those that stay together as one."""

    def _split_scope(self, nodeid: str) -> str:
        found = _TOGETHER.match(nodeid)
        return found[0] if found else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return _Together(config, log)


@dataclass(frozen=True)
class Site:
    """A fresh source and a fresh destination, both empty."""

    kind: str  # "file" or "s3"
    source_url: str
    destination_url: str
    storage_options: dict = field(default_factory=dict)
    server: S3Server | None = None

    @property
    def endpoint(self) -> str:
        """Return where S3 answers, or '' on disk."""
        return self.server.endpoint if self.server else ""

    @property
    def source(self) -> Store:
        return self.store(self.source_url)

    @property
    def destination(self) -> Store:
        return self.store(self.destination_url)

    def store(self, url: str) -> Store:
        """Open any URL with the options of this place."""
        return open_store(url, self.storage_options)

    def put(self, path: str, data: bytes, *, url: str = "") -> None:
        """Write an object into the source (or below `url`), over what is there."""
        store = self.store(url or self.source_url)
        store.delete(path)
        assert store.create(path, data)

    def paths(self, url: str = "") -> list[str]:
        """List the destination (or what is below `url`)."""
        return [found.path for found in self.store(url or self.destination_url).list_objects()]


@pytest.fixture(scope="session")
def s3():
    """The S3 server of this test run; nothing is set globally."""
    with serve_s3() as server:
        yield server


_connected: list[object] = [None]  # as whom, so that a thousand tests share one connection


def forget_connections():
    """Make the next request read credentials and endpoint from the environment again."""
    from s3fs import S3FileSystem  # noqa: PLC0415 - tests without S3 need not load it

    _connected[0] = None
    S3FileSystem.clear_instance_cache()


def use_identity(monkeypatch, server, identity):
    """Make this process one user of the server; `s3_env` clears up behind it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment(identity).items():
        monkeypatch.setenv(name, value)
    if _connected[0] != (server, identity):
        forget_connections()
        _connected[0] = (server, identity)


@pytest.fixture
def s3_env(s3, monkeypatch):
    """The S3 server, with AWS_* of its admin in the environment."""
    use_identity(monkeypatch, s3, s3.admin)
    yield s3
    if _connected[0] != (s3, s3.admin):
        forget_connections()


def make_site(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Return a fresh place of a kind; for fixtures of one kind only."""
    if kind == "file":
        return Site(kind, f"file://{tmp_path}/source", f"file://{tmp_path}/destination")
    server = request.getfixturevalue("s3_env")
    # Prefixes, not buckets: every bucket takes a few of the server's volumes.
    name = f"t-{uuid.uuid4().hex[:12]}"
    options = {"endpoint_url": server.endpoint}
    return Site(kind, f"s3://raw/{name}", f"s3://exports/{name}", options, server)


@pytest.fixture(
    params=[pytest.param("file", id="file"), pytest.param("s3", id="s3", marks=pytest.mark.s3)]
)
def site(request, tmp_path):
    """A fresh source and destination, once on disk and once on S3."""
    return make_site(request.param, request, tmp_path)


@pytest.fixture
def s3_site(request, tmp_path):
    """A fresh source and destination on S3 only."""
    return make_site("s3", request, tmp_path)


@pytest.fixture
def file_site(request, tmp_path):
    """A fresh source and destination on disk only."""
    return make_site("file", request, tmp_path)
