"""S3 is reached with the credentials of a block, whatever the worker's environment says."""

import os
import uuid

import fsspec
import pytest

from pipelines.errors import ConfigError
from pipelines.storage import open_store
from tests.builders import make_config

pytestmark = pytest.mark.s3

HOSTILE = {
    "AWS_ACCESS_KEY_ID": "another",
    "AWS_SECRET_ACCESS_KEY": "another",
    "AWS_SESSION_TOKEN": "stale",
    "AWS_SECURITY_TOKEN": "stale",
    "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z",
    "AWS_PROFILE": "none",
    "AWS_DEFAULT_PROFILE": "none",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
}


@pytest.fixture
def credentials(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows.credentials import credentials  # noqa: PLC0415 - imports Prefect

    return credentials


def save(**values):
    """Save a block of AwsCredentials; return its type and name."""
    from prefect_aws import AwsCredentials  # noqa: PLC0415 - slow

    name = f"b-{uuid.uuid4().hex}"
    AwsCredentials(**values).save(name)
    return f"aws-credentials/{name}"


@pytest.fixture
def admin(credentials, s3):  # noqa: ARG001 - the server keeps it
    """A block of the server's admin."""
    from prefect_aws import AwsClientParameters  # noqa: PLC0415 - slow

    return save(
        aws_access_key_id=s3.admin.access_key,
        aws_secret_access_key=s3.admin.secret_key,
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=s3.endpoint),
    )


def put_and_list():
    store = open_store(f"s3://exports/t-{uuid.uuid4().hex}")
    assert store.create("a", b"a")
    return [found.path for found in store.list_objects()]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_variable_of_the_worker_beats_a_block(credentials, admin, s3_env, monkeypatch, name):
    monkeypatch.setenv(name, HOSTILE[name])
    before = dict(os.environ)

    with credentials(admin):
        found = put_and_list()

    assert found == ["a"]
    assert dict(os.environ) == before
    assert s3_env.endpoint != HOSTILE[name]


def test_no_file_of_profiles_beats_a_block(credentials, admin, s3_env, monkeypatch, tmp_path):  # noqa: ARG001
    file = tmp_path / "config"
    file.write_text(
        "[default]\nendpoint_url = http://127.0.0.1:9\nignore_configured_endpoint_urls = true\n"
        "aws_access_key_id = another\naws_secret_access_key = another\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))

    with credentials(admin):
        assert put_and_list() == ["a"]


def test_a_profile_of_a_block_beats_the_keys_of_the_worker(
    *, credentials, s3_env, monkeypatch, tmp_path
):
    admin = s3_env.admin
    file = tmp_path / "config"
    file.write_text(
        f"[profile exports]\nendpoint_url = {s3_env.endpoint}\nregion = us-east-1\n"
        f"aws_access_key_id = {admin.access_key}\naws_secret_access_key = {admin.secret_key}\n"
    )
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    slug = save(profile_name="exports")

    with credentials(slug):
        assert put_and_list() == ["a"]


@pytest.mark.parametrize("where", ["source", "destination"])
def test_a_profile_beside_a_block_is_refused(credentials, file_site, where):  # noqa: ARG001
    from flows.runs import choose_config  # noqa: PLC0415 - imports Prefect

    config = make_config(file_site, **{where: {"storage_options": {"profile": "logs"}}})

    with pytest.raises(ConfigError, match=rf"^{where}\.storage_options\.profile .*'a/b'"):
        choose_config(config, credentials="a/b")


def test_a_flow_refuses_a_profile_beside_a_block(admin, file_site):
    from flows.export import export_request_logs  # noqa: PLC0415 - imports Prefect

    config = make_config(file_site, source={"storage_options": {"profile": "logs"}})

    state = export_request_logs(config, credentials=admin, return_state=True)

    assert state.is_failed()
    assert "source.storage_options.profile would be used instead" in (state.message or "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            {"region_name": "x"}, "neither a key with its secret nor a profile", id="none"
        ),
        pytest.param({"aws_access_key_id": "x"}, "neither a key with its secret", id="half"),
        pytest.param(
            {"profile_name": "x", "assume_role_arn": "arn:aws:iam::1:role/r"},
            "assumes a role",
            id="role",
        ),
    ],
)
def test_a_block_that_would_not_be_used_is_refused(credentials, values, message):
    slug = save(**values)

    with pytest.raises(ConfigError, match=message), credentials(slug):
        pass


def test_settings_of_fsspec_that_would_beat_a_block_are_refused(credentials, admin, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "another", "anon": False})

    with pytest.raises(ConfigError, match=r"fsspec's own settings \(key of s3"), credentials(admin):
        pass
