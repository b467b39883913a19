"""Leftovers: files that belong to no snapshot, of which an erasure deletes those that may hold an erased image.

A file of features that a living run is about to commit must stay. If its images are all in the lake, none of them is
erased, and whatever becomes of the file, it does no harm.
"""

import contextlib
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.lake.ducklake_files import StoredFile, delete_files, find_orphans
from storage.lake.lake import Lake
from storage.locations.locks import lock_commits, try_lock
from storage.locations.parquet_files import open_data
from storage.tables.leases import LivingRuns, find_living

OLD = timedelta(hours=1)
"""A file older than this that belongs to no snapshot is not that of a living run."""
FEATURES, UNFINISHED = "/features/", (".unfinished", ".new")


def delete_leftovers(lake: Lake, now: datetime) -> int:
    """Delete files that belong to no snapshot, except those that a living run may be about to commit.

    Leases are read first: a run that ends its lease later has its file in the folder by then, or in the catalog.

    Returns:
        The number of runs that began before the newest erasure and may still hold an erased image, in memory or in a
        file, and of files of other tables that may hold one and cannot be deleted yet.
    """
    with lock_commits(lake.home) as locked:
        runs = find_living(lake, now)
        orphans = find_orphans(lake)
        others = [file for file in orphans if _is_of_others(file, now, locked=locked)]
        kept = [file for file in orphans if FEATURES in file.path and _must_stay(lake, file, runs, locked=locked)]
        delete_files(lake, sorted({file.path for file in orphans} - {file.path for file in (*others, *kept)}))
    return len(runs.erased) + len(others)


def _is_of_others(file: StoredFile, now: datetime, *, locked: bool) -> bool:
    """Return whether a file of another table may be of a commit in progress; none is while the commit lock is held."""
    return FEATURES not in file.path and not locked and file.changed_at > now - OLD


def _must_stay(lake: Lake, file: StoredFile, runs: LivingRuns, *, locked: bool) -> bool:
    """Return whether a living run may be about to commit a file of features."""
    if runs.erased:
        return True
    if file.path.endswith(UNFINISHED):
        return _is_being_written(lake, file.path)
    return (runs.any or not locked) and not _may_hold_erased(lake, file.path)


def _is_being_written(lake: Lake, path: str) -> bool:
    """Return whether a process has an unfinished file locked."""
    unfinished = Path(open_data(lake.home)[1], path)
    with try_lock(unfinished) as free:
        return not free and unfinished.exists()


def _may_hold_erased(lake: Lake, path: str) -> bool:
    """Return whether a file of features has an image that the lake does not have, or cannot be read."""
    ids = None
    with contextlib.suppress(OSError, pa.ArrowException):
        ids = _read_ids(lake, path)
    if ids is None:
        return True
    with lake.temporary_tables(_leftover=ids):
        return bool(lake.value("SELECT count(*) FROM _leftover WHERE image_id NOT IN (SELECT image_id FROM images)"))


def _read_ids(lake: Lake, path: str) -> pa.Table:
    system, folder = open_data(lake.home)
    with system.open_input_file(f"{folder}/{path}") as opened:
        return pq.read_table(opened, columns=["image_id"])
