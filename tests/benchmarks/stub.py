"""A shard without its work, in a module of its own: workers import it by name."""

from dataclasses import replace

from pipelines.parts import Part
from pipelines.shard import ShardResult
from pipelines.work import ShardWork

_PARTITIONS = 24


def stub_shard(work: ShardWork) -> ShardResult:
    """What a shard of 24 partitions returns, without its work."""
    part = Part(
        path=f"data/date=2024-06-01/model=gpt-4o/20240601T000000Z-{work.digest}-00000-00000.jsonl.gz",
        partition="date=2024-06-01/model=gpt-4o",
        bytes=1,
        raw_bytes=1,
        records=1,
        sha256="0" * 64,
        md5="0" * 32,
    )
    read = {entry.number: entry.total_rows for entry in work.ranges}
    return ShardResult(read=read, parts=tuple(replace(part, records=n) for n in range(_PARTITIONS)))
