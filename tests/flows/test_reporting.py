"""What Prefect is told: progress, failures, asset keys; and what `flows.serve` serves."""

import asyncio
import logging
from types import SimpleNamespace

import httpx
import pytest
import yaml

from pipelines.errors import ConfigError
from tests.builders import make_config


@pytest.fixture
def reporting(prefect_server):  # noqa: ARG001 - a fixture for its effect
    from flows import reporting  # noqa: PLC0415 - imports Prefect

    return reporting


def failed_run(**parameters):
    run = SimpleNamespace(name="chats due now", parameters=parameters)
    state = SimpleNamespace(name="Failed", message="1 of 2 windows failed")
    return SimpleNamespace(name="export-request-logs"), run, state


def test_a_failure_is_one_line_in_the_log(reporting, caplog):
    with caplog.at_level(logging.ERROR, logger=reporting.logger.name):
        asyncio.run(reporting.tell_failure(*failed_run()))

    (record,) = caplog.records
    assert record.message == "export-request-logs chats due now: Failed: 1 of 2 windows failed"


def test_a_failure_is_told_to_the_notification_block_of_the_run(reporting, monkeypatch):
    from prefect.blocks.abstract import NotificationBlock  # noqa: PLC0415 - imports Prefect

    told = []

    class Pager(NotificationBlock):
        def notify(self, body, subject=None):
            told.append((body, subject))

    async def load(slug):
        assert slug == "pager/ops"
        return Pager()

    monkeypatch.setattr(reporting.Block, "aload", load)
    asyncio.run(reporting.tell_failure(*failed_run(notify="pager/ops")))

    assert told == [
        (
            "export-request-logs chats due now: Failed: 1 of 2 windows failed",
            "export-request-logs Failed",
        )
    ]


def test_a_report_that_the_server_refuses_fails_no_run(reporting, caplog):
    def refuse():
        raise httpx.ConnectError("no server")

    with caplog.at_level(logging.WARNING, logger=reporting.logger.name):
        assert reporting.told(refuse) is None

    assert "did not take a report" in caplog.text


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("s3://exports/chats", "s3://exports/chats"),
        ("s3://raw/logs/**/*.parquet", "s3://raw/logs/__/_.parquet"),
        ("/data/with space/é", "file:///data/with_space/é"),
    ],
)
def test_any_url_is_an_asset_key(reporting, url, key):
    from prefect.assets import Asset  # noqa: PLC0415 - imports Prefect

    assert Asset(key=reporting.asset_key(url)).key == key


@pytest.mark.parametrize(
    ("words", "key"), [(("Chat_Logs.v2", "export"), "chat-logs-v2-export"), (("é",), "")]
)
def test_an_artifact_key_has_lower_case_letters_digits_and_dashes(reporting, words, key):
    assert reporting.artifact_key(*words) == key


def test_serve_needs_a_config(prefect_server, tmp_path):  # noqa: ARG001 - a fixture for its effect
    from flows.serve import make_deployments  # noqa: PLC0415 - imports Prefect

    other = tmp_path / "prefect.yaml"
    other.write_text("deployments: []\n")

    with pytest.raises(ConfigError, match="no config of an export"):
        make_deployments([other], cron=None, verify_cron=None)


@pytest.mark.parametrize("option", ["cron", "verify_cron"])
@pytest.mark.parametrize("line", ["hourly", "61 * * * *", ""])
def test_serve_refuses_a_wrong_schedule_by_its_option(
    prefect_server,  # noqa: ARG001 - a fixture for its effect
    option,
    line,
):
    from flows.serve import make_deployments  # noqa: PLC0415 - imports Prefect

    lines = {"cron": None, "verify_cron": None, option: line}
    with pytest.raises(ConfigError) as caught:
        make_deployments([], **lines)

    said = f"--{option.replace('_', '-')}: {line!r} is no cron line: five fields"
    assert str(caught.value).startswith(said)


def test_serve_makes_deployments_of_every_export_and_passes_over_prefects_files(
    prefect_server,  # noqa: ARG001 - a fixture for its effect
    file_site,
    tmp_path,
):
    from flows.serve import make_deployments  # noqa: PLC0415 - imports Prefect

    config = tmp_path / "chats.yaml"
    document = make_config(file_site).model_dump(mode="json", exclude_unset=True)
    config.write_text(yaml.safe_dump(document))
    other = tmp_path / "prefect.yaml"
    other.write_text("deployments: []\n")

    found = make_deployments([config, other], cron="10 * * * *", verify_cron=None)

    assert [made.name for made in found] == [
        "test-export-export",
        "test-export-backfill",
        "served-verify",
    ]
    assert [len(made.schedules or []) for made in found] == [1, 0, 0]
    assert {made.concurrency_limit for made in found} == {1}
    assert found[2].parameters == {"configs": [str(config)]}
