"""Reports of runs, saved in the home as JSON: while a run works, when it ends, and after it was killed."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from storage.locations.atomic import write_file
from storage.locations.home import Home
from storage.locations.locks import try_lock

logger = logging.getLogger(__name__)

MAX_REPORTS = 100
"""Older ones are deleted."""
RUNNING = ".running"

Save = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def open_report(home: Home, started: datetime, run_id: str) -> Iterator[Save]:
    """Yield a function that saves the report of a run, each time in place of what it saved before.

    A lock, held as long as the block, tells the next run whether this one is still at work; a report of a run that was
    killed says "running", until the next run corrects it.
    """
    file = home.reports / f"{started:%Y%m%dT%H%M%SZ}-{run_id[:8]}.json"
    mark = file.with_suffix(RUNNING)
    with survive_full_disk():
        home.reports.mkdir(parents=True, exist_ok=True)
        _correct_killed(home)
        _delete_oldest(home)
        mark.touch()
    try:
        with try_lock(mark):
            yield partial(_save, file)
    finally:
        with survive_full_disk():
            mark.unlink(missing_ok=True)


def _save(file: Path, value: dict[str, Any]) -> None:
    with survive_full_disk(), write_file(file) as unfinished:
        unfinished.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def _correct_killed(home: Home) -> None:
    """Mark the reports of runs that were killed as crashed: nobody holds their locks."""
    for mark in home.reports.glob(f"*{RUNNING}"):
        with try_lock(mark) as ended:
            file = mark.with_suffix(".json")
            if ended and file.exists():
                _save(file, {**json.loads(file.read_text(encoding="utf-8")), "state": "crashed"})
            if ended:
                mark.unlink(missing_ok=True)


def _delete_oldest(home: Home) -> None:
    for file in sorted(home.reports.glob("*.json"))[: 1 - MAX_REPORTS]:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def survive_full_disk() -> Iterator[None]:
    """Log that a report cannot be saved: this must not end a run, or hide why it ended."""
    try:
        yield
    except OSError as error:
        logger.warning("the report of this run cannot be saved: %s", error.strerror)
