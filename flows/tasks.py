"""What task runs share: when they are tried again, and errors that quote no event."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import httpx
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectException
from prefect.tasks import exponential_backoff

from pipelines.errand import place_of
from pipelines.errors import PipelineError, UnexpectedError

_P = ParamSpec("_P")
_R = TypeVar("_R")


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
            f"{type(exc).__name__} at {place_of(exc)}, an error of this package: please report it"
        ) from None
