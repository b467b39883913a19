"""The SQLite catalog as a file: at rest it can be read without write permission, and is whole.

While somebody writes, it is in SQLite's WAL mode, in which readers and writers do not wait for each other. A reader of
a file in that mode has to write beside it, though, unless a writer has it open. So the last writer to close it leaves
it in the ordinary mode.

This process has two copies of the SQLite library, Python's and DuckDB's, and the locks of one do not stop the other
(https://sqlite.org/howtocorrupt.html, section 2.2.1). So Python opens the catalog only while no lake is open here.
"""

import contextlib
import functools
import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from storage.locations.home import Home

QUICK_CHECK = """
import json, sqlite3, sys
try:
    problems = [str(row[0]) for row in sqlite3.connect(sys.argv[1], uri=True).execute("PRAGMA quick_check(5)")]
except sqlite3.DatabaseError as error:
    problems = [str(error)]
print(json.dumps(problems))
"""


@dataclass
class _Users:
    """How many lakes this process has open on one catalog, and whether any of them was for writing."""

    catalog: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    written: bool = False


@functools.cache
def _find_users(catalog: Path) -> _Users:
    return _Users(catalog)


def enter(home: Home, *, writing: bool) -> None:
    """Count a lake that this process opens. The first one switches the catalog to WAL mode if it is for writing.

    Raises:
        sqlite3.OperationalError: if that has to wait for a reader that began while nobody was writing.
    """
    if home.catalog_url:
        return
    users = _find_users(home.catalog.absolute())
    with users.lock:
        if writing and not users.count and home.catalog.exists():
            _switch_to_wal(home)
        users.count += 1
        users.written |= writing


def leave(home: Home) -> None:
    """Count a lake as closed. The last one leaves the catalog readable without write permission.

    If other processes have it open, the last of them does that; after a killed one, the next.
    """
    if home.catalog_url:
        return
    users = _find_users(home.catalog.absolute())
    with users.lock:
        users.count -= 1
        if not users.count and users.written:
            users.written = False
            _leave_readable(home)


def complete_commit(home: Home) -> bool:
    """Undo the half of a commit that a killed writer left, which a reader cannot; returns whether there may be one."""
    users = _find_users(home.catalog.absolute())
    with users.lock:
        if users.count or not home.catalog.with_name(f"{home.catalog.name}-journal").exists():
            return False
        with contextlib.suppress(sqlite3.OperationalError), closing(sqlite3.connect(home.catalog, timeout=20)) as con:
            con.execute("SELECT count(*) FROM sqlite_master")
            return True
    return False


def quick_check(home: Home) -> list[str]:
    """Let SQLite check the file, in another process as the lake is open in this one; returns its findings, or "ok"."""
    command = [sys.executable, "-I", "-c", QUICK_CHECK, f"{home.catalog.as_uri()}?mode=ro"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this interpreter
    problems: list[str] = json.loads(done.stdout)
    return problems


def _switch_to_wal(home: Home) -> None:
    with closing(sqlite3.connect(home.catalog, timeout=0)) as con:
        try:
            con.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:  # DuckDB will meet any other error and explain it
            if "locked" in str(error):
                raise


def _leave_readable(home: Home) -> None:
    if home.catalog.exists():
        with contextlib.suppress(sqlite3.OperationalError), closing(sqlite3.connect(home.catalog, timeout=0)) as con:
            con.execute("PRAGMA journal_mode = DELETE")
