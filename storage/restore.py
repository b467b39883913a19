"""Features whose rows were deleted, read again from an older snapshot."""

import contextlib
from collections.abc import Sequence
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage.checksums import is_sealed
from storage.features import add_missing
from storage.gather import INLINED, at_snapshot
from storage.lake import Lake
from storage.vectors import to_uuids, write_features


def find_rows(lake: Lake, recipe_id: str, at: int, image_ids: Sequence[str]) -> set[str]:
    """Find which features of some images a snapshot has; none where it has expired or its files are gone."""
    with contextlib.suppress(duckdb.Error):
        return {str(image_id) for image_id in _read_rows(lake, recipe_id, at, image_ids)["image_id"].to_pylist()}
    return set()


def restore_rows(lake: Lake, recipe_id: str, at: int, image_ids: Sequence[str], now: datetime) -> int:
    """Add features that a snapshot has and the lake has no more; gives how many."""
    rows = _read_rows(lake, recipe_id, at, image_ids)
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    ids = [str(image_id) for image_id in rows["image_id"].to_pylist()]
    file = write_features(lake.home, recipe_id, ids, vectors)
    return lake.commit(lambda: add_missing(lake, recipe_id, file, now))[0]


def _read_rows(lake: Lake, recipe_id: str, at: int, image_ids: Sequence[str]) -> pa.Table:
    """Read what is right of them: finite vectors of the right length, from files that are as they were sealed."""
    with lake.lend(_lost=pa.table({"image_id": to_uuids(image_ids)})):
        found = lake.table(
            f"""SELECT image_id, vector, filename FROM features{at_snapshot(at)} WHERE recipe_id = $1
                AND image_id IN (SELECT image_id FROM _lost) AND isfinite(list_sum(vector))
                AND len(vector) = (SELECT max(dim) FROM recipes WHERE recipe_id = $1)""",
            [recipe_id],
        )
    names = set(found["filename"].to_pylist())
    sound = [name for name in names if name.startswith(INLINED) or is_sealed(lake, name)]
    return found.filter(pc.is_in(found["filename"], pa.array(sound, pa.string())))
