"""The lake: one DuckLake in one home, read by plain SQL, written by guarded commits."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from storage.errors import LakeBusyError, LakeError, LakeUnreachableError, QueryError
from storage.lake import attached
from storage.lake.attached import Options
from storage.lake.extensions import list_wheels, recycle
from storage.lake.sqlite_catalog import leave
from storage.lake.waits import describe_lockers, report_waits
from storage.locations.home import Home
from storage.locations.locks import lock_commits

ATTEMPTS = 50
CUT_OFF = ("connection reset", "server closed the connection", "terminating connection", "no connection to the server")
PATIENCE = 1200.0
"""Seconds to wait for a catalog that others have locked: an erasure may take so long."""
LOCKED = ("database is locked", "busy", "could not obtain lock")
RACES = (
    *("conflict", "database is locked", "busy"),  # errors of DuckLake and SQLite; the rest are those of Postgres
    *("could not serialize", "deadlock detected", "could not obtain lock", "duplicate key value"),
    *("already exists", "concurrently updated", *CUT_OFF),
    'failed to execute query "rollback"',  # a commit whose connection was lost
)

STORE = " error for http "  # how DuckDB reports an object store that does not answer
LOST = ("unable to connect to postgres", "connection to server", STORE, *CUT_OFF)

T = TypeVar("T")
Row = tuple[Any, ...]


class Lake:
    """An attached lake. Reads are plain SQL; writes go through :meth:`commit`.

    All methods raise LakeUnreachableError if the catalog's server or the object store does not answer.

    ``exists`` is false if there is no lake yet and this is an empty one in memory.
    """

    def __init__(
        self, home: Home, con: duckdb.DuckDBPyConnection, options: Options | None = None, *, exists: bool = True
    ) -> None:
        self.home = home
        self.exists = exists
        self._options = options
        self._closed = False
        self._con = con
        self._reusable = True

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement."""
        with self._explain_unreachable():
            self._con.execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Read all rows of a query."""
        with self._explain_unreachable():
            return self._con.execute(sql, parameters).fetchall()

    def value(self, sql: str, parameters: Sequence[object] = ()) -> Any:  # noqa: ANN401 - a cell has any type
        """Read the first cell of a query."""
        return self.rows(sql, parameters)[0][0]

    def column(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Read the first column of a query."""
        return [row[0] for row in self.rows(sql, parameters)]

    def table(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Read a query as an Arrow table."""
        with self._explain_unreachable():
            return self._con.execute(sql, parameters).to_arrow_table()

    def dicts(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Read the rows of a query as dicts by column name."""
        with self._explain_unreachable():
            cursor = self._con.execute(sql, parameters)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def read(self, sql: str) -> tuple[list[str], list[Row]]:
        """Run a query that a user wrote; returns its column names and rows.

        Raises:
            QueryError: if DuckDB refuses it.
        """
        self._reusable = False
        try:
            with self._explain_unreachable():
                if not duckdb.extract_statements(sql):
                    raise QueryError(f"sql {sql!r}", "is empty", "Write a query, such as `frostline sql 'from labels'`")
                cursor = self._con.execute(sql)
                return [column[0] for column in cursor.description or []], cursor.fetchall()
        except duckdb.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise QueryError(f"sql {sql!r}", reason, "See `frostline sql 'show tables'` for the tables") from error

    @contextlib.contextmanager
    def temporary_tables(self, **tables: pa.Table) -> Iterator[None]:
        """Make Arrow tables available to queries, named by keyword, for the length of a block.

        Tables with UUIDs are copied, since DuckDB cannot push every filter down into Arrow.
        """
        kinds = {name: "TABLE" if pa.uuid() in table.schema.types else "VIEW" for name, table in tables.items()}
        for name, kind in kinds.items():
            with self._explain_unreachable():
                self._con.register(f"{name}_arrow", tables[name])
                self._con.execute(f"CREATE OR REPLACE TEMP {kind} {name} AS FROM {name}_arrow")
        try:
            yield
        finally:
            for name, kind in kinds.items():
                with contextlib.suppress(duckdb.Error):  # a failed transaction has dropped it
                    self._con.execute(f"DROP {kind} IF EXISTS temp.{name}")
                self._con.unregister(f"{name}_arrow")

    @property
    def snapshot(self) -> int:
        """The newest snapshot's number."""
        return int(self.value("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')"))

    def commit(self, write: Callable[[], T], *, guarded: bool = True) -> T:
        """Run a function's writes as one transaction, and repeat it after each lost race.

        DuckLake has no unique keys: two commits that check and then append would both succeed. Every commit therefore
        updates the one row of ``guard`` first, so that the second one conflicts and runs again. Only writes to
        DuckLake's own tables, which cannot share a transaction with the lake's, are not guarded.

        Raises:
            LakeBusyError: after 50 lost races.
            LakeError: if the lake cannot be written.
        """

        def transact() -> T:
            self._con.execute("BEGIN")
            if guarded:
                self._con.execute("UPDATE guard SET n = n + 1")
            result = write()
            self._con.execute("COMMIT")
            return result

        return self.repeat(transact)

    def call(self, function: str) -> list[Row]:
        """Call a DuckLake function that changes files, not rows, and commits by itself, as :meth:`repeat` does.

        Runs on one thread: on several, DuckDB 1.5.5 sometimes crashes while flushing rows from the catalog.
        """
        threads = self.value("SELECT current_setting('threads')")
        self.execute("SET threads = 1")
        try:
            return self.repeat(lambda: self.rows(f"CALL {function}"))
        finally:
            self.execute(f"SET threads = {threads}")

    def repeat(self, work: Callable[[], T]) -> T:
        """Run work that commits by itself, and repeat it after each lost race.

        Raises:
            LakeBusyError: after 50 lost races, or if others have the catalog locked for too long.
            LakeError: if the lake cannot be written.
        """
        with report_waits(self.home):
            return self._repeat(work)

    def _repeat(self, work: Callable[[], T]) -> T:
        races, attempt, locked_at = 0, 0, time.monotonic()
        while True:
            try:
                with lock_commits(self.home):
                    return work()
            except (duckdb.Error, LakeUnreachableError) as error:
                self._roll_back()
                if not is_race(error):
                    raise unwritable_error(self.home, error) from error
                races += not is_locked(error)
                if races == ATTEMPTS or (is_locked(error) and time.monotonic() - locked_at > PATIENCE):
                    raise busy_error(self.home, error) from error
                attempt = min(attempt + 1, ATTEMPTS)
                time.sleep(random.uniform(0.01, 0.1) * attempt)  # noqa: S311 - jitter, not cryptography
            except BaseException:
                self._roll_back()
                raise

    def close(self) -> None:
        """Detach the catalog. The connection is reused, unless a user's query may have changed its settings.

        Within :func:`keep_lake_attached` the catalog stays attached, too.
        """
        if self._closed:
            return
        self._closed = True
        if self._reusable and self._options is not None and attached.leave(self.home, self._options, self._con):
            return
        self._detach()
        if self.exists:
            leave(self.home)

    def _detach(self) -> None:
        if not self._reusable:
            self._con.close()
            return
        if not self.exists:
            recycle(self._con, "empty lake")
            return
        try:
            self._con.execute("USE memory")
            self._con.execute("DETACH lake")
        except duckdb.Error:  # a transaction is open; its error has been raised already
            self._con.close()
        else:
            recycle(self._con, list_wheels(self.home))

    def __enter__(self) -> Self:
        """Enter a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the lake."""
        self.close()

    @contextlib.contextmanager
    def _explain_unreachable(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            if is_lost(error):
                raise unreachable_error(self.home, error) from error
            raise

    def _roll_back(self) -> None:
        with contextlib.suppress(duckdb.Error):  # a failed COMMIT has rolled back already
            self._con.execute("ROLLBACK")


@contextlib.contextmanager
def keep_lake_attached(home: Home) -> Iterator[None]:
    """Keep a home's lake attached within a block, so that it opens at once after it was closed."""
    with attached.keep_attached(home, lambda home, con: Lake(home, con).close()):
        yield


def quote(text: str) -> str:
    """Quote a text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def is_lost(error: BaseException) -> bool:
    """Return whether an error of DuckDB means that a server does not answer."""
    return any(word in str(error).lower() for word in LOST)


def unreachable_error(home: Home, error: BaseException) -> LakeUnreachableError:
    """Return the error that names the server that does not answer."""
    reason = " ".join(str(error).partition("\n\nLINE")[0].rpartition('": ')[2].split()).rstrip("?.")
    if STORE in reason.lower():
        return LakeUnreachableError(
            f"data {home.data_url}", f"does not answer: {reason}", "Check the store and the network, then run again"
        )
    return LakeUnreachableError(
        f"lake {home.lake}", f"does not answer: {reason}", "Check lake.catalog and its server, then run again"
    )


def is_race(error: Exception) -> bool:
    """Return whether an error means that another writer was first or the connection was lost: worth a retry."""
    return any(word in str(error).lower() for word in RACES)


def is_locked(error: Exception) -> bool:
    """Return whether an error means that another process has the catalog locked."""
    return any(word in str(error).lower() for word in LOCKED)


def busy_error(home: Home, error: Exception) -> LakeBusyError:
    """Return the error of a commit that others did not let through."""
    value = f"lake {home.lake}"
    if is_race(error) and not is_locked(error):
        return LakeBusyError(value, f"lost {ATTEMPTS} races for a commit", "Run fewer writers at once, then run again")
    lockers = describe_lockers(home) or "a process that cannot be seen from here"
    rule = f"has been locked for {PATIENCE / 60:.0f} minutes by {lockers}"
    return LakeBusyError(value, rule, "Continue or end it, then run again")


def unwritable_error(home: Home, error: Exception) -> LakeError:
    """Return the error of a lake that cannot be written."""
    if is_lost(error):
        return unreachable_error(home, error.__cause__ or error)
    return LakeError(
        f"lake {home.lake}", f"cannot be written: {error}", "Check the disk and permissions, then run again"
    )
