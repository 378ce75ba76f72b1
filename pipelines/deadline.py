"""How long the export of a window may take, so that garbage collection never meets its parts."""

from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic

from pipelines.errors import QualityError


@dataclass(slots=True)
class Deadline:
    """Half of the grace period, from the moment the first shard of one window begins.

    A part that is reused is younger than half of the grace period, and the commit follows within
    the other half: so no part is old enough to be garbage before a manifest names it.

    Attributes:
        window: its name.
        started: by the monotonic clock.
    """

    window: str
    grace: timedelta
    started: float = field(default_factory=monotonic)

    def begin(self) -> None:
        """Count from now on: nothing was written or reused before."""
        self.started = monotonic()

    def check(self) -> None:
        """Raise a QualityError when the export has taken too long to be committed."""
        seconds = monotonic() - self.started
        if seconds * 2 > self.grace.total_seconds():
            taken = timedelta(seconds=round(seconds))
            raise QualityError(
                f"window {self.window}: its export has taken {taken}, more than half of "
                f"destination.grace ({self.grace}): its parts could be removed as garbage before "
                f"they are named. Nothing was committed; raise destination.grace, or take "
                f"shorter windows"
            )
