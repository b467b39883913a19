"""Claiming shards: lease the next images that no run is embedding, and wait for those that another run has leased."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from storage.errors import FrostlineError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.features import measure_pace
from storage.tables.leases import RENEW_AFTER, Lease, end_leases, list_holders, name_holder, renew_lease, take_lease
from storage.tables.missing import FIRST_ID, FeatureRequest, list_missing

SHARD_SECONDS = 10
SMALLEST, LARGEST, DEFAULT = 64, 65_536, 512
"""Images per shard: the limits, and the number to use while the pace is unknown."""
POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


def claim(home: Home, wanted: FeatureRequest, size: int | None, holder: str, after: str = FIRST_ID) -> Lease | None:
    """Lease the next shard; wait for images that other runs have leased until they are done or the lease expires.

    Args:
        home: The lake's home.
        wanted: The features to compute.
        size: Images per shard; by default about ten seconds of work at the pace of the last shards.
        holder: The name that the lease is held under.
        after: The last image id of the previous shard.

    Returns:
        None if nothing is missing any more.
    """
    lease = _try_claim(home, wanted, size, holder, after)
    while lease is None and _wait_until_free(home, wanted):
        lease = _try_claim(home, wanted, size, holder, after)
    return lease


@contextlib.contextmanager
def release_on_error(home: Home) -> Iterator[str]:
    """Yield a name to hold leases under; if the block fails, end the leases that are still held."""
    holder = name_holder()
    try:
        yield holder
    except BaseException as error:
        try:
            with open_lake(home) as lake:
                end_leases(lake, holder)
        except FrostlineError as release_error:  # the first error matters more; the leases expire by themselves
            error.add_note(str(release_error))
        raise


def make_renewer(home: Home, holder: str) -> Callable[[int], None]:
    """Return a progress callback that renews a lease from time to time."""
    renewed = time.monotonic()

    def renew(_: int) -> None:
        nonlocal renewed
        if time.monotonic() - renewed > RENEW_AFTER.total_seconds():
            renewed = time.monotonic()
            with open_lake(home) as lake:
                renew_lease(lake, holder, datetime.now(UTC))

    return renew


def _try_claim(home: Home, wanted: FeatureRequest, size: int | None, holder: str, after: str) -> Lease | None:
    with open_lake(home) as lake:
        size = size or _choose_size(lake, wanted.recipe_id)
        return take_lease(lake, wanted, size, holder, datetime.now(UTC), after=after)


def _choose_size(lake: Lake, recipe_id: str) -> int:
    pace = measure_pace(lake, recipe_id)
    return min(LARGEST, max(SMALLEST, int(pace.images_per_second * SHARD_SECONDS))) if pace else DEFAULT


def _wait_until_free(home: Home, wanted: FeatureRequest) -> bool:
    """Wait until an image is free; return False if nothing is missing any more."""
    logged = False
    while True:
        now = datetime.now(UTC)
        with read_lake(home) as lake:
            missing = bool(list_missing(lake, wanted, 1))
            holders = list_holders(lake, wanted.recipe_id, now)
            free = bool(list_missing(lake, wanted, 1, free_at=now))
        if not missing or free or not holders:
            return missing
        if not logged:
            logger.info("waiting for the images that are being embedded by %s", ", ".join(holders))
            logged = True
        time.sleep(POLL_SECONDS)
