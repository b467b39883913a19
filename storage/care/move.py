"""Move a lake out of its home with every snapshot: catalog rows and files are copied unchanged."""

import dataclasses
import sqlite3
from contextlib import closing

import duckdb
from pyarrow import fs

from storage.errors import LakeError, SettingsError
from storage.lake.attach import attach_if_present, make_lake, open_lake, read_lake
from storage.lake.extensions import connect, list_wheels
from storage.lake.lake import quote
from storage.lake.migrate import read_version
from storage.locations.home import Home
from storage.locations.parquet_files import open_data
from storage.locations.urls import POSTGRES

_SNAPSHOTS = "SELECT snapshot_id, epoch_us(snapshot_time) FROM ducklake_snapshots('lake')"


def move_lake(new: Home) -> int:
    """Copy the lake in a home to where the home's URLs point; the files in the home stay there.

    If the data stay in the home, the old catalog is renamed: with two catalogs for one folder, each would take the
    other's files for leftovers of killed runs. Nobody else may write meanwhile.

    Returns:
        The newest snapshot, which is the same in both.

    Raises:
        SettingsError: if the URLs name no catalog.
        LakeError: if there is no lake to move, or another lake at the destination.
    """
    old = dataclasses.replace(new, catalog_url=None, data_url=None)
    snapshot = _find_copied(old, new)
    if snapshot is None:
        with open_lake(old) as lake:
            lake.call("ducklake_flush_inlined_data('lake')")  # small tables are rows in the catalog, in its own dialect
            snapshot = lake.snapshot
        if new.data_url:
            _copy_files(old, new)
        _copy_catalog(old, new)
    if not new.data_url:
        _rename_catalog(old)
    return snapshot


def _find_copied(old: Home, new: Home) -> int | None:
    """Return the newest snapshot if the new lake has it already; None if nothing was copied yet."""
    if not new.catalog_url:
        raise SettingsError(
            "lake.catalog", "must name the database to move into", "Set it, such as postgres:dbname=lake"
        )
    if not old.catalog.exists():
        raise LakeError(f"home {old.root}", "has no lake to move", "Choose another with --home")
    with read_lake(old) as lake:
        [newest] = lake.rows(f"{_SNAPSHOTS} ORDER BY snapshot_id DESC LIMIT 1")
    moved = attach_if_present(new, "READ_ONLY")
    if moved is None:
        return None
    with moved:
        if not read_version(moved):
            return None
        if newest not in moved.rows(_SNAPSHOTS):
            raise LakeError(f"lake {new.lake}", "exists already", "Move into an empty database")
    return int(newest[0])


def _rename_catalog(old: Home) -> None:
    """Rename the catalog. Its log is merged into it first, so that there is only one file to rename."""
    try:
        with closing(sqlite3.connect(old.catalog, timeout=20)) as con:
            con.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        remedy = "Stop them, then run this again: everything is copied, only the old catalog is still to be renamed"
        raise LakeError(f"lake {old.lake}", f"is in use by readers or writers: {error}", remedy) from error
    old.catalog.rename(old.catalog.with_suffix(".moved"))


def _copy_files(old: Home, new: Home) -> None:
    (old_system, source), (new_system, target) = open_data(old), open_data(new)
    try:
        fs.copy_files(source, target, source_filesystem=old_system, destination_filesystem=new_system)
    except OSError as error:
        raise LakeError(
            f"data {new.data_url}", f"cannot be written: {error}", "Check the bucket, then run again"
        ) from error


def _copy_catalog(old: Home, new: Home) -> None:
    """Copy all rows of DuckLake's metadata tables, except the path of the data folder."""
    make_lake(new, filled=True).close()
    con = connect(("sqlite", *list_wheels(new)))
    try:
        con.execute(f"ATTACH {quote(str(old.catalog))} AS old (TYPE sqlite, READ_ONLY)")
        con.execute(f"ATTACH {quote(str(new.catalog_url).removeprefix(POSTGRES))} AS new (TYPE postgres)")
        con.execute("BEGIN")
        [(data_path,)] = con.execute("SELECT value FROM new.ducklake_metadata WHERE key = 'data_path'").fetchall()
        for table in _list_tables(con):
            con.execute(f"DELETE FROM new.{table}")
            con.execute(f"INSERT INTO new.{table} BY NAME FROM old.{table}")
        con.execute("UPDATE new.ducklake_metadata SET value = ? WHERE key = 'data_path'", [data_path])
        con.execute("COMMIT")
    except duckdb.Error as error:
        raise LakeError(
            f"lake {new.lake}", f"cannot be written: {error}", "Check the database, then run again"
        ) from error
    finally:
        con.close()


def _list_tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    found = con.execute(
        """SELECT table_name FROM duckdb_tables() WHERE database_name IN ('old', 'new') AND table_name LIKE 'ducklake%'
           AND table_name NOT LIKE 'ducklake_inlined%' GROUP BY ALL HAVING count(*) = 2 ORDER BY ALL"""
    )
    return [table for (table,) in found.fetchall()]
