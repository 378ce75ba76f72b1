"""The condition of a pull over records, asked of their JSON text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from pipelines.engine import check_condition, engine_errors, guarded
from pipelines.errors import ConfigError, ContractError
from pipelines.expressions import parse_expression
from pipelines.pull_options import RECORD_FIELDS, SEEN_BY_WHERE
from pipelines.record_text import cut_record

_EMPTY_RECORD = b'{"input":null,"output":null,"tags":{}}'


class Condition:
    """What `where` says of records; without one every record fits."""

    def __init__(self, con: duckdb.DuckDBPyConnection, where: str | None) -> None:
        """Try the condition.

        Raises:
            ConfigError: DuckDB refuses it, or it is no condition.
        """
        self._con = con
        self._sql = ""
        if where is None:
            return
        found = parse_expression(where, place="where", columns=RECORD_FIELDS, boolean=True)
        self._sql = f"({guarded(found.sql, found.columns)}) is true"
        try:
            with self._records([_EMPTY_RECORD], RECORD_FIELDS):
                check_condition(con, f"select {found.sql} from records")  # noqa: S608 - it was parsed
            self.fits([_EMPTY_RECORD], RECORD_FIELDS)
        except ContractError as exc:  # it is about no record yet
            raise ConfigError(str(exc)) from exc

    def fits(self, lines: Sequence[bytes], keys: Sequence[str]) -> list[bool]:
        """Return of each record whether the condition is true.

        Args:
            lines: records as they stand in parts.
            keys: of each of them, in order.
        """
        if not self._sql:
            return [True] * len(lines)
        with self._records(lines, keys):
            found = self._con.execute(
                f"select {self._sql} from records"  # noqa: S608 - it was parsed
            ).fetchall()
        return [bool(fits) for (fits,) in found]

    @contextmanager
    def _records(self, lines: Sequence[bytes], keys: Sequence[str]) -> Iterator[None]:
        """Let the body ask the table `records`."""
        texts = zip(*(cut_record(line, keys)[:3] for line in lines), strict=True)
        columns = [pa.array(list(text), pa.large_string()) for text in texts]
        self._con.register("records", pa.table(columns, names=list(RECORD_FIELDS)))
        with engine_errors("where", hint=SEEN_BY_WHERE):
            yield
        self._con.unregister("records")
