"""Turns at committing, among the writers of one machine.

Taking turns makes lost races rare; it is the guard, not the turn, that makes commits safe.
"""

import contextlib
import time
from collections.abc import Iterator

from storage.paths import Home

PATIENCE = 5.0
PAUSE = 0.005


@contextlib.contextmanager
def take_turn(home: Home) -> Iterator[None]:
    """Hold the lock of a local catalog for the length of a block, or go on without it after five seconds."""
    if home.catalog_url:  # Postgres lets writers wait for each other, on whatever machine they are
        yield
        return
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with home.turn.open("a") as file:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(PAUSE)
        yield
