"""The flow that proves exports: committed parts against their manifests."""

from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.credentials import credentials as credentials_of
from flows.reporting import report_verification, tell_failure
from flows.runs import choose_config, export_name
from flows.tasks import own_errors, retried_task
from pipelines.config import ExportConfig
from pipelines.errors import PipelineError, QualityError
from pipelines.verification import Verification, verify_export
from pipelines.words import say_count

_SHOWN_PROBLEMS = 20


class VerificationError(QualityError):
    """Something is not as committed; `summary` is what the flow would have returned."""

    def __init__(self, message: str, *, summary: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.summary = summary or {}


def _flow_run_name() -> str:
    parameters = flow_run.parameters
    names = ", ".join(export_name(config) for config in parameters["configs"])
    return f"verify {names}{' deep' if parameters.get('deep') else ''}"


@retried_task("verify-export", run_name="verify {name}")
def verify_one(name: str, config: ExportConfig, *, deep: bool) -> Verification:  # noqa: ARG001
    """Compare one export with its manifests."""
    with own_errors():
        return verify_export(config, deep=deep)


@flow(
    name="verify-exports",
    flow_run_name=_flow_run_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def verify_exports(
    configs: Annotated[tuple[Path | ExportConfig, ...], Field(min_length=1)],
    *,
    deep: bool = False,
    credentials: str | None = None,
    notify: str | None = None,  # noqa: ARG001 - for the hook of a run that failed
) -> dict[str, Any]:
    """Compare what is at the destinations with the manifests.

    An export whose config is wrong, or that cannot be read, keeps no other from being verified.

    Args:
        configs: the exports, each the path of a YAML file or a whole config.
        deep: read and hash every byte too.
        credentials: a block with credentials for S3; by default the usual AWS chain.
        notify: a notification block that is told when something is not as committed.

    Returns:
        By export: windows, parts, records, bytes, and the problems, none where all is well.

    Raises:
        VerificationError: something is not as committed, or could not be verified.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    with own_errors(), credentials_of(credentials):
        for config in configs:
            name = export_name(config)
            try:
                found[name] = _verify(choose_config(config, credentials=credentials), deep=deep)
            except PipelineError as exc:
                found[name] = {"problems": [str(exc)]}
            problems += [f"{name}: {problem}" for problem in found[name]["problems"]]
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = problems[:_SHOWN_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        message = f"{say_count(len(problems), 'problem')}: {'; '.join(shown)}"
        return cast(
            "dict[str, Any]",
            Failed(message=message, data=VerificationError(message, summary=found)),
        )
    sentence = f"{say_count(len(configs), 'export is', 'exports are')} as committed"
    return cast("dict[str, Any]", Completed(message=sentence, data=found))


def _verify(config: ExportConfig, *, deep: bool) -> dict[str, Any]:
    """Verify one export and report it; return its part of the flow's result."""
    found = verify_one(config.name, config, deep=deep)
    report_verification(config.name, found)
    return {
        "windows": found.windows,
        "parts": found.parts,
        "records": found.records,
        "bytes": found.bytes,
        "problems": list(found.problems),
    }
