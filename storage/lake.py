"""The lake: one DuckLake under one home, read by plain SQL, written by guarded commits."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from storage.errors import LakeBusyError, LakeError, QueryError
from storage.extensions import keep
from storage.paths import Home
from storage.turns import take_turn

ATTEMPTS = 50
RACES = ("conflict", "database is locked", "busy")

T = TypeVar("T")
Row = tuple[Any, ...]


class Lake:
    """An attached lake. Reads are plain SQL; writes go through :meth:`commit`."""

    def __init__(self, home: Home, con: duckdb.DuckDBPyConnection) -> None:
        self.home = home
        self._con = con
        self._plain = True

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run one statement for its effect."""
        self._con.execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Read all rows of a query."""
        return self._con.execute(sql, parameters).fetchall()

    def value(self, sql: str, parameters: Sequence[object] = ()) -> Any:  # noqa: ANN401 - a cell has any type
        """Read the first cell of a query."""
        return self.rows(sql, parameters)[0][0]

    def table(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Read a query as an Arrow table."""
        return self._con.execute(sql, parameters).to_arrow_table()

    def read(self, sql: str) -> tuple[list[str], list[Row]]:
        """Run a user's query; give its columns and rows.

        Raises:
            QueryError: where DuckDB refuses it.
        """
        self._plain = False
        try:
            cursor = self._con.execute(sql)
            return [column[0] for column in cursor.description or []], cursor.fetchall()
        except duckdb.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise QueryError(f"sql {sql!r}", reason, "See `frostline sql 'show tables'` for what is there") from error

    @contextlib.contextmanager
    def lend(self, **tables: pa.Table) -> Iterator[None]:
        """Make Arrow tables readable by their keyword's name for the length of a block.

        They are copied: DuckDB cannot push every filter down into Arrow's UUIDs.
        """
        for name, table in tables.items():
            self._con.register("_lent", table)
            self._con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM _lent")
            self._con.unregister("_lent")
        try:
            yield
        finally:
            for name in tables:
                with contextlib.suppress(duckdb.Error):  # a transaction that failed takes it along
                    self._con.execute(f"DROP TABLE IF EXISTS temp.{name}")

    @property
    def snapshot(self) -> int:
        """The newest snapshot's number."""
        return int(self.value("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')"))

    def at(self, snapshot: int | str) -> "Lake":
        """Open the same lake as it was at a snapshot, by its number or tag, for reading alone.

        Raises:
            LakeError: where it has no such snapshot.
        """
        from storage.attach import read_lake  # which opens what this class is

        return read_lake(self.home, snapshot)

    def commit(self, write: Callable[[], T], *, guarded: bool = True) -> T:
        """Run a function's writes as one transaction, again after each lost race.

        DuckLake has no unique keys: two commits that look and then append would both succeed. All update the one row
        of ``guard`` first, so that the second to commit conflicts, and looks again. DuckLake's own compaction adds
        nothing, conflicts with whoever changes the same files, and stands no update beside it: it alone is not guarded.

        Raises:
            LakeBusyError: after 50 lost races.
            LakeError: where the lake cannot be written.
        """
        for attempt in range(ATTEMPTS):
            try:
                with take_turn(self.home.turn):
                    self._con.execute("BEGIN")
                    if guarded:
                        self._con.execute("UPDATE guard SET n = n + 1")
                    result = write()
                    self._con.execute("COMMIT")
            except duckdb.Error as error:
                self._roll_back()
                if not _is_race(error):
                    raise unwritable(self.home, error) from error
                time.sleep(random.uniform(0.01, 0.1) * (1 + attempt))  # noqa: S311 - jitter, not cryptography
            except BaseException:
                self._roll_back()
                raise
            else:
                return result
        raise LakeBusyError(
            f"lake {self.home.root}", f"lost {ATTEMPTS} races for a commit", "Run fewer writers at once, then run again"
        )

    def close(self) -> None:
        """Let go of the catalog; the connection is kept for the next lake, unless a user's query may have set it up."""
        if not self._plain:
            self._con.close()
            return
        try:
            self._con.execute("USE memory")
            self._con.execute("DETACH lake")
        except duckdb.Error:  # a transaction is open: what broke it has been raised already
            self._con.close()
        else:
            keep(self._con)

    def __enter__(self) -> Self:
        """Give the lake to a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it behind the block."""
        self.close()

    def _roll_back(self) -> None:
        with contextlib.suppress(duckdb.Error):  # a COMMIT that failed has rolled back already
            self._con.execute("ROLLBACK")


def _is_race(error: duckdb.Error) -> bool:
    return any(word in str(error).lower() for word in RACES)


def unwritable(home: Home, error: duckdb.Error) -> LakeError:
    """Say that a lake cannot be written, and why."""
    reason = " ".join(str(error).split())
    return LakeError(f"lake {home.root}", f"cannot be written: {reason}", "Check the disk and permissions, run again")
