"""Open a lake for writing or reading, as it is or as it was at a snapshot."""

import contextlib
import os
import random
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from storage.errors import LakeBusyError, LakeError, LakeTooNewError
from storage.lake import attached
from storage.lake.attached import Options
from storage.lake.ducklake_files import META
from storage.lake.extensions import connect, find_idle, list_wheels, recycle
from storage.lake.lake import ATTEMPTS, PATIENCE, Lake, busy_error, is_locked, is_race, quote, unwritable_error
from storage.lake.migrate import VERSION, create_tables, read_version, upgrade
from storage.lake.snapshots import find_snapshot, is_number, missing_snapshot_error
from storage.lake.sqlite_catalog import complete_commit, enter, leave
from storage.lake.waits import report_waits
from storage.locations.home import Home
from storage.locations.locks import lock_commits
from storage.locations.parquet_files import list_folder
from storage.locations.registry_paths import adopt_artifacts
from storage.locations.stores import check_store, name_missing, write_secret

NO_SNAPSHOT = 1 << 63
"""Snapshot numbers are smaller than this."""
MANY_ROWS = 1_000_000
"""Of all tables together: from here on, queries use every core."""
ABORTED = "Current transaction is aborted"
ABSENT = "creating a new DuckLake is explicitly disabled"
ELSEWHERE = re.compile(r'DATA_PATH parameter ".*" does not match existing data path in the catalog "(.*)"')


def open_lake(home: Home) -> Lake:
    """Open the lake for writing. Create it if there is none; upgrade it if an earlier release wrote it.

    Raises:
        LakeError: if the home cannot be written or the lake cannot be opened.
        LakeTooNewError: if a later release wrote it.
    """
    home.make()
    adopt_artifacts(home)
    with lock_commits(home):
        lake = attach_if_present(home) or make_lake(home)
        with _close_on_error(lake):
            version = read_version(lake) or _make_version(lake)
    with _close_on_error(lake):
        _check_version(lake, version)
        if version < VERSION:
            upgrade(lake)
    return lake


@contextlib.contextmanager
def _close_on_error(lake: Lake) -> Iterator[None]:
    """Close the lake if a block fails: an open connection would keep the catalog from other writers."""
    try:
        yield
    except BaseException:
        lake.close()
        raise


def open_existing_lake(home: Home) -> Lake:
    """Open an existing lake for writing.

    Raises:
        LakeError: if there is none, or it cannot be opened.
    """
    read_existing_lake(home).close()
    return open_lake(home)


def read_lake(home: Home, at: int | str | None = None) -> Lake:
    """Open the lake read-only, as it is or at a snapshot, given by number or tag; or an empty lake in memory.

    A lake of an earlier release is upgraded first; an old snapshot has the tables that it had then.

    Raises:
        LakeError: if it cannot be opened, has no such snapshot, or has data files but no catalog.
        LakeTooNewError: if a later release wrote it.
    """
    opened = _read(home, at)
    if opened is None and has_data_files(home):
        opened = _read(home, at)  # another process may have created it meanwhile
        if opened is None:
            raise _lost_catalog_error(home)
    if opened is None:
        return _empty_lake()
    lake, version = opened
    with _close_on_error(lake):
        _check_version(lake, version)
    if at is None and version < VERSION:
        lake.close()
        open_lake(home).close()
        return read_lake(home)
    return lake


def read_existing_lake(home: Home, at: int | str | None = None) -> Lake:
    """Open an existing lake read-only, as :func:`read_lake` does.

    Raises:
        LakeError: if there is none, or it cannot be opened.
    """
    lake = read_lake(home, at)
    if lake.exists:
        return lake
    lake.close()
    raise _no_lake_error(home)


def has_data_files(home: Home) -> bool:
    """Return whether there are Parquet files in the lake's data folder.

    Raises:
        LakeError: if the folder cannot be listed.
    """
    if home.data_url:
        write_secret(home.data_url)  # raises if no account is named
        con = connect(list_wheels(home))
        _add_credentials(con, home.data_url)  # fails faster than the store itself does without credentials
        recycle(con, list_wheels(home))
        check_store(home.data_url)
    return any(file.extension == "parquet" for file in list_folder(home, ""))


