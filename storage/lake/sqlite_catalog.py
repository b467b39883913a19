"""The SQLite catalog as a file: at rest it can be read without write permission, and is whole.

While somebody writes, it is in SQLite's WAL mode, in which readers and writers do not wait for each other. A reader of
a file in that mode has to write beside it, though, unless a writer has it open. So the last writer to close it leaves
it in the ordinary mode.
"""

import contextlib
import sqlite3
from contextlib import closing

from storage.locations.home import Home


def leave_readable(home: Home) -> None:
    """Leave the catalog such that it can be read without write permission, unless others have it open.

    Of several writers, the last to close it does this. After a killed one, the next.
    """
    if home.catalog_url or not home.catalog.exists():
        return
    with contextlib.suppress(sqlite3.OperationalError), closing(sqlite3.connect(home.catalog, timeout=0)) as con:
        con.execute("PRAGMA journal_mode = DELETE")


def complete_commit(home: Home) -> bool:
    """Undo the half of a commit that a killed writer left, which a reader cannot; returns whether there may be one."""
    if not home.catalog.with_name(f"{home.catalog.name}-journal").exists():
        return False
    with contextlib.suppress(sqlite3.OperationalError), closing(sqlite3.connect(home.catalog, timeout=20)) as con:
        con.execute("SELECT count(*) FROM sqlite_master")
        return True
    return False
