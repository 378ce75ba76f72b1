"""The flow that fills or refreshes a range of windows, some of them side by side."""

from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from flows.credentials import credentials as credentials_of
from flows.reporting import tell_failure
from flows.runs import choose_config, run_export_flow, run_name
from flows.tasks import own_errors
from pipelines.config import ExportConfig
from pipelines.values import Instant

MOST_AT_ONCE = 32


@flow(
    name="backfill-request-logs",
    flow_run_name=run_name,
    task_runner=cast("TaskRunner[Any]", ThreadPoolTaskRunner(max_workers=MOST_AT_ONCE)),
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def backfill_request_logs(
    config: Path | ExportConfig,
    *,
    start: Instant,
    end: Instant,
    windows_at_once: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 2,
    force: bool = False,
    rebuild_from_remaining: bool = False,
    credentials: str | None = None,
    notify: str | None = None,  # noqa: ARG001 - for the hook of a run that failed
) -> dict[str, Any]:
    """Export the windows of a range that are missing or whose inputs changed, some side by side.

    A window that fails stops no other; the final state names those that failed.

    Args:
        config: path of a YAML file, or a whole config.
        start: the first instant, on the window grid; without zone, UTC.
        end: the end of the last window.
        windows_at_once: how many are written side by side, each with the config's `memory_limit`;
            where shards run in workers (`executor`), as many as keep these busy.
        force: write windows that are up to date again.
        rebuild_from_remaining: write windows again whose batches are gone, without their events.
        credentials: a block with credentials for S3; by default the usual AWS chain.
        notify: a notification block that is told when the run fails.

    Returns:
        Counts, windows, manifests and data files, as `ExportSummary.as_dict()` gives them.

    Raises:
        ConfigError: the config does not fit the source or the destination; nothing was touched.
        WindowsFailedError: windows were not committed; the others are.
    """
    with own_errors(), credentials_of(credentials):
        state = run_export_flow(
            choose_config(config, credentials=credentials),
            start=start,
            end=end,
            force=force,
            rebuild_from_remaining=rebuild_from_remaining,
            at_once=windows_at_once,
        )
    return cast("dict[str, Any]", state)
