"""Leases: which shard a run works on, so that no other run knowingly computes it, too.

A lease spares work; that each feature is there once is the guard's doing alone.
"""

import os
import platform
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.lake.lake import Lake
from storage.tables.missing import FIRST_ID, FeatureRequest, list_missing

DURATION = timedelta(minutes=5)
RENEW_AFTER = DURATION / 5
# An expression: for a plain column DuckLake would look through the statistics of every file of the lake, three times.
_HIS = "concat(holder) = ?"


@dataclass(frozen=True)
class Lease:
    """A shard that a run works on: (image_id, path) of its images, in the order of image_id."""

    holder: str
    items: tuple[tuple[str, str], ...]


def name_holder() -> str:
    """Name this run, so that on this machine it can be told whether it still lives."""
    return f"{uuid.uuid4().hex}@{platform.node()}/{os.getpid()}"


def take_lease(
    lake: Lake, wanted: FeatureRequest, size: int, holder: str, now: datetime, *, after: str = FIRST_ID
) -> Lease | None:
    """Lease the next images that are missing and free, going on behind ``after`` and then from the start.

    Leases of dead runs end here: of those on this machine at once, of others when they expire.

    Returns:
        At most ``size`` images; None where none is free.
    """

    def write() -> Lease | None:
        _end_dead(lake, now)
        items = list_missing(lake, wanted, size, after=after, free_at=now)
        if not items and after != FIRST_ID:
            items = list_missing(lake, wanted, size, free_at=now)
        if not items:
            return None
        row = [wanted.recipe_id, items[0][0], items[-1][0], holder, now + DURATION]
        lake.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", row)
        return Lease(holder, tuple(items))

    return lake.commit(write)


def renew_lease(lake: Lake, holder: str, now: datetime) -> None:
    """Let a run's lease last longer: it is still at work."""
    lake.commit(lambda: lake.execute(f"UPDATE leases SET expires_at = ? WHERE {_HIS}", [now + DURATION, holder]))


def end_leases(lake: Lake, holder: str) -> None:
    """End a run's leases; it works on none of their images any more."""
    if lake.value(f"SELECT count(*) FROM leases WHERE {_HIS}", [holder]):
        lake.commit(lambda: drop_lease(lake, holder))


def drop_lease(lake: Lake, holder: str) -> None:
    """End a run's lease as part of a transaction."""
    lake.execute(f"DELETE FROM leases WHERE {_HIS}", [holder])


def list_holders(lake: Lake, recipe_id: str | None, now: datetime) -> list[str]:
    """Name the runs that work on shards of a recipe, or of any."""
    found = lake.column(
        "SELECT DISTINCT holder FROM leases WHERE ($1 IS NULL OR recipe_id = $1) AND expires_at > $2", [recipe_id, now]
    )
    return [holder for holder in found if not _is_dead(holder)]


def _end_dead(lake: Lake, now: datetime) -> None:
    for holder, expires_at in lake.rows("SELECT holder, expires_at FROM leases"):
        if expires_at <= now or _is_dead(holder):
            drop_lease(lake, holder)


def _is_dead(holder: str) -> bool:
    """Tell whether a run of this machine is no process any more; of other machines' runs nothing is known."""
    _, _, place = holder.partition("@")
    node, _, process = place.rpartition("/")
    if node != platform.node():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, as another user
        return False
    return False
