"""Features: what is missing, and how a shard of them is committed exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.checksums import seal
from storage.files import Scan
from storage.lake import Lake
from storage.vectors import Matrix, Shard, to_uuids, write_features


@dataclass(frozen=True)
class Pace:
    """What embedding an image costs, from the shards that were committed last."""

    images_per_second: float
    bytes_per_image: float


_MISSING = """image_id NOT IN (SELECT image_id FROM features WHERE recipe_id = $1)
  AND image_id NOT IN (SELECT image_id FROM failures WHERE recipe_id = $1 AND stage <> 'read' AND NOT $3)"""


def list_missing(lake: Lake, recipe_id: str, source: str, *, retry: bool = False) -> pa.Table:
    """List the images of a source that have no feature under a recipe; a pure read.

    Images that failed under the recipe are left out, unless they could not be read or ``retry`` asks for them.

    Returns:
        ``image_id`` and ``path``, one of its files, in the order of paths.
    """
    return lake.table(
        f"""SELECT image_id::VARCHAR AS image_id, min(path) AS path FROM files
            WHERE source = $2 AND image_id IS NOT NULL AND {_MISSING} GROUP BY image_id ORDER BY path""",
        [recipe_id, source, retry],
    )


def count_missing_after(lake: Lake, recipe_id: str | None, scan: Scan, *, retry: bool = False) -> dict[str, int]:
    """Count, by reason, the images that will have no feature once a scan is committed; a pure read.

    The reasons: ``new_image``, ``bytes_changed`` (of a known path), ``new_recipe``, ``unfinished`` (an earlier run did
    not come to it) and ``retry``.
    """
    with lake.lend(_listing=scan.listing.files, _reads=scan.reads):
        found = lake.rows(
            f"""WITH old AS (SELECT path, image_id FROM files WHERE source = $2),
                     kept AS (SELECT path, image_id FROM old JOIN _listing USING (path)
                              WHERE path NOT IN (SELECT path FROM _reads)),
                     new AS (SELECT path, image_id FROM _reads UNION ALL FROM kept)
                SELECT reason, count(*) FROM (
                  SELECT image_id, min(CASE
                    WHEN image_id IN (SELECT image_id FROM failures WHERE recipe_id = $1) THEN 'retry'
                    WHEN image_id IN (SELECT image_id FROM features) THEN 'new_recipe'
                    WHEN image_id IN (SELECT image_id FROM images) THEN 'unfinished'
                    WHEN path IN (SELECT path FROM old) THEN 'bytes_changed'
                    ELSE 'new_image' END) AS reason
                  FROM new WHERE image_id IS NOT NULL AND {_MISSING} GROUP BY image_id
                ) GROUP BY reason ORDER BY reason""",
            [recipe_id or "", scan.listing.source, retry],
        )
    return dict(found)


def count_features_after(lake: Lake, recipe_id: str | None, scan: Scan) -> int:
    """Count the images that have a feature already once a scan is committed; a pure read."""
    with lake.lend(_listing=scan.listing.files, _reads=scan.reads):
        return int(
            lake.value(
                """SELECT count(DISTINCT image_id) FROM (
                     SELECT image_id FROM _reads UNION ALL
                     SELECT image_id FROM files JOIN _listing USING (path)
                     WHERE source = $2 AND path NOT IN (SELECT path FROM _reads)
                   ) WHERE image_id IN (SELECT image_id FROM features WHERE recipe_id = $1)""",
                [recipe_id or "", scan.listing.source],
            )
        )


def count_failed(lake: Lake, recipe_id: str, source: str) -> int:
    """Count the files and images of a source that have no feature because of a recorded failure."""
    return int(
        lake.value(
            """SELECT count(*) FROM failures WHERE source = $1 AND recipe_id IS NULL OR recipe_id = $2
               AND image_id IN (SELECT image_id FROM files WHERE source = $1 AND image_id IS NOT NULL)""",
            [source, recipe_id],
        )
    )


def count_features(lake: Lake, recipe_id: str, source: str) -> int:
    """Count the images of a source that have a feature under a recipe."""
    return int(
        lake.value(
            """SELECT count(*) FROM features WHERE recipe_id = ?
               AND image_id IN (SELECT image_id FROM files WHERE source = ? AND image_id IS NOT NULL)""",
            [recipe_id, source],
        )
    )


def measure_pace(lake: Lake, recipe_id: str | None) -> Pace | None:
    """Average the last 20 shards of a recipe; before its first, take its canaries' pace, or any recipe's shards."""
    shards = """SELECT sum(images) / sum(seconds), sum(bytes) / sum(images) FROM (
                  FROM shards WHERE images > 0 AND ($1 IS NULL OR recipe_id = $1)
                  ORDER BY committed_at DESC LIMIT 20)"""
    canaries = """SELECT min(images_per_second), min(2 * dim) FROM canaries JOIN recipes USING (recipe_id)
                  WHERE recipe_id = $1"""
    for query, asked in ((shards, recipe_id or ""), (canaries, recipe_id), (shards, None)):
        found = lake.rows(query, [asked])
        if found[0][0]:
            return Pace(*found[0])
    return None


def commit_shard(lake: Lake, shard: Shard, now: datetime) -> int:
    """Add what is still missing of a shard's file, with its failures and its cost, in one transaction.

    Returns:
        How many features were added: fewer than the file has where another run was first.
    """
    return lake.commit(lambda: _write_shard(lake, shard, now))


def keep_known(lake: Lake, recipe_id: str, image_ids: Sequence[str]) -> set[str]:
    """Keep those images that have a feature under a recipe."""
    with lake.lend(_asked=pa.table({"image_id": to_uuids(image_ids)})):
        found = lake.rows(
            "SELECT image_id::VARCHAR FROM features WHERE recipe_id = ? AND image_id IN (SELECT image_id FROM _asked)",
            [recipe_id],
        )
    return {image_id for (image_id,) in found}


def read_features(lake: Lake, recipe_id: str, image_ids: Sequence[str]) -> Matrix:
    """Read the vectors of some images, in their order.

    Returns:
        [n, dim], float32, contiguous.

    Raises:
        KeyError: where an image has no feature under the recipe.
    """
    wanted = pa.table({"image_id": to_uuids(image_ids), "position": pa.array(np.arange(len(image_ids)))})
    with lake.lend(_wanted=wanted):
        found = lake.table(
            "SELECT position, vector FROM features JOIN _wanted USING (image_id) WHERE recipe_id = ?", [recipe_id]
        )
    if found.num_rows != len(image_ids):
        raise KeyError(f"{len(image_ids) - found.num_rows} images have no feature under recipe {recipe_id}")
    vectors = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: Matrix = np.empty((len(image_ids), len(vectors) // max(1, len(image_ids))), np.float32)
    matrix[found["position"].to_numpy()] = vectors.reshape(matrix.shape)
    return matrix


def _write_shard(lake: Lake, shard: Shard, now: datetime) -> int:
    file = _without_known(lake, shard.recipe_id, shard.file) if shard.file else None
    added, size = 0, 0
    if file:
        lake.execute("CALL ducklake_add_data_files('lake', 'features', ?)", [str(file)])
        seal(lake, file.relative_to(lake.home.data).as_posix(), now)
        added, size = int(pq.read_metadata(file).num_rows), file.stat().st_size
    _write_failures(lake, shard, now)
    row = [shard.recipe_id, added, len(shard.failures), shard.seconds, size, now]
    lake.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)", row)
    return added


def _without_known(lake: Lake, recipe_id: str, file: Path) -> Path | None:
    shard = pq.read_table(file)
    with lake.lend(_shard=shard.select(["image_id"])):
        known = lake.table(
            "SELECT image_id FROM features WHERE recipe_id = ? AND image_id IN (SELECT image_id FROM _shard)",
            [recipe_id],
        )
    if not known.num_rows:
        return file
    taken = set(known["image_id"].to_pylist())
    left = shard.filter(pa.array([image_id not in taken for image_id in shard["image_id"].to_pylist()]))
    if not left.num_rows:
        return None
    vectors = left["vector"].combine_chunks().flatten().to_numpy().reshape(left.num_rows, -1)
    return write_features(lake.home, recipe_id, [str(image_id) for image_id in left["image_id"].to_pylist()], vectors)


def _write_failures(lake: Lake, shard: Shard, now: datetime) -> None:
    failed = pa.table(
        {
            "image_id": to_uuids([failure.image_id for failure in shard.failures]),
            "path": pa.array([failure.path for failure in shard.failures], pa.string()),
            "stage": pa.array([failure.stage for failure in shard.failures], pa.string()),
            "reason": pa.array([failure.reason for failure in shard.failures], pa.string()),
        }
    )
    with lake.lend(_failed=failed):
        lake.execute(
            """DELETE FROM failures WHERE recipe_id = $1 AND (image_id IN (SELECT image_id FROM _failed)
                 OR image_id IN (SELECT image_id FROM features WHERE recipe_id = $1))""",
            [shard.recipe_id],
        )
        lake.execute(
            "INSERT INTO failures SELECT ?, path, image_id, ?, stage, reason, ? FROM _failed",
            [shard.source, shard.recipe_id, now],
        )
