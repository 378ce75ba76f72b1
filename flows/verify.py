"""The flow that proves exports: committed parts against their manifests."""

from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff

from flows.credentials import credentials as credentials_of
from flows.reporting import report_verification, tell_failure
from flows.runs import choose_config, export_name
from flows.windows import is_retryable
from pipelines.config import ExportConfig
from pipelines.errors import PipelineError, QualityError
from pipelines.verification import Verification, verify_export

_SHOWN_PROBLEMS = 20


def _flow_run_name() -> str:
    parameters = flow_run.parameters
    names = ", ".join(export_name(config) for config in parameters["configs"])
    return f"verify {names}{' deep' if parameters.get('deep') else ''}"


@task(
    name="verify-export",
    task_run_name="verify {name}",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def verify_one(name: str, config: ExportConfig, *, deep: bool) -> Verification:  # noqa: ARG001
    """Compare one export with its manifests."""
    return verify_export(config, deep=deep)


@flow(
    name="verify-exports",
    flow_run_name=_flow_run_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def verify_exports(
    configs: tuple[Path | ExportConfig, ...],
    *,
    deep: bool = False,
    credentials: str | None = None,
    notify: str | None = None,  # noqa: ARG001 - for the hook of a run that failed
) -> dict[str, Any]:
    """Compare what is at the destinations with the manifests.

    Args:
        configs: the exports, each the path of a YAML file or a whole config.
        deep: read and hash every byte too.
        credentials: a block with credentials for S3; by default the usual AWS chain.
        notify: a notification block that is told when something is not as committed.

    Returns:
        By export: windows, parts, records, bytes, and the problems, none where all is well.

    Raises:
        QualityError: something is not as committed.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    with credentials_of(credentials):
        for config in configs:
            export = choose_config(config)
            state = verify_one(export.name, export, deep=deep, return_state=True)
            result = state.result(raise_on_failure=False)
            if isinstance(result, PipelineError):
                problems.append(f"{export.name}: {result}")
                found[export.name] = {"problems": [str(result)]}
                continue
            if isinstance(result, BaseException):
                raise result
            report_verification(export.name, result)
            problems += [f"{export.name}: {problem}" for problem in result.problems]
            found[export.name] = {
                "windows": result.windows,
                "parts": result.parts,
                "records": result.records,
                "bytes": result.bytes,
                "problems": list(result.problems),
            }
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = problems[:_SHOWN_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        message = f"{len(problems)} problems: {'; '.join(shown)}"
        return cast("dict[str, Any]", Failed(message=message, data=QualityError(message)))
    sentence = f"{len(found)} exports are as committed"
    return cast("dict[str, Any]", Completed(message=sentence, data=found))
