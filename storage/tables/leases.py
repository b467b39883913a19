"""The leases table: which shard a run is embedding, so that no other run does the same work.

Leases only save work. What keeps features unique is the guard.
"""

import os
import platform
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.lake.lake import Lake
from storage.sources.open_image import LocatedImage
from storage.tables.missing import FIRST_ID, FeatureRequest, list_missing

DURATION = timedelta(minutes=5)
RENEW_AFTER = DURATION / 5
# An expression, since for a plain column DuckLake would read the statistics of every file of the lake, three times.
_BY_HOLDER = "concat(holder) = ?"


@dataclass(frozen=True)
class Lease:
    """A shard that a run is embedding: its images, ordered by image_id."""

    holder: str
    items: tuple[LocatedImage, ...]


def name_holder() -> str:
    """Name this run, so that other processes of this machine can check whether it is alive."""
    return f"{uuid.uuid4().hex}@{platform.node()}/{os.getpid()}"


def take_lease(
    lake: Lake, wanted: FeatureRequest, size: int, holder: str, now: datetime, *, after: str = FIRST_ID
) -> Lease | None:
    """Lease the next missing images that nobody has leased: those after ``after``, or else from the start.

    This also ends the leases of dead runs: those of this machine at once, others when they expire.

    Returns:
        At most ``size`` images; None if none is left to lease.
    """

    def write() -> Lease | None:
        _end_dead(lake, now)
        items = list_missing(lake, wanted, size, after=after, free_at=now)
        if not items and after != FIRST_ID:
            items = list_missing(lake, wanted, size, free_at=now)
        if not items:
            return None
        row = [wanted.recipe_id, items[0][0], items[-1][0], holder, now + DURATION]
        lake.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, NULL)", row)
        return Lease(holder, tuple(items))

    return lake.commit(write)


def renew_lease(lake: Lake, holder: str, now: datetime) -> None:
    """Extend a run's lease: it is still working."""
    lake.commit(lambda: lake.execute(f"UPDATE leases SET expires_at = ? WHERE {_BY_HOLDER}", [now + DURATION, holder]))


def end_leases(lake: Lake, holder: str) -> None:
    """End all leases of a run."""
    if lake.value(f"SELECT count(*) FROM leases WHERE {_BY_HOLDER}", [holder]):
        lake.commit(lambda: drop_lease(lake, holder))


def drop_lease(lake: Lake, holder: str) -> None:
    """End a run's lease, within a transaction."""
    lake.execute(f"DELETE FROM leases WHERE {_BY_HOLDER}", [holder])


def list_holders(lake: Lake, recipe_id: str | None, now: datetime) -> list[str]:
    """List the living runs that hold leases, of one recipe or of any."""
    found = lake.column(
        "SELECT DISTINCT holder FROM leases WHERE ($1 IS NULL OR recipe_id = $1) AND expires_at > $2", [recipe_id, now]
    )
    return [holder for holder in found if not _is_dead(holder)]


def _end_dead(lake: Lake, now: datetime) -> None:
    for holder, expires_at in lake.rows("SELECT holder, expires_at FROM leases"):
        if expires_at <= now or _is_dead(holder):
            drop_lease(lake, holder)


def _is_dead(holder: str) -> bool:
    """Return whether a run of this machine has ended; runs of other machines count as alive."""
    _, _, process_name = holder.partition("@")
    node, _, pid = process_name.rpartition("/")
    if node != platform.node():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # alive, as another user
        return False
    return False
