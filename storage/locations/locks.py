"""Locks between processes of one machine; they end with the process that holds them."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from storage.locations.home import Home

TIMEOUT = 5.0
POLL = 0.005
LOCKED = ("catalog.sqlite", "commit.lock")
"""The files whose locks writers wait for begin with this."""


@contextlib.contextmanager
def lock_commits(home: Home) -> Iterator[bool]:
    """Hold the commit lock of a local catalog for the length of a block; after five seconds, proceed without it.

    Yields whether it is held.

    Committing one at a time makes lost races rare. What makes commits safe is the guard, not this lock.
    """
    if home.catalog_url:  # Postgres makes writers wait for each other, on any machine
        yield False
        return
    with home.commit_lock.open("a") as file:
        deadline = time.monotonic() + TIMEOUT
        while not (locked := _try_lock(file.fileno())) and time.monotonic() < deadline:
            time.sleep(POLL)
        yield locked


def list_lockers(home: Home) -> list[int]:
    """List the other processes that hold a lock on a local catalog or its commit lock, as far as Linux shows them.

    A pid of 0 stands for a process of another container or machine. Whoever only waits for a lock is left out.
    """
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    inodes = {str(path.stat().st_ino) for path in home.root.glob("*") if path.name.startswith(LOCKED)}
    pids = {max(0, int(lock[4])) for lock in locks if lock[1] != "->" and lock[5].rpartition(":")[2] in inodes}
    return sorted(pids - {os.getpid()})


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Lock a file or folder for the length of a block; wait while another process has it locked.

    Proceeds without a lock where the file system has none, as some network file systems.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        while _request_lock(handle) == "taken":
            time.sleep(POLL)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to lock a file or folder for the length of a block; yields False if another process has it locked."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # it is gone, or this system cannot open folders
        yield False
        return
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    return _request_lock(handle) == "held"


def _request_lock(handle: int) -> Literal["held", "taken", "unsupported"]:
    """Lock an open file or folder; "taken" if another process has it locked."""
    try:
        import fcntl
    except ImportError:  # no locks on this system
        return "held"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "taken"
    except OSError:
        return "unsupported"
    return "held"
