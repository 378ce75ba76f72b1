"""All targets by name."""

from types import MappingProxyType

from pipelines.chat.example import Example
from pipelines.targets import (
    axolotl,
    fireworks,
    llamafactory,
    mistral,
    openai,
    openpipe,
    preference,
    together,
    trl,
)
from pipelines.targets.base import Row, Target


def _as_exported(_example: Example) -> tuple[Row, tuple[str, ...]]:
    """Refuse: records are pulled as they were exported, byte for byte, and never as an example."""
    raise TypeError("records have no rows of their own")


_RECORDS = Target(name="records", to_row=_as_exported)
TARGETS = MappingProxyType(
    {
        target.name: target
        for target in (
            _RECORDS,
            openai.TARGET,
            openpipe.TARGET,
            together.TARGET,
            fireworks.TARGET,
            mistral.TARGET,
            trl.TARGET,
            trl.COMPLETION_TARGET,
            axolotl.TARGET,
            llamafactory.TARGET,
            preference.TARGET,
        )
    }
)
