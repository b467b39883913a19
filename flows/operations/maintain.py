"""Maintenance: fewer and larger files, fewer snapshots, no leftovers."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.artifacts.checkpoints import list_left
from storage.care.compaction import compact, list_small
from storage.care.erase import finish
from storage.care.expiry import delete_unread, expire, list_expirable, list_unread
from storage.errors import SettingsError
from storage.lake.attach import open_existing_lake, read_existing_lake
from storage.lake.ducklake_files import delete_files, find_orphans
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.plural import pluralize

MAX_AGE = timedelta(days=36_525)


@dataclass(frozen=True)
class MaintenanceResult:
    """What maintenance did or would do. ``frostline maintain --json`` prints these fields.

    Attributes:
        compacted: How many files of vectors were merged into fewer.
        expired: The snapshots that expired.
        unread: Deleted files that only expired snapshots read.
        orphans: Deleted files that no snapshot has ever named.
        checkpoints: Deleted checkpoints of interrupted trainings that nobody resumed.
    """

    compacted: int
    expired: tuple[int, ...]
    unread: tuple[str, ...]
    orphans: tuple[str, ...]
    checkpoints: tuple[str, ...]


def plan_maintenance(home: Home, older_than: timedelta, grace: timedelta, now: datetime) -> MaintenanceResult:
    """Return what :func:`maintain` would do; writes nothing.

    Raises:
        SettingsError: if an age is negative or above 100 years.
    """
    expire_before, delete_before = _subtract(now, "older_than", older_than), _subtract(now, "grace", grace)
    with read_existing_lake(home) as lake:
        return MaintenanceResult(
            sum(map(len, list_small(lake))),
            tuple(list_expirable(lake, expire_before)),
            tuple(list_unread(lake, delete_before)),
            _list_orphans(lake, delete_before),
            tuple(map(str, list_left(home, delete_before))),
        )


def maintain(home: Home, older_than: timedelta, grace: timedelta, now: datetime) -> MaintenanceResult:
    """Compact small files, expire old snapshots, delete files that nobody can be reading or about to commit.

    Erasures that are still open are finished, if no run holds an erased image any more.

    Args:
        home: The home of the lake.
        older_than: Expire snapshots older than this.
        grace: Delete unreferenced files older than this.
        now: The time from which ages are counted.

    Raises:
        SettingsError: if an age is negative or above 100 years.
    """
    expire_before, delete_before = _subtract(now, "older_than", older_than), _subtract(now, "grace", grace)
    began = time.monotonic()
    with open_existing_lake(home) as lake:
        compacted = compact(lake, now)
        # Otherwise a snapshot that the compaction itself made would keep the files that it replaced.
        passed = timedelta(seconds=time.monotonic() - began)
        expired = tuple(expire(lake, expire_before + passed))
        unread = tuple(delete_unread(lake, delete_before + passed))
        orphans = _list_orphans(lake, delete_before)
        delete_files(lake, orphans)
    finish(home, now)
    checkpoints = list_left(home, delete_before)
    for path in checkpoints:
        path.unlink(missing_ok=True)
    return MaintenanceResult(compacted, expired, unread, orphans, tuple(map(str, checkpoints)))


def describe_maintenance(result: MaintenanceResult, *, dry_run: bool) -> list[str]:
    """Describe in a few lines what was or would be done."""
    would = "would be " if dry_run else ""
    return [
        f"compacted {pluralize(result.compacted, 'file')} of vectors {would}merged into fewer",
        f"snapshots {len(result.expired)} {would}expired",
        f"files     {len(result.unread)} of expired snapshots {would}deleted",
        f"orphans   {len(result.orphans)} {would}deleted",
        f"left      {pluralize(len(result.checkpoints), 'checkpoint')} of interrupted trainings {would}deleted",
    ]


def _subtract(now: datetime, name: str, age: timedelta) -> datetime:
    if not timedelta(0) <= age <= MAX_AGE:
        raise SettingsError(f"{name} {age}", "must be between 0 and 100 years", "Write an age such as 30d or 12h")
    return now - age


def _list_orphans(lake: Lake, before: datetime) -> tuple[str, ...]:
    return tuple(file.path for file in find_orphans(lake, before))
