"""What S3 refuses is one clear message each, and nothing is committed."""

import re

import pytest

from pipelines.errors import StorageError
from tests.builders import EVENT, export, make_config, write_batch
from tests.conftest import forget_connections, use_identity

pytestmark = pytest.mark.s3


@pytest.fixture
def filled(s3_site):
    s3_site.put("a.parquet", write_batch([EVENT]))
    return s3_site


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        pytest.param("AWS_ACCESS_KEY_ID", "the access key is not known there", id="key"),
        pytest.param("AWS_SECRET_ACCESS_KEY", "the secret key does not fit", id="secret"),
    ],
)
def test_wrong_credential_is_named(filled, monkeypatch, variable, message):
    monkeypatch.setenv(variable, "wrong-credential-0123456789")
    forget_connections()

    with pytest.raises(StorageError, match=message) as caught:
        export(make_config(filled))

    assert "wrong-credential" not in str(caught.value)


@pytest.mark.parametrize("section", ["source", "destination"])
def test_missing_bucket_is_named(filled, section):
    config = make_config(filled, **{section: {"url": "s3://no-such-bucket/x"}})

    with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
        export(config)


def test_missing_write_permission_is_named(filled, monkeypatch):
    use_identity(monkeypatch, filled.server, filled.server.reader)

    with pytest.raises(StorageError, match=r"access denied .* s3:PutObject") as caught:
        export(make_config(filled))

    assert filled.destination_url in str(caught.value)
    use_identity(monkeypatch, filled.server, filled.server.admin)
    assert filled.paths() == []


def test_run_that_writes_nothing_needs_no_write_permission(filled, monkeypatch):
    export(make_config(filled))
    use_identity(monkeypatch, filled.server, filled.server.reader)

    summary = export(make_config(filled))

    assert [window.status for window in summary.windows] == ["up to date"]


def test_endpoint_that_does_not_answer_is_named(filled):
    options = {
        "endpoint_url": "http://127.0.0.1:1",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    config = make_config(filled, source={"storage_options": options})

    with pytest.raises(StorageError, match=re.escape("http://127.0.0.1:1")) as caught:
        export(config)

    assert "endpoint" in str(caught.value)
