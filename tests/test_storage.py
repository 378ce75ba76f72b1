"""Stores on disk and on S3: whole objects or none, fresh listings, errors that say what to do."""

import hashlib
import os
import pickle
import resource
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from pipelines.errors import (
    BatchChangedError,
    ConfigError,
    ResourceError,
    StorageError,
    ThrottledError,
)
from pipelines.storage import open_store
from tests.conftest import forget_connections, use_identity
from tests.s3_server import Identity

MIB = 1024 * 1024
BIG = bytes(range(256)) * (20 * MIB // 256)


def write(store, path, *pieces):
    with store.open_writer(path) as writer:
        for piece in pieces:
            writer.write(piece)
        return writer.commit()


def fail_midway(store, data):
    with store.open_writer("gone") as writer:
        writer.write(data)
        raise ZeroDivisionError


def race(count, work):
    """Run work(number) on so many threads at once and return the results."""
    barrier = threading.Barrier(count)

    def start(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


def pending_uploads(server, url):
    """Return the keys below a URL with an upload neither completed nor aborted."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = server.client()
    answer = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
    client.close()
    return [upload["Key"] for upload in answer.get("Uploads", [])]


def files_below(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


# -- URLs and options


def test_plain_path_is_a_file_url(tmp_path):
    assert open_store(f"{tmp_path}/a/../b/").url == f"file://{tmp_path}/b"


def test_url_has_no_trailing_slash():
    assert open_store("s3://bucket/some/prefix/").url == "s3://bucket/some/prefix"


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        pytest.param("s3://bucket", "a/b", "s3://bucket/a/b", id="bucket"),
        pytest.param("s3://bucket/p", "a%2Fb", "s3://bucket/p/a%2Fb", id="prefix"),
        pytest.param("file:///data", "a b", "file:///data/a b", id="file"),
    ],
)
def test_absolute_url_joins_without_encoding(url, path, expected):
    assert open_store(url).absolute_url(path) == expected


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("gs://bucket/prefix", id="other-protocol"),
        pytest.param("s3://", id="no-bucket"),
        pytest.param("s3:///prefix", id="empty-bucket"),
        pytest.param("s3://bucket/prefix?versionId=1", id="query"),
        pytest.param("file://relative", id="relative-file-url"),
        pytest.param("/", id="root"),
        pytest.param("", id="empty"),
    ],
)
def test_malformed_url_is_a_config_error(url):
    with pytest.raises(ConfigError):
        open_store(url)


def test_unsupported_protocol_names_the_supported_ones():
    with pytest.raises(ConfigError, match="s3:// or file://"):
        open_store("gs://bucket")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"key": "hush"}, id="key"),
        pytest.param({"token": "hush"}, id="token"),
        pytest.param({"client_kwargs": {"aws_secret_access_key": "hush"}}, id="nested"),
        pytest.param({"s3_additional_kwargs": {"SSECustomerKey": "hush"}}, id="sse-c"),
        pytest.param({"client_kwargs": [{"Password": "hush"}]}, id="in-a-list"),
        pytest.param({"client_kwargs": {"headers": {"Authorization": "hush"}}}, id="header"),
        pytest.param({"client_kwargs": {"headers": {"X-Custom": "hush"}}}, id="unknown-name"),
        pytest.param({"config_kwargs": {"proxies_config": {"ApiKey": "hush"}}}, id="api-key"),
        pytest.param({"config_kwargs": {"proxies": {"http": "me:hush@proxy:3128"}}}, id="proxy"),
        pytest.param({"config_kwargs": {"proxies": {"http": "http://me:h/ush@p"}}}, id="slash"),
        pytest.param({"config_kwargs": {"s3": {"foo": "hush"}}}, id="third-level"),
        pytest.param({"use_ssl": "hush"}, id="no-switch"),
        pytest.param({"config_kwargs": {"user_agent_extra": "Bearer hush0123"}}, id="bearer"),
        pytest.param({"endpoint_url": "https://me:hush@host"}, id="in-a-url"),
        pytest.param({"endpoint_url": "https://host/?sig=hush"}, id="in-a-query"),
    ],
)
def test_secret_in_options_is_refused_without_showing_it(options):
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket", options)

    assert "hush" not in str(caught.value)


def test_secret_in_the_url_is_refused_without_showing_it():
    with pytest.raises(ConfigError) as caught:
        open_store("s3://user:hush@bucket/prefix")

    assert "hush" not in str(caught.value)


def test_options_that_hold_no_secret_are_accepted():
    options = {
        "s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/logs"},
        "requester_pays": True,
        "profile": "export",
    }

    assert open_store("s3://bucket", options).url == "s3://bucket"


def test_misspelt_option_names_the_nearest():
    with pytest.raises(ConfigError, match="'endpoint_url'"):
        open_store("s3://bucket", {"endpoint": "http://host"})


def test_option_that_botocore_refuses_is_a_config_error(s3_site):
    store = open_store(s3_site.source_url, {"config_kwargs": {"retries": {"mode": "none"}}})

    with pytest.raises(ConfigError, match="do not work"):
        store.stat("a")


def test_misspelt_inner_option_names_the_nearest():
    with pytest.raises(ConfigError, match=r"config_kwargs: .* did you mean 'read_timeout'"):
        open_store("s3://bucket", {"config_kwargs": {"read_time": 1}})


def test_store_pickles(site):
    store = pickle.loads(pickle.dumps(site.source))  # noqa: S301 - made here

    assert store == site.source
    assert store.create("a", b"1")


def test_local_stores_do_not_import_s3():
    code = (
        "import sys, pipelines.storage; print('s3fs' in sys.modules or 'botocore' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)  # noqa: S603 - our own code

    assert done.stdout == "False\n"


# -- create-only


def test_created_object_reads_back(site):
    site.source.create("a/b", b"content")

    assert site.source.read_bytes("a/b") == b"content"


def test_create_returns_the_etag_that_a_listing_shows(site):
    etag = site.source.create("a", b"first")

    assert [found.etag for found in site.source.list_objects()] == [etag]


def test_create_on_a_taken_name_replaces_nothing(site):
    site.source.create("a", b"first")

    assert site.source.create("a", b"second") is None
    assert site.source.read_bytes("a") == b"first"


def test_create_race_has_one_winner(site):
    store = site.destination

    won = race(8, lambda number: store.create("race", b"%d" % number) is not None)

    assert sum(won) == 1
    assert store.read_bytes("race") == b"%d" % won.index(True)


def test_writer_race_has_one_winner(site):
    store = site.destination

    # One put on S3. SeaweedFS 4.48 refuses to complete an upload over an object that stands, but
    # looks and writes in two steps: 35 of 70 races of plain botocore clients had several winners.
    size = 9 * MIB if site.kind == "file" else MIB
    won = race(4, lambda number: write(store, "race", b"%d" % number * size))

    assert sum(won) == 1
    assert store.read_bytes("race", end=1) == b"%d" % won.index(True)
    assert store.stat("race").size == size


def test_large_writer_race_leaves_one_whole_object(s3_site):
    store = s3_site.destination

    won = race(4, lambda number: write(store, "race", b"%d" % number * (9 * MIB)))

    winners = [b"%d" % number for number, done in enumerate(won) if done]
    content = store.read_bytes("race")
    assert content[:1] in winners
    assert content == content[:1] * (9 * MIB)


def test_writer_streams_a_large_object(site):
    with site.destination.open_writer("dir/big") as writer:
        for start in range(0, len(BIG), 3 * MIB + 1):
            writer.write(memoryview(BIG)[start : start + 3 * MIB + 1])
        assert writer.commit() is True

    assert writer.size == len(BIG)
    assert site.destination.sha256("dir/big") == hashlib.sha256(BIG).hexdigest()


def test_buffer_may_be_reused_after_write(site):
    buffer = bytearray(b"a" * (9 * MIB))
    with site.destination.open_writer("reused") as writer:
        writer.write(memoryview(buffer))
        buffer[:] = b"b" * len(buffer)
        writer.commit()

    assert set(site.destination.read_bytes("reused")) == {ord("a")}


def test_commit_of_nothing_makes_an_empty_object(site):
    assert write(site.destination, "empty") is True
    assert site.destination.read_bytes("empty") == b""


def test_large_commit_on_a_taken_name_replaces_nothing(site):
    write(site.destination, "big", BIG)

    assert write(site.destination, "big", BIG[::-1]) is False
    assert site.destination.sha256("big") == hashlib.sha256(BIG).hexdigest()


def test_refused_commit_leaves_no_upload(s3_site):
    store = s3_site.destination
    store.create("big", b"")

    write(store, "big", BIG)

    assert pending_uploads(s3_site.server, s3_site.destination_url) == []


@pytest.mark.parametrize("data", [b"small", BIG], ids=["small", "big"])
def test_abort_leaves_nothing(s3_site, data):
    writer = s3_site.destination.open_writer("gone")
    writer.write(data)

    writer.abort()

    assert s3_site.paths() == []
    assert pending_uploads(s3_site.server, s3_site.destination_url) == []


@pytest.mark.parametrize("data", [b"small", BIG], ids=["small", "big"])
def test_exception_in_the_context_leaves_nothing(s3_site, data):
    with pytest.raises(ZeroDivisionError):
        fail_midway(s3_site.destination, data)

    assert s3_site.paths() == []
    assert pending_uploads(s3_site.server, s3_site.destination_url) == []


def test_exception_in_the_context_leaves_no_file(file_site, tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_midway(file_site.destination, BIG)

    assert files_below(tmp_path) == []


def test_leaving_the_context_without_commit_publishes_nothing(site):
    with site.destination.open_writer("gone") as writer:
        writer.write(b"x")

    assert site.destination.stat("gone") is None


def test_commit_leaves_no_temporary_file(file_site, tmp_path):
    write(file_site.destination, "a/b", b"x")

    assert files_below(tmp_path) == [tmp_path / "destination/a/b"]


def test_closed_writer_refuses_to_go_on(site):
    writer = site.destination.open_writer("a")
    writer.commit()

    with pytest.raises(ValueError, match="closed"):
        writer.write(b"x")


def test_leftovers_of_a_killed_writer_are_cleared(site):
    writer = site.destination.open_writer("gone")
    writer.write(BIG)

    kept = site.destination.clear_leftovers(3600)
    time.sleep(1.1)
    cleared = site.destination.clear_leftovers(0)

    assert (kept, cleared) == (0, 1)
    writer.abort()


def test_delete_of_a_missing_object_is_fine(site):
    site.source.create("a", b"")

    site.source.delete("a")
    site.source.delete("a")

    assert site.source.stat("a") is None


@pytest.mark.parametrize("path", ["../a", "a/../../b", "", "a/\0"])
def test_path_cannot_leave_the_store(site, path):
    with pytest.raises(StorageError):
        site.source.read_bytes(path)


# -- listing


def test_nothing_there_lists_nothing(site):
    assert site.paths() == []


def test_listing_is_in_code_point_order(site):
    paths = ["a-b", "a.c", "a/1", "a/2/3", "a b/2", "a!/x", "A", "é", "\uffee", "\U0001f600", "zz"]
    for path in paths:
        site.put(path, b"")

    assert site.paths(site.source_url) == sorted(paths)


def test_odd_names_survive_listing_and_reading(site):
    paths = ["k=a%2Fb/x+y.jsonl", "k=a b/&?#'\"<>.jsonl", "k=日本/\t.jsonl"]
    for path in paths:
        site.put(path, path.encode())

    found = {path: site.source.read_bytes(path) for path in site.paths(site.source_url)}

    assert found == {path: path.encode() for path in paths}


def test_prefix_and_suffix_narrow_the_listing(site):
    for path in ["date=1/a.parquet", "date=1/b.txt", "date=12/c.parquet", "date=2/d.parquet"]:
        site.put(path, b"")

    found = [found.path for found in site.source.list_objects("date=1", ".parquet")]

    assert found == ["date=1/a.parquet", "date=12/c.parquet"]


def test_listing_turns_pages(s3_site):
    store = s3_site.source
    paths = [f"dt={number % 7}/{number:05}.parquet" for number in range(1205)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: store.create(path, b"x"), paths))

    assert s3_site.paths(s3_site.source_url) == sorted(paths)


def test_listing_is_fresh(site):
    site.put("a", b"")
    before = site.paths(site.source_url)

    site.put("b", b"")

    assert (before, site.paths(site.source_url)) == (["a"], ["a", "b"])


def test_listing_agrees_with_stat(site):
    site.put("a/b", b"content")

    assert list(site.source.list_objects()) == [site.source.stat("a/b")]


def test_modified_at_is_by_the_clock_of_the_store(site):
    site.put("a", b"")

    assert abs(site.source.read_clock() - site.source.stat("a").modified_at) < 60


def test_hidden_names_and_temporary_files_are_not_listed(file_site):
    file_site.put(".hidden/a", b"")
    file_site.put("_meta/manifests/1.json", b"")
    with file_site.source.open_writer("b") as writer:
        writer.write(b"x")
        paths = file_site.paths(file_site.source_url)

    assert paths == ["_meta/manifests/1.json"]


def test_linked_directory_is_listed_and_a_circle_ends(file_site, tmp_path):
    file_site.put("a/b", b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c").write_bytes(b"")
    (tmp_path / "source/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source/a/up").symlink_to(tmp_path / "source")

    assert file_site.paths(file_site.source_url) == ["a/b", "linked/c"]


def test_name_that_is_not_utf8_is_an_error(file_site, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / os.fsdecode(b"\xff")).write_bytes(b"")

    with pytest.raises(StorageError, match="UTF-8"):
        file_site.paths(file_site.source_url)


@pytest.mark.usefixtures("s3_env")
def test_missing_bucket_is_an_error_to_list():
    with pytest.raises(StorageError, match="no bucket 'nowhere'"):
        list(open_store("s3://nowhere/prefix").list_objects())


# -- reading


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        (2, 5),
        (2, None),
        (None, 3),
        (-4, None),
        (-99, None),
        (8, 99),
        (50, 60),
        (3, 3),
    ],
)
def test_byte_range_is_a_slice(site, start, end):
    site.put("a", b"0123456789")

    assert site.source.read_bytes("a", start=start, end=end) == b"0123456789"[start:end]


def test_tail_of_an_empty_object_is_empty(site):
    site.put("a", b"")

    assert site.source.read_bytes("a", start=-8) == b""


def test_read_with_the_listed_etag_succeeds(site):
    site.put("a", b"content")
    found = site.source.stat("a")

    assert site.source.read_bytes("a", start=3, end=5, etag=found.etag) == b"te"


def test_read_of_an_overwritten_object_says_so(site):
    site.put("a", b"first")
    found = site.source.stat("a")
    site.put("a", b"second")

    with pytest.raises(BatchChangedError):
        site.source.read_bytes("a", start=0, end=2, etag=found.etag)


def test_read_of_a_removed_object_says_so(site):
    site.put("a", b"first")
    found = site.source.stat("a")
    site.source.delete("a")

    with pytest.raises(BatchChangedError):
        site.source.read_bytes("a", etag=found.etag)


def test_read_of_an_object_that_never_was_is_a_storage_error(site):
    with pytest.raises(StorageError, match="no such object") as caught:
        site.source.read_bytes("missing")

    assert not isinstance(caught.value, BatchChangedError)


def test_sha256_of_a_missing_object_is_a_storage_error(site):
    with pytest.raises(StorageError, match="no such object"):
        site.source.sha256("missing")


def test_download_fetches_only_the_ranges(site, tmp_path):
    site.put("big", BIG)
    found = site.source.stat("big")
    ranges = [(5, 10), (MIB, 18 * MIB), (len(BIG) - 7, len(BIG))]

    fetched = site.source.download(
        "big", tmp_path / "copy", ranges, etag=found.etag, size=found.size
    )

    expected = bytearray(len(BIG))
    for start, end in ranges:
        expected[start:end] = BIG[start:end]
    assert fetched == 5 + 17 * MIB + 7
    assert (tmp_path / "copy").read_bytes() == expected


def test_download_of_no_ranges_is_a_hole(site, tmp_path):
    site.put("a", b"12345")

    assert site.source.download("a", tmp_path / "copy", [], etag=None, size=5) == 0
    assert (tmp_path / "copy").read_bytes() == bytes(5)


def test_download_of_an_overwritten_object_says_so(site, tmp_path):
    site.put("big", BIG)
    found = site.source.stat("big")
    site.put("big", BIG[::-1])

    with pytest.raises(BatchChangedError):
        site.source.download(
            "big", tmp_path / "copy", [(0, found.size)], etag=found.etag, size=found.size
        )


def test_threads_share_a_store(site):
    store = site.destination

    done = race(6, lambda number: write(store, f"part-{number}", BIG[: 9 * MIB + number]))

    assert done == [True] * 6
    assert [found.size for found in store.list_objects()] == [9 * MIB + n for n in range(6)]


# -- errors


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        pytest.param(Identity("nobody", "x" * 20), "AWS_ACCESS_KEY_ID", id="unknown-key"),
        pytest.param(
            Identity("test-admin", "wrong" * 8), "AWS_SECRET_ACCESS_KEY", id="wrong-secret"
        ),
    ],
)
@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda store: store.stat("a"), id="stat"),
        pytest.param(lambda store: store.read_bytes("a"), id="read"),
        pytest.param(lambda store: list(store.list_objects()), id="list"),
        pytest.param(lambda store: store.create("a", b""), id="create"),
        pytest.param(lambda store: write(store, "a", BIG), id="write"),
        pytest.param(lambda store: store.delete("a"), id="delete"),
    ],
)
def test_wrong_credentials_name_the_variable(s3_site, monkeypatch, identity, message, operation):
    use_identity(monkeypatch, s3_site.server, identity)

    with pytest.raises(StorageError, match=message) as caught:
        operation(s3_site.source)

    assert s3_site.source_url in str(caught.value)
    assert identity.secret_key not in str(caught.value)


@pytest.mark.parametrize("data", [b"small", BIG], ids=["small", "big"])
def test_read_only_identity_is_told_the_permission(s3_site, monkeypatch, data):
    use_identity(monkeypatch, s3_site.server, s3_site.server.reader)

    with pytest.raises(StorageError, match="s3:PutObject"):
        write(s3_site.destination, "a", data)


def test_no_credentials_are_said_to_be_missing(s3_site, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_connections()

    with pytest.raises(StorageError, match="no credentials found"):
        list(s3_site.source.list_objects())


@pytest.mark.usefixtures("s3_env")
def test_missing_bucket_is_an_error_to_write():
    with pytest.raises(StorageError, match="no bucket 'nowhere'"):
        open_store("s3://nowhere/prefix").create("a", b"")


def test_endpoint_from_the_environment_is_used(s3_site):
    store = open_store(s3_site.source_url)

    assert store.create("a", b"1")


@pytest.mark.usefixtures("s3_env")
def test_refused_connection_names_the_endpoint():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = open_store("s3://raw/some", {"endpoint_url": endpoint})

    with pytest.raises(StorageError, match=f"nothing answers at {endpoint}:") as caught:
        list(store.list_objects("hidden-prefix"))

    assert "list-type" not in str(caught.value)


@pytest.mark.usefixtures("s3_env")
def test_unknown_host_names_the_endpoint():
    options = {"endpoint_url": "http://no-such-host.invalid"}
    store = open_store(
        "s3://raw", options | {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    )

    with pytest.raises(
        StorageError, match=r"nothing answers at http://[a-z.-]*no-such-host\.invalid"
    ):
        store.stat("a")


@contextmanager
def answering(*answers):
    """Answer each connection in turn with raw bytes and hang up; the last answer repeats."""
    listener = socket.create_server(("127.0.0.1", 0))
    remaining = list(answers)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(65536).startswith(b"HEAD")
                answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
                connection.sendall(
                    answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head else answer
                )

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def http(status, body=b"", *headers, length=None):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "Connection: close", *headers, "", ""]).encode() + body


def error(status, code):
    return http(status, f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(error("503 Slow Down", "SlowDown"), id="slow-down"),
        pytest.param(error("500 Internal Server Error", "InternalError"), id="internal-error"),
        pytest.param(b"", id="hung-up"),
    ],
)
@pytest.mark.usefixtures("s3_env")
def test_busy_or_broken_store_is_throttled(answer):
    with answering(answer) as endpoint:
        store = open_store(
            "s3://raw/some",
            {"endpoint_url": endpoint, "config_kwargs": {"retries": {"total_max_attempts": 1}}},
        )

        with pytest.raises(ThrottledError) as caught:
            store.read_bytes("a")

    assert caught.value.retryable


@pytest.mark.usefixtures("s3_env")
def test_silent_store_is_throttled():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        options = {"read_timeout": 1, "retries": {"total_max_attempts": 1}}
        store = open_store("s3://raw", {"endpoint_url": endpoint, "config_kwargs": options})

        with pytest.raises(ThrottledError):
            store.read_bytes("a")


@pytest.mark.usefixtures("s3_env")
def test_truncated_body_is_read_again():
    torn = http("200 OK", b"012", 'ETag: "e"', length=10)
    whole = http("200 OK", b"0123456789", 'ETag: "e"')
    with answering(torn, torn, whole) as endpoint:
        store = open_store("s3://raw/some", {"endpoint_url": endpoint})

        assert store.read_bytes("a") == b"0123456789"


@pytest.mark.usefixtures("s3_env")
def test_store_that_ignores_if_match_is_noticed():
    with answering(http("200 OK", b"0123456789", 'ETag: "new"')) as endpoint:
        store = open_store("s3://raw/some", {"endpoint_url": endpoint})

        with pytest.raises(BatchChangedError):
            store.read_bytes("a", etag="old")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(error("400 Bad Request", "ExpiredToken"), "token has expired", id="expired"),
        pytest.param(
            error("400 Bad Request", "IllegalLocationConstraintException"),
            "AWS_DEFAULT_REGION",
            id="region",
        ),
        pytest.param(error("403 Forbidden", "AccessDenied"), "s3:ListBucket", id="denied"),
        pytest.param(error("501 Not Implemented", "NotImplemented"), "does not offer", id="501"),
        pytest.param(error("400 Bad Request", "Strange"), "Strange: said", id="unknown-code"),
        pytest.param(http("404 Not Found", b"<html>"), "the endpoint", id="not-s3"),
    ],
)
@pytest.mark.usefixtures("s3_env")
def test_refusal_says_what_to_do(answer, message):
    with answering(answer) as endpoint:
        store = open_store("s3://raw/some", {"endpoint_url": endpoint})

        with pytest.raises(StorageError, match=message) as caught:
            list(store.list_objects())

    assert not isinstance(caught.value, ThrottledError)


@contextmanager
def files_limited_to(size):
    """Make this process fail to write files past a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_that_takes_no_more_is_a_resource_error_to_download(site, tmp_path):
    site.put("big", BIG)

    with files_limited_to(MIB), pytest.raises(ResourceError, match="ulimit -f"):
        site.source.download("big", tmp_path / "copy", [(0, 5)], etag=None, size=len(BIG))


def test_disk_that_takes_no_more_is_a_resource_error_to_write(file_site, tmp_path):
    with files_limited_to(MIB), pytest.raises(ResourceError, match="ulimit -f"):
        write(file_site.destination, "big", BIG)

    assert files_below(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory_is_a_storage_error(file_site, tmp_path):
    (tmp_path / "destination").mkdir(mode=0o500)

    with pytest.raises(StorageError, match="permission denied"):
        file_site.destination.create("a", b"")


def test_directory_where_an_object_should_be_is_an_error(file_site):
    file_site.put("a/b", b"")

    with pytest.raises(StorageError, match="directory"):
        file_site.source.read_bytes("a")
    with pytest.raises(StorageError, match="directory"):
        file_site.source.create("a", b"")


def test_file_where_a_directory_should_be_is_an_error(file_site):
    file_site.put("a", b"")

    with pytest.raises(StorageError, match="file"):
        file_site.source.create("a/b", b"")


@pytest.mark.usefixtures("s3_env")
def test_errors_pickle_with_their_url():
    with pytest.raises(StorageError) as caught:
        open_store("s3://nowhere/prefix").create("a", b"")

    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made here

    assert (str(copy), copy.url) == (str(caught.value), "s3://nowhere/prefix/a")
