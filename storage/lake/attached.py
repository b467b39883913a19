"""Attached lakes that wait for the next step of a run: attaching takes as long as ten queries.

Only within :func:`keep_attached`, and never with an open transaction, so that nobody else waits for them.
"""

import contextlib
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import duckdb

from storage.locations.home import Home

Options = tuple[str, ...]
"""The options that a lake was attached with: () for writing, ("READ_ONLY",) for reading."""
KEPT: tuple[Options, ...] = ((), ("READ_ONLY",))
"""Not lakes as they were at a snapshot."""


@dataclass
class _Waiting:
    """The idle connections to one home's lake, and how many blocks keep them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    blocks: int = 0
    idle: "defaultdict[Options, list[duckdb.DuckDBPyConnection]]" = field(default_factory=lambda: defaultdict(list))


@functools.cache
def _find(home: Home) -> _Waiting:  # noqa: ARG001 - the cache's key
    return _Waiting()


@contextlib.contextmanager
def keep_attached(home: Home, detach: Callable[[Home, duckdb.DuckDBPyConnection], None]) -> Iterator[None]:
    """Keep the lakes of a home attached that are closed within a block; at its end they are detached.

    Args:
        home: The home.
        detach: Detaches a lake and gives its connection back.
    """
    waiting = _find(home)
    with waiting.lock:
        waiting.blocks += 1
    try:
        yield
    finally:
        left = list[duckdb.DuckDBPyConnection]()
        with waiting.lock:
            waiting.blocks -= 1
            if not waiting.blocks:
                left = [con for connections in waiting.idle.values() for con in connections]
                waiting.idle.clear()
        for con in left:
            detach(home, con)


def take(home: Home, options: Options) -> duckdb.DuckDBPyConnection | None:
    """Take a connection that was left attached, if there is one."""
    waiting = _find(home)
    with waiting.lock:
        idle = waiting.idle.get(options)
        return idle.pop() if idle else None


def leave(home: Home, options: Options, con: duckdb.DuckDBPyConnection) -> bool:
    """Leave a connection attached for the next caller; returns whether somebody keeps it."""
    waiting = _find(home)
    if options not in KEPT:
        return False
    with waiting.lock:
        if not waiting.blocks:
            return False
        with contextlib.suppress(duckdb.Error):
            con.execute("ROLLBACK")  # there is hardly ever a transaction
        waiting.idle[options].append(con)
        return True
