"""Arrow tables that lie on the temporary disk and are read in place, without a name there."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa


def map_rows(file: Path, rows: Iterable[pa.RecordBatch]) -> tuple[pa.RecordBatch, ...]:
    """Write record batches to a file and return them as they lie there.

    Their memory is pages of the file, which the system can drop and read again. The file has lost
    its name on return, so the system frees it when the last of them is gone, or the process.

    Args:
        file: a new one.
        rows: of one schema; taken one after the other.

    Raises:
        OSError: the disk is full.
    """
    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        return ()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write_batch(first)
        for batch in waiting:
            writer.write_batch(batch)
    with pa.memory_map(str(file)) as source:  # what is read of it outlives it
        reader = pa.ipc.open_file(source)
        found = tuple(map(reader.get_batch, range(reader.num_record_batches)))
    file.unlink()
    return found
