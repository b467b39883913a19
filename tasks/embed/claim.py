"""Claiming shards: the next images that nobody embeds, waiting for those that another run holds."""

import contextlib
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from storage.errors import FrostlineError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.progress import Advance
from storage.tables.features import measure_pace
from storage.tables.leases import RENEW_AFTER, Lease, end_leases, list_holders, name_holder, renew_lease, take_lease
from storage.tables.missing import FIRST_ID, FeatureRequest, list_missing

SECONDS_A_SHARD = 30
SMALLEST, LARGEST, UNKNOWN = 64, 8192, 512
PAUSE = 0.5

logger = logging.getLogger(__name__)


def claim(home: Home, wanted: FeatureRequest, shard: int | None, holder: str, after: str = FIRST_ID) -> Lease | None:
    """Take the next shard, by default about half a minute of work at the pace of the last ones.

    What other runs hold is waited for: they finish it, or their lease ends.

    Returns:
        None where nothing is missing any more.
    """
    lease = _try(home, wanted, shard, holder, after)
    while lease is None and _wait(home, wanted):
        lease = _try(home, wanted, shard, holder, after)
    return lease


@contextlib.contextmanager
def hold_leases(home: Home) -> Iterator[str]:
    """Give a name under which to lease; what it still holds when the block fails is free again."""
    holder = name_holder()
    try:
        yield holder
    except BaseException as error:
        try:
            with open_lake(home) as lake:
                end_leases(lake, holder)
        except FrostlineError as another:  # the first one is what to mend; the lease expires by itself
            error.add_note(str(another))
        raise


def keep_alive(home: Home, holder: str, advance: Advance) -> Advance:
    """Renew the lease from time to time as work advances; a run that hangs loses it."""
    renewed = time.monotonic()

    def advance_and_renew(done: int) -> None:
        nonlocal renewed
        advance(done)
        if time.monotonic() - renewed > RENEW_AFTER.total_seconds():
            renewed = time.monotonic()
            with open_lake(home) as lake:
                renew_lease(lake, holder, datetime.now(UTC))

    return advance_and_renew


def _try(home: Home, wanted: FeatureRequest, shard: int | None, holder: str, after: str) -> Lease | None:
    with open_lake(home) as lake:
        size = shard or _size(lake, wanted.recipe_id)
        return take_lease(lake, wanted, size, holder, datetime.now(UTC), after=after)


def _size(lake: Lake, recipe_id: str) -> int:
    pace = measure_pace(lake, recipe_id)
    return min(LARGEST, max(SMALLEST, int(pace.images_per_second * SECONDS_A_SHARD))) if pace else UNKNOWN


def _wait(home: Home, wanted: FeatureRequest) -> bool:
    """Wait until something is free again; False where nothing is missing."""
    said = False
    while True:
        now = datetime.now(UTC)
        with read_lake(home) as lake:
            missing = bool(list_missing(lake, wanted, 1))
            holders = list_holders(lake, wanted.recipe_id, now)
            free = bool(list_missing(lake, wanted, 1, free_at=now))
        if not missing or free or not holders:
            return missing
        if not said:
            logger.info("waiting for the images that %s embeds", ", ".join(holders))
            said = True
        time.sleep(PAUSE)