def _lost_catalog_error(home: Home) -> LakeError:
    return LakeError(
        f"lake {home.lake}",
        f"does not exist, but {home.data_url or home.data}/ has files of one, whose catalog may be lost or elsewhere",
        "Restore or name its catalog (`frostline move` moves a lake out of a home), or clear that folder",
    )


def _no_lake_error(home: Home) -> LakeError:
    value, remedy = (f"lake {home.lake}", "--lake.catalog") if home.catalog_url else (f"home {home.root}", "--home")
    return LakeError(value, "has no lake", f"Check {remedy}, or make one: frostline run FOLDER")


def _read(home: Home, at: int | str | None) -> tuple[Lake, int] | None:
    """Open a lake and read its version; None if there is none, or its creation is in progress or was interrupted."""
    lake = attach_if_present(home, "READ_ONLY") if at is None else _read_at(home, at)
    if lake is None:
        return None
    version = read_version(lake)
    if version == 0 and at is None:
        lake.close()
        return None
    return lake, version


def _read_at(home: Home, at: int | str) -> Lake | None:
    try:
        return attach_if_present(home, "READ_ONLY", f"SNAPSHOT_VERSION {_number(home, at)}")
    except LakeError as error:
        if "No snapshot found" in error.rule:
            raise missing_snapshot_error(home, at) from error
        raise


def attach_if_present(home: Home, *options: str) -> Lake | None:
    """Open an existing lake; None if there is none."""
    if not (home.catalog_url or home.catalog.exists()):
        return None
    if con := attached.take(home, options):
        return Lake(home, con, options)
    began, recovered = time.monotonic(), False
    with report_waits(home):
        while True:
            try:
                return _attach(home, options, "CREATE_IF_NOT_EXISTS false")
            except (duckdb.Error, sqlite3.OperationalError) as error:
                if ABSENT in str(error):
                    return None
                if not _is_blocked(home, error):
                    if recovered or home.catalog_url or not complete_commit(home):
                        raise _unreadable_error(home, error) from error
                    recovered = True
                if time.monotonic() - began > PATIENCE:
                    raise busy_error(home, error) from error
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, not cryptography


def _is_blocked(home: Home, error: Exception) -> bool:
    """Return whether somebody else has locked the catalog; DuckLake may report another error that follows from that."""
    return is_locked(error) or (not home.catalog_url and ABORTED in str(error))


def make_lake(home: Home, *, filled: bool = False) -> Lake:
    """Create a lake without tables, or open the one that another process has just created.

    A data folder with files in it belongs to another lake, whose files would be deleted as orphans of the new one.
    Set ``filled`` if the files belong to the new lake.

    Raises:
        LakeError: if it cannot be created there.
    """
    if has_data_files(home) and not filled:
        if lake := attach_if_present(home):  # another process was first
            return lake
        raise _lost_catalog_error(home)
    for _ in range(ATTEMPTS):
        try:
            return _attach(home, ())
        except (duckdb.Error, sqlite3.OperationalError) as error:
            if not is_race(error):
                raise _unreadable_error(home, error) from error
        time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, not cryptography
    raise LakeBusyError(f"lake {home.lake}", f"lost {ATTEMPTS} races to be created", "Run again")


def _number(home: Home, at: int | str) -> int:
    if is_number(at):
        if int(at) >= NO_SNAPSHOT:
            raise missing_snapshot_error(home, at)
        return int(at)
    with read_lake(home) as lake:
        return find_snapshot(lake, at)


def _empty_lake() -> Lake:
    """Open an empty lake in memory: a recycled one, since making its tables takes longer than most queries."""
    with tempfile.TemporaryDirectory(prefix="frostline-") as folder:  # DuckLake creates its data folder at once
        home = Home(Path(folder))
        if idle := find_idle("empty lake"):
            return Lake(home, idle, exists=False)
        con = connect(list_wheels(home))
        con.execute(f"ATTACH 'ducklake::memory:' AS lake (DATA_PATH {quote(f'{folder}/')})")
        con.execute("USE lake")
        lake = Lake(home, con, exists=False)
        _create_tables(lake)
    return lake


