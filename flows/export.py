"""The flow of one export: plan, claim the destination, write windows, summarise.

`python -m flows.export CONFIG` runs it here and now, on a server that lives as long as the run.
"""

if __name__ == "__main__":
    # Before the import below: Prefect reads the environment once, when it is imported. It also
    # keeps the flow in a module of its name, not in `__main__`.
    from flows.command import run

    run()

from pathlib import Path
from typing import Any, cast

from prefect import flow

from flows.credentials import credentials as credentials_of
from flows.reporting import tell_failure
from flows.runs import choose_config, run_export_flow, run_name
from flows.tasks import own_errors
from pipelines.config import ExportConfig
from pipelines.filters import EventFilter
from pipelines.values import Instant


@flow(
    name="export-request-logs",
    flow_run_name=run_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def export_request_logs(
    config: Path | ExportConfig,
    *,
    start: Instant | None = None,
    end: Instant | None = None,
    force: bool = False,
    rebuild_from_remaining: bool = False,
    where: str | None = None,
    filters: tuple[EventFilter, ...] = (),
    destination: str | None = None,
    credentials: str | None = None,
    notify: str | None = None,  # noqa: ARG001 - for the hook of a run that failed
) -> dict[str, Any]:
    """Export every due window that is missing or whose inputs changed.

    In one process windows are written one after the other: `memory_limit` holds for one DuckDB
    connection. Where shards run in workers, as many windows go side by side as keep these busy.
    What is due comes from the store and the clock, never from the schedule's time.

    Args:
        config: path of a YAML file, or a whole config; relative urls in the latter start at the
            working directory.
        start: with `end`, whole windows of the grid to choose from; without zone, UTC.
        end: the end of the last of them.
        force: write windows that are up to date again.
        rebuild_from_remaining: write windows again whose batches are gone, without their events.
        where: one more SQL condition over an event's fields; needs `destination`.
        filters: more filters, on top of the config's; they need `destination`.
        destination: another destination than the config's, for a slice.
        credentials: a block with credentials for S3, `aws-credentials/NAME` or
            `minio-credentials/NAME`; by default the usual AWS chain.
        notify: a notification block that is told when the run fails, such as `slack-webhook/NAME`.

    Returns:
        Counts, windows, manifests and data files, as `ExportSummary.as_dict()` gives them.

    Raises:
        ConfigError: the config does not fit the source or the destination; nothing was touched.
        WindowsFailedError: windows were not committed; the others are.
    """
    with own_errors(), credentials_of(credentials):
        export = choose_config(
            config, where=where, filters=filters, destination=destination, credentials=credentials
        )
        state = run_export_flow(
            export,
            start=start,
            end=end,
            force=force,
            rebuild_from_remaining=rebuild_from_remaining,
        )
    # A flow may return its final state; who calls the flow gets the data in it, or the error.
    return cast("dict[str, Any]", state)
