"""Erased images: the lake does not record which they were, so any image that it no longer has counts as one.

Whatever a run computed from an image is filtered by this in the transaction that inserts it: the image may have been
erased since the run read it.
"""

from storage.lake.lake import Lake


def count_erasures(lake: Lake) -> int:
    """Count the erasures, finished or not."""
    return int(lake.value("SELECT count(*) FROM erasures"))


def list_survivors(lake: Lake, column: str = "image_id") -> str:
    """Return the SQL condition that an image was not erased; in a lake without erasures it costs nothing."""
    return f"{column} IN (SELECT image_id FROM images)" if count_erasures(lake) else "true"
