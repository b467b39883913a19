"""Opening a lake: for writing or reading, as it is or as it was."""

import contextlib
import tempfile
from pathlib import Path

import duckdb

from storage.errors import LakeError, LakeTooNewError
from storage.extensions import connect
from storage.lake import Lake, unwritable
from storage.migrate import VERSION, make_tables, read_version, upgrade
from storage.paths import Home
from storage.snapshots import find_snapshot
from storage.turns import take_turn


def open_lake(home: Home) -> Lake:
    """Open the lake for writing, making it where there is none, upgrading it where an earlier release made it.

    Raises:
        LakeError: where the home cannot be written or the lake cannot be opened.
        LakeTooNewError: where a later release wrote it.
    """
    home.make()
    with take_turn(home.turn):
        lake = _attach(home, f"ducklake:sqlite:{home.catalog}", "META_JOURNAL_MODE 'WAL', META_BUSY_TIMEOUT 20000")
        _race_to_make(lake)
    upgrade(_checked(lake))
    return lake


def reopen_lake(home: Home) -> Lake:
    """Open a lake that is there for writing.

    Raises:
        LakeError: where there is none, or it cannot be opened.
    """
    if not (home.catalog_url or home.catalog.exists()):
        raise LakeError(f"home {home.root}", "has no lake", "Check --home, or make one: frostline run FOLDER")
    return open_lake(home)


def read_lake(home: Home, at: int | str | None = None) -> Lake:
    """Open the lake for reading alone, as it is or as it was; where there is none, an empty one in memory.

    ``at`` is a snapshot's number or its tag.

    A lake of an earlier release is upgraded first; as it was, it has the tables that it had.

    Raises:
        LakeError: where it cannot be opened, or has no such snapshot.
        LakeTooNewError: where a later release wrote it.
    """
    if not home.catalog.exists():
        return _empty_lake()
    version = "" if at is None else f", SNAPSHOT_VERSION {_number(home, at)}"
    lake = _checked(_attach(home, f"ducklake:sqlite:{home.catalog}", f"READ_ONLY, META_BUSY_TIMEOUT 20000{version}"))
    if at is None and read_version(lake) < VERSION:
        lake.close()
        open_lake(home).close()
        return read_lake(home)
    return lake


def _number(home: Home, at: int | str) -> int:
    with read_lake(home) as lake:
        return find_snapshot(lake, at)


def _empty_lake() -> Lake:
    with tempfile.TemporaryDirectory(prefix="frostline-") as folder:  # DuckLake makes its data folder at once
        lake = _attach(Home(Path(folder)), "ducklake::memory:", "")
        _race_to_make(lake)
    return lake


def _attach(home: Home, catalog: str, options: str) -> Lake:
    con = connect()
    # The path is given each time, so that a home that was moved opens in its new place.
    placed = f"DATA_PATH '{_quote(str(home.data))}/', OVERRIDE_DATA_PATH true" + (f", {options}" if options else "")
    try:
        con.execute(f"ATTACH '{_quote(catalog)}' AS lake ({placed})")
        con.execute("USE lake")
    except duckdb.Error as error:
        con.close()
        reason = " ".join(str(error).split())
        raise LakeError(
            f"lake {home.root}", f"cannot be opened: {reason}", "Check the path, its permissions and the snapshot"
        ) from error
    return Lake(home, con)


def _race_to_make(lake: Lake) -> None:
    if read_version(lake):
        return
    try:
        lake.execute("BEGIN")
        make_tables(lake)
        lake.execute("COMMIT")
    except duckdb.Error as error:
        with contextlib.suppress(duckdb.Error):
            lake.execute("ROLLBACK")
        if not read_version(lake):  # otherwise another process has made them at the same time
            raise unwritable(lake.home, error) from error


def _checked(lake: Lake) -> Lake:
    version = read_version(lake)
    if 0 < version <= VERSION:
        return lake
    lake.close()
    if version > VERSION:
        raise LakeTooNewError(
            f"lake {lake.home.root}",
            f"has schema version {version}, this release reads up to {VERSION}",
            "Upgrade Frostline",
        )
    raise LakeError(f"lake {lake.home.root}", "has no tables yet", "Choose a later snapshot")


def _quote(text: str) -> str:
    return text.replace("'", "''")
