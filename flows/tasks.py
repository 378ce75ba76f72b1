"""What task runs share: when they are tried again, and errors that quote no event."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import httpx
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectException
from prefect.tasks import exponential_backoff

from pipelines.errors import PipelineError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_ROOT = Path(__file__).parents[1]
_PACKAGES = ("flows", "pipelines")


class UnexpectedError(PipelineError):
    """What no code here foresaw; the message says where, not what, which may quote an event."""


def retried_task(
    name: str, *, run_name: str | Callable[[], str]
) -> Callable[[Callable[_P, _R]], Task[_P, _R]]:
    """Return a decorator: a task that is tried again, with growing pauses, where waiting helps."""
    return task(
        name=name,
        task_run_name=run_name,
        retries=3,
        retry_delay_seconds=exponential_backoff(backoff_factor=10),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_retryable,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry only the errors that say so; a bad config never heals by waiting."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.retryable


@contextmanager
def own_errors() -> Iterator[None]:
    """Let out errors of this package, without their causes, and Prefect's own.

    The text of any other may quote an event, and Prefect logs tracebacks with all causes.

    Raises:
        UnexpectedError: instead of any other error.
    """
    try:
        yield
    except PipelineError as exc:
        raise exc from None
    except (PrefectException, httpx.HTTPError):  # the server's, or a run that was cancelled
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it is, its text must go no further
        raise UnexpectedError(
            f"{type(exc).__name__} at {_place(exc)}, an error of this package: please report it"
        ) from None


def _place(exc: Exception) -> str:
    """The innermost line of this package in a traceback."""
    found = [
        f"{path.relative_to(_ROOT)}:{frame.lineno}"
        for frame in traceback.extract_tb(exc.__traceback__)
        if (path := Path(frame.filename)).is_relative_to(_ROOT)
        and path.relative_to(_ROOT).parts[0] in _PACKAGES
    ]
    return found[-1]
