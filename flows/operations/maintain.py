"""Maintenance: fewer and larger files, fewer snapshots, no leavings."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.artifacts.checkpoints import list_left
from storage.care.compaction import compact, list_small
from storage.care.expiry import delete_unread, expire, list_expirable, list_unread
from storage.errors import SettingsError
from storage.lake.attach import open_existing_lake, read_existing_lake
from storage.lake.ducklake_files import delete_files, find_orphans
from storage.lake.lake import Lake
from storage.locations.home import Home

CENTURY = timedelta(days=36_525)


@dataclass(frozen=True)
class Maintained:
    """What maintenance did, or would do: files of vectors rewritten, snapshots expired, files deleted.

    ``checkpoints`` are those of trainings that broke off, and that nobody has gone on with.
    """

    compacted: int
    expired: tuple[int, ...]
    unread: tuple[str, ...]
    orphans: tuple[str, ...]
    checkpoints: tuple[str, ...]


def plan_maintenance(home: Home, older_than: timedelta, grace: timedelta, now: datetime) -> Maintained:
    """Say what :func:`maintain` would do; writes nothing."""
    old, spare = _go_back(now, "older_than", older_than), _go_back(now, "grace", grace)
    with read_existing_lake(home) as lake:
        return Maintained(
            sum(map(len, list_small(lake))),
            tuple(list_expirable(lake, old)),
            tuple(list_unread(lake, spare)),
            _list_orphans(lake, spare),
            tuple(map(str, list_left(home, spare))),
        )


def maintain(home: Home, older_than: timedelta, grace: timedelta, now: datetime) -> Maintained:
    """Compact, expire snapshots older than an age, delete files that nobody can be reading or about to commit.

    ``grace`` is the age from which a file is deleted that no snapshot names.

    Raises:
        SettingsError: where an age is none.
    """
    old, spare = _go_back(now, "older_than", older_than), _go_back(now, "grace", grace)
    with open_existing_lake(home) as lake:
        compacted = compact(lake, now)
        expired = expire(lake, old)
        unread = tuple(delete_unread(lake, spare))
        orphans = _list_orphans(lake, spare)
        delete_files(lake, orphans)
    left = list_left(home, spare)
    for path in left:
        path.unlink(missing_ok=True)
    return Maintained(compacted, tuple(expired), unread, orphans, tuple(map(str, left)))


def _go_back(now: datetime, name: str, age: timedelta) -> datetime:
    if not timedelta(0) <= age <= CENTURY:
        raise SettingsError(f"{name} {age}", "must be an age between 0 and 100 years", "Write it as 30d or 12h")
    return now - age


def _list_orphans(lake: Lake, before: datetime) -> tuple[str, ...]:
    return tuple(file.path for file in find_orphans(lake, before))


def describe_maintained(done: Maintained, *, dry: bool) -> list[str]:
    """Tell in a few lines what was done, or would be."""
    would = "would be " if dry else ""
    return [
        f"compacted {done.compacted} files of vectors {would}written anew as fewer",
        f"snapshots {len(done.expired)} {would}expired",
        f"files     {len(done.unread)} that no snapshot reads {would}deleted",
        f"orphans   {len(done.orphans)} {would}deleted",
        f"left      {len(done.checkpoints)} checkpoints of trainings that broke off {would}deleted",
    ]
