"""Export raw LLM request logs from Parquet batches to committed, partitioned JSONL."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.committed import open_export

__all__ = ["open_export"]


def __getattr__(name: str) -> Any:
    """Return `open_export`, whose imports take a second, once it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines.committed import open_export  # noqa: PLC0415

    return open_export
