"""When a request to S3 is sent again: how often, after what pause, and when no more.

In place of botocore's retries, which leave out the bodies of answers, and end for the whole process
when its quota is used up (500 tokens, 5 to 14 a retry).
"""

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipelines.s3_errors import FOREIGN, error_code, is_doubtful, is_transient

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
# Where 30 % of requests fail, one in 170,000 fails ten times. Nine pauses come to half a minute.
ATTEMPTS = 10
_DOUBTFUL_ATTEMPTS = 5
_BROKEN_ATTEMPTS = 2
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 20


class Retries:
    """The retries of all requests under one set of options, and what their outcomes tell.

    A denial or a host that cannot be reached is a mistake of the config more often than a
    moment's trouble, so it gets fewer attempts until the same kind of request has worked. After a
    request was given up, the others get few until one works: a dead store ends a run soon.
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self._worked: set[str] = set()
        self._broken = False

    async def run(
        self, kind: str, send: Callable[[], Awaitable[_T]], *, attempts: int = ATTEMPTS
    ) -> _T:
        """Return what `send` returns, called again while the store fails for a moment.

        Args:
            kind: operation and bucket, which a permission is for.
            send: sends the request from its start, and reads the answer to its end.
            attempts: calls at most.
        """
        attempt = 1
        while True:
            try:
                answer = await send()
            except FOREIGN as exc:
                if not (is_transient(exc) or is_doubtful(exc)):
                    raise
                if attempt >= min(attempts, self._attempts_after(exc, kind)):
                    self._broken = True
                    raise
                pause = _pause_seconds(attempt)
                reason = error_code(exc) or type(exc).__name__
                logger.info("%s failed (%s): sent again in %.1f s", kind, reason, pause)
                await asyncio.sleep(pause)
                attempt += 1
            else:
                self._worked.add(kind)
                self._broken = False
                return answer

    def _attempts_after(self, exc: BaseException, kind: str) -> int:
        if self._broken:
            return _BROKEN_ATTEMPTS
        new = is_doubtful(exc) and kind not in self._worked
        return _DOUBTFUL_ATTEMPTS if new else sys.maxsize


def _pause_seconds(attempt: int) -> float:
    """Return twice as long a pause after each attempt, with jitter."""
    longest: float = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    return random.uniform(0.5, 1) * longest  # noqa: S311 - jitter
