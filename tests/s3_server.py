"""One SeaweedFS process as the S3 of a test run, on free ports of the loopback address only."""

import json
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKETS = ("raw", "exports")
_SERVERS = ("master", "volume", "filer", "admin", "s3")
_STARTS = 3
_READY_SECONDS = 60


@dataclass(frozen=True)
class Identity:
    """A user of the server: `admin` may do everything, `reader` may read and list."""

    access_key: str
    secret_key: str


ADMIN = Identity("test-admin", "test-admin-secret-0123456789")
READER = Identity("test-reader", "test-reader-secret-0123456789")


@dataclass(frozen=True)
class S3Server:
    """Where the server listens, and who may use it."""

    endpoint: str
    admin: Identity = ADMIN
    reader: Identity = READER

    def environment(self, identity=ADMIN):
        """Return the AWS_* variables of a process that uses this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    def client(self, attempts=4):
        """Return a botocore client of the admin, to arrange and to look at what is there."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.admin.access_key,
            aws_secret_access_key=self.admin.secret_key,
            config=Config(
                retries={"max_attempts": attempts},
                connect_timeout=5,
                s3={"addressing_style": "path"},
            ),
        )


@contextmanager
def serve_s3():
    """Run a server; it is ready when this yields, and gone with its files afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="s3-"))
    try:
        with ExitStack() as stack:
            yield stack.enter_context(_start(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _start(directory):
    for attempt in range(_STARTS):
        ports = _free_ports()
        work = directory / str(attempt)
        work.mkdir()
        process = _launch(work, ports)
        try:
            server = S3Server(f"http://127.0.0.1:{ports['s3']}")
            # A port may be taken between the choice and the start: then others are tried.
            if _wait_until_ready(server, process):
                yield server
                return
        finally:
            _stop(process, ports)
    log = (directory / str(_STARTS - 1) / "log").read_text(errors="replace")
    raise RuntimeError(f"SeaweedFS did not start:\n{log[-4000:]}")


def _launch(work, ports):
    identities = [
        _identity("admin", ADMIN, ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", READER, ["Read", "List"]),
    ]
    config = work / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    data = work / "data"
    data.mkdir()
    command = [
        _executable(),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        f"-s3.config={config}",
        f"-bucket={','.join(BUCKETS)}",
        # AWS has no such service: a put to a missing bucket is an error there.
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={work}/s3.sock",
        f"-filer.localSocket={work}/filer.sock",
    ]
    command += [f"-{name}.port={ports[name]}" for name in _SERVERS]
    command += [f"-{name}.port.grpc={ports[name + '.grpc']}" for name in _SERVERS]
    with (work / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=work, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 - our own arguments


def _identity(name, identity, actions):
    keys = {"accessKey": identity.access_key, "secretKey": identity.secret_key}
    return {"name": name, "credentials": [keys], "actions": actions}


def _executable():
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise RuntimeError("no `weed` here: install the development dependencies")
    return found


def _free_ports():
    names = [*_SERVERS, *(f"{name}.grpc" for name in _SERVERS)]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return dict(zip(names, (each.getsockname()[1] for each in sockets), strict=True))


def _wait_until_ready(server, process):
    """Return whether the buckets take an object before the server ends or the time is up."""
    client = server.client(attempts=1)
    deadline = time.monotonic() + _READY_SECONDS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                for bucket in BUCKETS:
                    client.put_object(Bucket=bucket, Key="ready", Body=b"1")
                    client.delete_object(Bucket=bucket, Key="ready")
            except (BotoCoreError, ClientError):
                time.sleep(0.1)
            else:
                return True
    finally:
        client.close()
    return False


def _stop(process, ports):
    process.kill()  # nothing of its data is kept, and a polite end takes ten seconds
    process.wait()
    for port in ports.values():  # sockets for which there is no flag
        for leftover in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - not ours to choose
            leftover.unlink(missing_ok=True)
