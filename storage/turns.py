"""Turns at committing, among the writers of one machine.

Taking turns makes lost races rare; it is the guard, not the turn, that makes commits safe.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 5.0
PAUSE = 0.005


@contextlib.contextmanager
def take_turn(path: Path) -> Iterator[None]:
    """Hold the lock on a file for the length of a block, or go on without it after five seconds."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with path.open("a") as file:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(PAUSE)
        yield
