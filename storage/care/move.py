"""Moving a lake out of its home, with every snapshot: rows of the catalog and bytes of the files, as they are."""

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
    """Copy the lake that lies in a home to where the home's urls say; what lies in the home stays there.

    Where the data stay in the home, its old catalog is put aside: two catalogs of one folder would each take what the
    other writes for leavings of killed runs. Nobody else may write meanwhile.

    Returns:
        The newest snapshot, of the old as of the new.

    Raises:
        SettingsError: where the urls name no catalog.
        LakeError: where there is no lake to move, or one in the new place.
    """
    old = dataclasses.replace(new, catalog_url=None, data_url=None)
    snapshot = _find_copied(old, new)
    if snapshot is None:
        with open_lake(old) as lake:
            lake.call("ducklake_flush_inlined_data('lake')")  # small tables lie in rows of the catalog's own dialect
            snapshot = lake.snapshot
        if new.data_url:
            _copy_files(old, new)
        _copy_catalog(old, new)
    if not new.data_url:
        _put_aside(old)
    return snapshot


def _find_copied(old: Home, new: Home) -> int | None:
    """Find the newest snapshot of the old lake in the new one; None where that is still to be made."""
    if not new.catalog_url:
        raise SettingsError(
            "lake.catalog", "must name the database to move into", "Set it, such as postgres:dbname=lake"
        )
    if not old.catalog.exists():
        raise LakeError(f"home {old.root}", "has no lake to move", "Choose another with --home")
    with read_lake(old) as lake:
        [newest] = lake.rows(f"{_SNAPSHOTS} ORDER BY snapshot_id DESC LIMIT 1")
    there = attach_if_present(new, "READ_ONLY")
    if there is None:
        return None
    with there:
        if not read_version(there):
            return None
        if newest not in there.rows(_SNAPSHOTS):
            raise LakeError(f"lake {new.lake}", "is there already", "Move into an empty database")
    return int(newest[0])


def _put_aside(old: Home) -> None:
    """Rename the catalog; its log is taken into it first, as a kill between two renames would part them."""
    try:
        with closing(sqlite3.connect(old.catalog, timeout=20)) as con:
            con.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        remedy = "Stop them, and run this again: all is copied, and the old catalog must be put aside"
        raise LakeError(f"lake {old.lake}", f"is held by readers or writers: {error}", remedy) from error
    old.catalog.rename(old.catalog.with_suffix(".moved"))


def _copy_files(old: Home, new: Home) -> None:
    (here, source), (there, target) = open_data(old), open_data(new)
    try:
        fs.copy_files(source, target, source_filesystem=here, destination_filesystem=there)
    except OSError as error:
        raise LakeError(f"data {new.data_url}", f"cannot be written: {error}", "Check the bucket, run again") from error


def _copy_catalog(old: Home, new: Home) -> None:
    """Copy every row that DuckLake keeps of the lake, save where its files lie."""
    make_lake(new, filled=True).close()
    con = connect(("sqlite", *list_wheels(new)))
    try:
        con.execute(f"ATTACH {quote(str(old.catalog))} AS old (TYPE sqlite, READ_ONLY)")
        con.execute(f"ATTACH {quote(str(new.catalog_url).removeprefix(POSTGRES))} AS new (TYPE postgres)")
        con.execute("BEGIN")
        [(place,)] = con.execute("SELECT value FROM new.ducklake_metadata WHERE key = 'data_path'").fetchall()
        for table in _list_tables(con):
            con.execute(f"DELETE FROM new.{table}")
            con.execute(f"INSERT INTO new.{table} BY NAME FROM old.{table}")
        con.execute("UPDATE new.ducklake_metadata SET value = ? WHERE key = 'data_path'", [place])
        con.execute("COMMIT")
    except duckdb.Error as error:
        raise LakeError(f"lake {new.lake}", f"cannot be written: {error}", "Check the database, run again") from error
    finally:
        con.close()


def _list_tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    found = con.execute(
        """SELECT table_name FROM duckdb_tables() WHERE database_name IN ('old', 'new') AND table_name LIKE 'ducklake%'
           AND table_name NOT LIKE 'ducklake_inlined%' GROUP BY ALL HAVING count(*) = 2 ORDER BY ALL"""
    )
    return [table for (table,) in found.fetchall()]
