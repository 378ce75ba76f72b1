"""Every error this package raises on purpose.

PipelineError
├── ConfigError           the YAML, a parameter or an option is wrong: fix it, rerun
├── ContractError         raw events break the source's schema: tell the producer
├── QualityError          what was made, or is read, is not whole: it must not be committed or used
│   └── WindowChangedError    a newer generation came while a window was read: read it again
├── ResourceError         memory or disk ran out: raise the named limit
├── ExecutorError         the workers that run shards failed: mend them and run again
├── UnexpectedError       what no code here foresaw: report it
└── StorageError          object storage refused or failed
    ├── BatchChangedError     an object changed while it was read: plan again
    └── ThrottledError        busy or broken for a moment: the only retryable one
"""

from typing import ClassVar


class PipelineError(Exception):
    """Base of the tree; `except PipelineError` catches every deliberate error."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class ConfigError(PipelineError):
    """A config file, a parameter or an expression is wrong; nothing was touched."""

    exit_code = 2


class ContractError(PipelineError):
    """Batches do not fit the mapping; `batch` and `column` name the place."""

    def __init__(self, message: str, *, batch: str = "", column: str = "") -> None:
        super().__init__(message)
        self.batch = batch
        self.column = column


class QualityError(PipelineError):
    """The run finished but must not be committed, or a committed part is not as it was written."""


class WindowChangedError(QualityError):
    """A newer generation replaced `window` while its records were read: read that window again."""

    def __init__(self, message: str, *, window: str = "") -> None:
        super().__init__(message)
        self.window = window


class ResourceError(PipelineError):
    """Memory, disk or spill space ran out; the message names the setting to raise."""


class ExecutorError(PipelineError):
    """The cluster or the processes that run shards are gone, or not fit to run them."""


class UnexpectedError(PipelineError):
    """What no code here foresaw; the message says where, not what, which may quote an event."""


class StorageError(PipelineError):
    """Object storage refused or failed; `url` is the object, credentials removed."""

    def __init__(self, message: str, *, url: str = "") -> None:
        super().__init__(message)
        self.url = url


class BatchChangedError(StorageError):
    """An object was overwritten or removed between listing and reading; plan again."""


class ThrottledError(StorageError):
    """The store is busy, timed out or broke the connection; calling again is safe."""

    retryable = True
