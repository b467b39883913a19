"""Locks that processes of one machine hold, and that end with them."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from storage.locations.home import Home

PATIENCE = 5.0
PAUSE = 0.005


@contextlib.contextmanager
def take_turn(home: Home) -> Iterator[None]:
    """Hold the lock of a local catalog for the length of a block, or go on without it after five seconds.

    Taking turns at committing makes lost races rare; it is the guard, not the turn, that makes commits safe.
    """
    if home.catalog_url:  # Postgres lets writers wait for each other, on whatever machine they are
        yield
        return
    with home.turn.open("a") as file:
        give_up = time.monotonic() + PATIENCE
        while not _lock(file.fileno()) and time.monotonic() < give_up:
            time.sleep(PAUSE)
        yield


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Hold a folder for the length of a block; gives whether nobody else holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone, or this system opens no folders
        yield False
        return
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # there is none to wait for
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else has it, or this file system has none
        return False
    return True
