"""What one shard is to do, as small plain values that can go to any process."""

from dataclasses import dataclass, field
from datetime import datetime

from pipelines.config import ExportConfig
from pipelines.losers import Losers
from pipelines.reshape import Reshape, compile_rules
from pipelines.sources.columns import Columns
from pipelines.sources.mapping import EventMapping
from pipelines.windows import UNDATED, Window


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Rows of one batch that a shard reads.

    Attributes:
        number: of the batch among the window's batches by path.
        rows: half-open range.
        bytes: compressed bytes of the row groups that hold the rows.
    """

    number: int
    path: str
    etag: str
    size: int
    rows: tuple[int, int]
    total_rows: int
    bytes: int
    columns: Columns


@dataclass(frozen=True, slots=True)
class ShardWork:
    """All that one shard needs to know; picklable and small.

    Attributes:
        now: the run's moment, to which `last` filters refer.
        window: whose events are exported, between start and end (naive UTC).
        digest: of the window's inputs, for names.
        losers: superseded and duplicate events of this shard.
        finds_losers: whether the shard is all of its window, and finds them itself.
        committed: paths of this shard's parts and rejects that the newest generation names.
    """

    config: ExportConfig
    mapping: EventMapping
    now: datetime
    window: Window
    start: datetime
    end: datetime
    digest: str
    shard: int
    ranges: tuple[BatchRange, ...]
    losers: Losers = field(default_factory=Losers)
    finds_losers: bool = False
    committed: tuple[str, ...] = ()

    def reshape(self) -> Reshape:
        """Return the composer of this work's queries."""
        undated = self.window == UNDATED
        rules = compile_rules(self.config, self.mapping, now=self.now, undated=undated)
        return Reshape(self.config, self.mapping, rules, self.start, self.end, undated)
