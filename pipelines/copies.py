"""Which events of a window another copy outlives: the same id newer, or an equal record earlier.

DuckDB holds ids and keys, and spills them; what is found comes out packed, never as Python objects.
"""

from collections.abc import Iterable

import duckdb
import pyarrow as pa

from pipelines.config import ExportConfig
from pipelines.engine import connect, engine_errors, statement
from pipelines.losers import pack_places
from pipelines.scans import ShardWork, open_session
from pipelines.windows import UNDATED

_ROWS_PER_READ = 100_000


def find_superseded(work: ShardWork) -> bytes:
    """Return the packed places of every event of which the work's window has a newer copy."""
    if "id" not in work.mapping.fields or work.window == UNDATED:
        return b""
    if sum(end - first for first, end in (entry.rows for entry in work.ranges)) <= 1:
        return b""  # most windows of a fine grid over a quiet log
    needed = {
        column
        for columns in {entry.columns for entry in work.ranges}
        for name in ("id", "requested_at", "received_at", "updated_at")
        for column in work.mapping.reads(name, columns.names)
    }
    with open_session(work) as session:
        session.con.execute(
            "create temp table event_ids(id varchar, version timestamp, batch integer, row bigint)"
        )
        for scan in session.scans(needed):
            session.collect_ids(scan)
        with engine_errors("finding the newest copy of each id"):
            return _places(session.con, "find_superseded")


def find_duplicates(work: ShardWork) -> bytes:
    """Return the packed places of every copy but the first of what would be exported."""
    with open_session(work) as session:
        session.con.execute("create temp table event_keys(key uhugeint, batch integer, row bigint)")
        for scan in session.scans():
            session.collect_keys(scan)
        with engine_errors("finding duplicates"):
            return _places(session.con, "find_duplicates")


def list_keys(work: ShardWork) -> pa.Table:
    """Return what `find_duplicates` compares of one shard, hashes: key, batch, row."""
    reads: list[pa.RecordBatch] = []
    with open_session(work) as session:
        for scan in session.scans():
            reads += session.keys(scan)
    return pa.Table.from_batches(reads) if reads else pa.table({})


def find_equal_keys(config: ExportConfig, tables: Iterable[pa.Table]) -> bytes:
    """Return what `find_duplicates` does, from the tables of `list_keys`; none of them is kept."""
    with connect(memory_limit=config.memory_limit, threads=config.threads) as con:
        # Arrow has no uhugeint: DuckDB hands its bits over as a decimal, for which they compare.
        con.execute("create temp table event_keys(key decimal(38, 0), batch integer, row bigint)")
        for table in tables:
            if table.num_rows:
                con.register("listed_keys", table)
                with engine_errors("finding duplicates"):
                    con.execute("insert into event_keys select key, batch, row from listed_keys")
                con.unregister("listed_keys")
        with engine_errors("finding duplicates"):
            return _places(con, "find_duplicates")


def _places(con: duckdb.DuckDBPyConnection, name: str) -> bytes:
    """The packed places that a statement returns."""
    with con.sql(statement(name)).to_arrow_reader(_ROWS_PER_READ) as reader:
        return pack_places(reader)