def _attach(home: Home, options: Options, *more: str) -> Lake:
    enter(home, writing="READ_ONLY" not in options)
    try:
        return Lake(home, _connect_to(home, (*options, *more)), options)
    except BaseException:
        leave(home)
        raise


def _connect_to(home: Home, options: Sequence[str]) -> duckdb.DuckDBPyConnection:
    con = connect(list_wheels(home))
    try:
        if home.data_url:
            _add_credentials(con, home.data_url)
        _attach_at(con, home, options)
        con.execute("USE lake")
        con.execute(f"SET threads = {_count_threads(con)}")
    except (duckdb.Error, LakeError):
        con.close()
        raise
    return con


def _count_threads(con: duckdb.DuckDBPyConnection) -> int:
    """Return one thread for a small lake: waking others takes longer there than all else that a query does."""
    try:
        rows = con.execute(f"SELECT coalesce(sum(record_count), 0) FROM {META}.ducklake_table_stats").fetchall()[0][0]
    except duckdb.Error:  # a lake that is just being made has no such table yet
        return 1
    return 1 if rows < MANY_ROWS else os.cpu_count() or 1


def _add_credentials(con: duckdb.DuckDBPyConnection, url: str) -> None:
    try:
        con.execute(write_secret(url))
    except duckdb.Error as error:
        rule = f"no credentials were found for it: {name_missing(url)}"
        raise LakeError(f"data {url}", rule, "See docs/scale-out.md for where they are looked for") from error


def _attach_at(con: duckdb.DuckDBPyConnection, home: Home, options: Sequence[str]) -> None:
    """Attach a lake. A home that was moved as a whole opens; any other data folder must match the catalog."""
    settings = [f"DATA_PATH {quote(f'{home.data_url or home.data}/')}", *options]
    if not home.catalog_url:
        settings += ["META_BUSY_TIMEOUT 20000", *([] if "READ_ONLY" in options else ["META_JOURNAL_MODE 'WAL'"])]
    attach = f"ATTACH {quote(f'ducklake:{home.catalog_name}')} AS lake ({', '.join(settings)}"
    try:
        con.execute(f"{attach})")
    except duckdb.Error as error:
        elsewhere = ELSEWHERE.search(str(error))
        if not elsewhere or home.catalog_url or home.data_url or "://" in elsewhere[1]:
            raise
        con.execute(f"{attach}, OVERRIDE_DATA_PATH true)")


def _unreadable_error(home: Home, error: Exception) -> LakeError:
    if elsewhere := ELSEWHERE.search(str(error)):
        return LakeError(
            f"lake {home.lake}",
            f"has its data in {elsewhere[1]}, not in {home.data_url or home.data}/",
            "Name its own place in lake.data; docs/scale-out.md says how data move",
        )
    reason = " ".join(str(error).rpartition('": ')[2].split())
    if home.catalog_url and "connection to server" in reason:
        remedy = "Check lake.catalog, the server, and PGPASSWORD or ~/.pgpass"
    else:
        remedy = "Check the path, its permissions and the snapshot"
    return LakeError(f"lake {home.lake}", f"cannot be opened: {reason}", remedy)


def _make_version(lake: Lake) -> int:
    """Create the tables of a lake that has none, unless its data folder has files; returns the version."""
    if has_data_files(lake.home) and not read_version(lake):  # otherwise another process was first
        raise _lost_catalog_error(lake.home)
    _create_tables(lake)
    return read_version(lake)


def _create_tables(lake: Lake) -> None:
    try:
        lake.execute("BEGIN")
        create_tables(lake)
        lake.execute("COMMIT")
    except duckdb.Error as error:
        with contextlib.suppress(duckdb.Error):
            lake.execute("ROLLBACK")
        if not read_version(lake):  # otherwise another process has created them
            raise unwritable_error(lake.home, error) from error


def _check_version(lake: Lake, version: int) -> None:
    if 0 < version <= VERSION:
        return
    if version > VERSION:
        raise LakeTooNewError(
            f"lake {lake.home.lake}",
            f"has schema version {version}, this release reads up to {VERSION}",
            "Upgrade Frostline",
        )
    raise LakeError(f"lake {lake.home.lake}", "has no tables yet", "Choose a later snapshot")
