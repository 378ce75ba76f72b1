"""The flow that makes a bundle for fine-tuning of what an export has committed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.credentials import credentials as credentials_of
from flows.reporting import artifact_key, tell_failure, told
from flows.runs import choose_config, export_name
from flows.tasks import own_errors, retried_task
from pipelines.bundle_card import describe_counts
from pipelines.config import ExportConfig
from pipelines.errors import QualityError
from pipelines.pull import pull
from pipelines.pull_options import PullOptions
from pipelines.pull_summary import PullSummary
from pipelines.report import describe_pull
from pipelines.values import Instant


class NoRowsError(QualityError):
    """No row came out; `summary` is what the flow would have returned."""

    def __init__(self, message: str, *, summary: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.summary = summary or {}


def _flow_run_name() -> str:
    parameters = flow_run.parameters
    options = parameters.get("options") or {}
    found = options.get("format") if isinstance(options, dict) else options.format
    source = parameters["source"]
    is_place = isinstance(source, str) and not source.endswith((".yaml", ".yml"))
    name = source.rstrip("/").rpartition("/")[2] if is_place else export_name(source)
    return f"pull {name} for {found or 'records'}"


@retried_task("pull-bundle", run_name="pull to {destination}")
def pull_bundle(source: str | ExportConfig, destination: str, options: PullOptions) -> PullSummary:
    """Write the bundle; all the work is in `pipelines`."""
    with own_errors():
        return pull(source, destination, options)


@flow(
    name="pull-dataset",
    flow_run_name=_flow_run_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def pull_dataset(
    source: str | ExportConfig,
    destination: str,
    *,
    options: PullOptions = PullOptions(),  # noqa: B008 - a frozen value
    start: Instant | None = None,
    end: Instant | None = None,
    require_data: bool = False,
    credentials: str | None = None,
    notify: str | None = None,  # noqa: ARG001 - for the hook of a run that failed
) -> dict[str, Any]:
    """Write what an export has committed as a bundle for a fine-tuning service.

    A file of rejects would stay on the worker's disk, so there is none: the counts by reason are in
    the result, in the artifact and in `bundle.json`, and `request-logs pull --rejects` writes one.

    Args:
        source: path of the export's YAML file, its whole config, or the URL of its destination.
        destination: folder or prefix of the bundle, which must be new. `{start}`, `{end}` and
            `{now}` in it become those instants, such as 20240601T000000Z.
        options: format, filters, split and the other options of a pull.
        start: overrides that of the options; an automation gives it with each committed window.
        end: as `start`.
        require_data: fail when no row comes out.
        credentials: a block with credentials for S3; by default the usual AWS chain.
        notify: a notification block that is told when the run fails.

    Returns:
        Rows by split, records left out by reason, repairs and files.

    Raises:
        ConfigError: source, destination or options do not fit; nothing was written.
        NoRowsError: no row came out, and `require_data` is on.
    """
    span = {"start": start, "end": end}
    chosen = options.model_copy(update={k: value for k, value in span.items() if value is not None})
    for name, instant in span.items():
        day = f"{instant:%Y%m%dT%H%M%SZ}" if instant is not None else "all"
        destination = destination.replace(f"{{{name}}}", day)
    destination = destination.replace("{now}", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    with own_errors(), credentials_of(credentials):
        place: str | ExportConfig = source
        if isinstance(source, ExportConfig) or source.endswith((".yaml", ".yml")):
            config = source if isinstance(source, ExportConfig) else Path(source)
            place = choose_config(config, credentials=credentials)
        summary = pull_bundle(place, destination, chosen)
    lines = list(describe_pull(summary))
    told(
        lambda: create_markdown_artifact(
            "\n".join([lines[0], "", *describe_counts(summary.as_dict()), lines[-1]]),
            key=artifact_key("bundle", summary.destination.rpartition("/")[2]),
            description=lines[0],
        )
    )
    if require_data and not summary.total_rows:
        message = f"no row came out, and require_data is on: {lines[0]}"
        error = NoRowsError(message, summary=summary.as_dict())
        return cast("dict[str, Any]", Failed(message=message, data=error))
    return cast("dict[str, Any]", Completed(message=lines[0], data=summary.as_dict()))
