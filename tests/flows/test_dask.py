"""Flows on Dask: shards handed to a cluster by one task a window, and Prefect's own runner."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from prefect import flow, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId

from tests.builders import events, export, make_config, read_manifests, write_batch
from tests.dask_cluster import SOCKETS_LEFT, collected, run_cluster  # noqa: F401 - a fixture
from tests.many import written_bytes

pytestmark = SOCKETS_LEFT
START = datetime(2024, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with run_cluster(tmp_path_factory.mktemp("dask")) as found:
        yield found


@pytest.fixture
def site(file_site):
    """Days of one event each."""
    times = [START + DAY * day + timedelta(hours=9) for day in range(DAYS)]
    rows = events({"requested_at": at, "received_at": at} for at in times)
    file_site.put("batch.parquet", write_batch(rows))
    return file_site


def daily(site, destination="", **changes):
    there = {"url": f"{site.destination_url}{destination}"}
    return make_config(site, window={"every": "1d"}, destination=there, **changes)


def exported_alone(site):
    end = START + DAYS * DAY
    export(daily(site, "-alone", executor="threads"), start=START, end=end)
    return written_bytes(site, "-alone")


@pytest.mark.usefixtures("prefect_server")
def test_one_task_run_a_window_hands_its_shards_to_the_cluster(site, cluster, monkeypatch):
    from flows.backfill import backfill_request_logs  # noqa: PLC0415 - imports Prefect
    from flows.reporting import LiveProgress  # noqa: PLC0415 - imports Prefect

    told = []
    tell = LiveProgress.add

    def add(progress, window, events, line_bytes):
        told.append(events)
        tell(progress, window, events, line_bytes)

    monkeypatch.setattr(LiveProgress, "add", add)
    config = daily(site, executor="dask", address=cluster.address)
    state = backfill_request_logs(
        config, start=START, end=START + DAYS * DAY, windows_at_once=1, return_state=True
    )

    assert state.is_completed(), state.message
    assert sum(told) == DAYS
    assert written_bytes(site) == exported_alone(site)
    with get_client(sync_client=True) as client:
        wanted = TaskRunFilterFlowRunId(any_=[cast("UUID", state.state_details.flow_run_id)])
        runs = client.read_task_runs(task_run_filter=TaskRunFilter(flow_run_id=wanted))
    assert sum(run.name.startswith("window ") for run in runs) == DAYS


@pytest.mark.usefixtures("prefect_server")
def test_cluster_that_cannot_be_reached_fails_the_flow_with_its_address(site, monkeypatch):
    from flows.export import export_request_logs  # noqa: PLC0415 - imports Prefect

    monkeypatch.setattr("pipelines.cluster._SECONDS_TO_CONNECT", 1.0)
    config = daily(site, executor="dask", address="tcp://127.0.0.1:9")

    state = export_request_logs(config, return_state=True)

    assert state.is_failed()
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in (state.message or "")
    assert read_manifests(site) == []


@pytest.mark.usefixtures("prefect_server")
def test_spans_run_on_the_dask_task_runner_of_prefect(site, cluster):
    from prefect_dask import DaskTaskRunner  # noqa: PLC0415 - imports Prefect

    from flows.spans import export_span  # noqa: PLC0415 - imports Prefect

    @flow(task_runner=DaskTaskRunner(address=cluster.address))
    def backfill_on_dask(config, starts):
        ends = [start + DAY for start in starts]
        return export_span.map(unmapped(config), starts, ends).result()

    done: Any = backfill_on_dask(daily(site), [START + day * DAY for day in range(DAYS)])

    assert [len(summary["windows"]) for summary in done] == [1] * DAYS
    assert written_bytes(site) == exported_alone(site)


@pytest.mark.usefixtures("prefect_server")
def test_a_span_that_fails_names_its_windows(site):
    from flows.spans import SpanFailedError, export_span  # noqa: PLC0415 - imports Prefect

    bad = [{"requested_at": START + timedelta(hours=9), "response": "{broken"}]
    site.put("bad.parquet", write_batch(events(bad)))
    once = export_span.with_options(retries=0)

    @flow
    def backfill(config):
        return once(config, START, START + 2 * DAY)

    with pytest.raises(SpanFailedError, match=r"1 window failed\. 20240601T000000Z_2"):
        backfill(daily(site, max_reject_ratio=0.0))

    assert len(read_manifests(site)) == 1
