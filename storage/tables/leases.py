"""The leases table: which shard a run is embedding, and who is rewriting files of vectors.

Leases save work: no two runs embed the same images. (What keeps features unique is the guard.) And they tell an erasure
which runs may still hold an erased image, in memory or in a file that is not committed yet.
"""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.lake.lake import Lake
from storage.locations.processes import State, find_state, name_process
from storage.sources.open_image import LocatedImage
from storage.tables.missing import FIRST_ID, LAST_ID, FeatureRequest, list_missing

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
    return f"{uuid.uuid4().hex}@{name_process()}"


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


def list_holders(lake: Lake, recipe_id: str, now: datetime) -> list[str]:
    """List the living runs whose leases of images of a recipe have not expired."""
    found = lake.column("SELECT DISTINCT holder FROM leases WHERE recipe_id = ? AND expires_at > ?", [recipe_id, now])
    return [holder for holder in found if _find_state(holder) != "dead"]


@contextlib.contextmanager
def announce_rewriting(lake: Lake, now: datetime) -> Iterator[str]:
    """Hold a lease of no image while files of vectors are rewritten, so that no erasure ends meanwhile.

    Begin before the rows are read, and end after the new files are committed.
    """
    holder = name_holder()
    row = [holder, now + DURATION]
    lake.commit(lambda: lake.execute("INSERT INTO leases VALUES (NULL, NULL, NULL, ?, ?, NULL)", row))
    try:
        yield holder
    finally:
        end_leases(lake, holder)


@dataclass(frozen=True)
class LivingRuns:
    """The runs that may be alive: whether there are any, and the holders of those that may hold erased images."""

    any: bool
    erased: tuple[str, ...]


def find_living(lake: Lake, now: datetime) -> LivingRuns:
    """Find the runs with leases that may be alive, even if the lease of one on this machine has expired."""
    found = lake.rows("SELECT holder, expires_at, coalesce(erased, false) FROM leases ORDER BY holder")
    living = [(holder, erased) for holder, expires_at, erased in found if not _is_over(holder, expires_at, now)]
    return LivingRuns(bool(living), tuple(dict.fromkeys(holder for holder, erased in living if erased)))


def mark_erased(lake: Lake) -> None:
    """Mark every lease, within the transaction that erases the images in ``_doomed``; no end of a range names one."""
    lake.execute("UPDATE leases SET erased = true")
    for end, nearest, limit in (("first", "max(image_id)", FIRST_ID), ("last", "min(image_id)", LAST_ID)):
        for (image_id,) in lake.rows(f"SELECT DISTINCT {end} FROM leases WHERE {end} IN (FROM _doomed)"):
            beyond = f"image_id {'<' if end == 'first' else '>'} ? AND image_id NOT IN (FROM _doomed)"
            moved = lake.value(f"SELECT {nearest} FROM images WHERE {beyond}", [image_id])
            lake.execute(f"UPDATE leases SET {end} = ? WHERE {end} = ?", [moved or limit, image_id])


def _end_dead(lake: Lake, now: datetime) -> None:
    for holder, expires_at in lake.rows("SELECT holder, expires_at FROM leases"):
        if _is_over(holder, expires_at, now):
            drop_lease(lake, holder)


def _is_over(holder: str, expires_at: datetime, now: datetime) -> bool:
    """Return whether the run of a lease is dead; where that cannot be known, whether the lease has expired.

    A stopped process of this machine is alive: its expired lease blocks nobody, but it may hold an erased image.
    """
    state = _find_state(holder)
    return expires_at <= now if state == "unknown" else state == "dead"


def _find_state(holder: str) -> State:
    return find_state(holder.partition("@")[2])
