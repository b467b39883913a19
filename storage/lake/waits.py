"""Waiting for a catalog that others have locked: who they are is logged, and named if the wait ends in an error."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import duckdb

from storage.errors import LakeError
from storage.lake.extensions import connect
from storage.locations.home import Home
from storage.locations.locks import list_lockers
from storage.locations.processes import describe_process
from storage.locations.urls import POSTGRES

FIRST_REPORT, NEXT_REPORTS = 10.0, 60.0
"""Seconds after which a wait is first reported, and between further reports."""
_BLOCKING = """SELECT DISTINCT concat('process ', a.pid, ' of ', a.usename, ' at ' || host(a.client_addr), ' (',
    a.application_name, ', ', a.state, ')')
  FROM pg_stat_activity w, unnest(pg_blocking_pids(w.pid)) AS b(pid) JOIN pg_stat_activity a ON a.pid = b.pid
  WHERE w.datname = current_database() ORDER BY 1"""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def report_waits(home: Home) -> Iterator[None]:
    """Log after ten seconds, then every minute, who has locked the catalog, for as long as a block runs."""
    done = threading.Event()
    threading.Thread(target=_report, args=(home, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def describe_lockers(home: Home) -> str:
    """Name, in words, the processes that have locked the catalog; empty if none can be seen."""
    if home.catalog_url:
        return ", ".join(_list_blocking(home.catalog_url))
    pids = list_lockers(home)
    return ", ".join(describe_process(pid) if pid else "a process of another container or machine" for pid in pids)


def _report(home: Home, done: threading.Event) -> None:
    began, seconds = time.monotonic(), FIRST_REPORT
    while not done.wait(seconds):
        if lockers := describe_lockers(home):
            waited = time.monotonic() - began
            logger.warning("lake %s: has waited for %.0f s; its catalog is locked by %s", home.lake, waited, lockers)
        seconds = NEXT_REPORTS


def _list_blocking(catalog_url: str) -> list[str]:
    """List the clients of a Postgres catalog that block others in it; none if it does not answer."""
    server = catalog_url.removeprefix(POSTGRES).replace("'", "''")
    try:
        with closing(connect(("postgres",))) as con:
            con.execute(f"ATTACH '{server}' AS catalog (TYPE postgres, READ_ONLY)")
            found = con.execute("FROM postgres_query('catalog', ?)", [_BLOCKING]).fetchall()
    except (duckdb.Error, LakeError):
        return []
    return [name for (name,) in found]
