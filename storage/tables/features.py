"""The features table: read vectors, and commit shards of them exactly once."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.lake.checksums import digest_file, record_checksum
from storage.lake.ducklake_files import delete_unnamed
from storage.lake.erased import list_survivors
from storage.lake.lake import Lake
from storage.locations.parquet_files import open_file
from storage.names import SourceName
from storage.plural import pluralize
from storage.tables.leases import drop_lease
from storage.vectors.feature_file import Matrix, Shard, to_uuids, write_rows
from storage.vectors.gather import gather_vectors, locate_rows


@dataclass(frozen=True)
class Pace:
    """What embedding an image costs, averaged over the last shards."""

    images_per_second: float
    bytes_per_image: float


def count_failed(lake: Lake, recipe_id: str, source: SourceName) -> int:
    """Count the files and images of a source that have no feature because of a recorded failure."""
    scanned = int(lake.value("SELECT count(*) FROM failures WHERE source = ? AND recipe_id IS NULL", [source]))
    if not lake.value("SELECT count(*) FROM failures WHERE recipe_id = ?", [recipe_id]):
        return scanned
    embedded = """SELECT count(DISTINCT image_id) FROM files WHERE source = $1
                  AND image_id IN (SELECT image_id FROM failures WHERE recipe_id = $2)"""
    return scanned + int(lake.value(embedded, [source, recipe_id]))


def measure_pace(lake: Lake, recipe_id: str | None) -> Pace | None:
    """Average the last 20 shards of a recipe; else take its canaries, or any recipe's shards."""
    shards = """SELECT sum(images) / sum(seconds), sum(bytes) / sum(images) FROM (
                  FROM shards WHERE images > 0 AND ($1 IS NULL OR recipe_id = $1)
                  ORDER BY committed_at DESC LIMIT 20)"""
    canaries = """SELECT min(images_per_second), min(2 * dim) FROM canaries JOIN recipes USING (recipe_id)
                  WHERE recipe_id = $1"""
    for query, parameter in ((shards, recipe_id or ""), (canaries, recipe_id), (shards, None)):
        found = lake.rows(query, [parameter])
        if found[0][0]:
            return Pace(*found[0])
    return None


def commit_shard(lake: Lake, shard: Shard, now: datetime, holder: str = "") -> int:
    """Add the features of a shard that are still missing, with its failures and its cost, in one transaction.

    Images that were erased meanwhile are left out. The same transaction ends the holder's lease of the shard. A file of
    which only some rows were added is deleted: the others may be of erased images.

    Returns:
        The number of features added: fewer than the file has if another run was first.
    """
    digest = digest_file(lake.home, shard.file) if shard.file else None
    written = [shard.file] if shard.file else []
    added = lake.commit(lambda: _write_shard(lake, shard, digest, now, holder, written))
    if written and (len(written) > 1 or not added):
        delete_unnamed(lake, written)
    return added


def filter_known(lake: Lake, recipe_id: str, image_ids: Sequence[str]) -> set[str]:
    """Return those images that have a feature under a recipe."""
    with lake.temporary_tables(_asked=pa.table({"image_id": to_uuids(image_ids)})):
        found = lake.column(
            "SELECT image_id::VARCHAR FROM features WHERE recipe_id = ? AND image_id IN (SELECT image_id FROM _asked)",
            [recipe_id],
        )
    return set(found)


def read_features(lake: Lake, recipe_id: str, image_ids: Sequence[str]) -> Matrix:
    """Read the vectors of some images, in their order.

    Returns:
        [n, dim], float32, contiguous.

    Raises:
        KeyError: if an image has no feature under the recipe.
    """
    if not len(image_ids):
        return np.empty((0, 0), np.float32)
    wanted = pa.table({"image_id": to_uuids(image_ids), "position": pa.array(np.arange(len(image_ids)))})
    with lake.temporary_tables(_wanted=wanted):
        _, pieces = locate_rows(
            lake,
            """SELECT image_id, filename, file_row_number, position FROM features JOIN _wanted USING (image_id)
               WHERE recipe_id = ?""",
            [recipe_id],
        )
    found = sum(len(piece.rows) for piece in pieces)
    if found != len(image_ids):
        images = pluralize(len(image_ids) - found, "image has", "images have")
        raise KeyError(f"{images} no feature under recipe {recipe_id}")
    dim = int(lake.value("SELECT len(vector) FROM features WHERE recipe_id = ? LIMIT 1", [recipe_id]))
    return gather_vectors(lake, None, pieces, dim)


def add_views(lake: Lake, own: Matrix, views: Sequence[str], image_ids: Sequence[str]) -> Matrix:
    """Append the vectors of views to the images' own [n, dim]; the own vector stands in for a view that failed.

    Returns:
        [n, (1 + views) * dim].
    """
    columns = [own]
    for view in views:
        present = filter_known(lake, view, image_ids)
        rows = [row for row, image_id in enumerate(image_ids) if image_id in present]
        column = own.copy()
        if rows:
            column[rows] = read_features(lake, view, [image_ids[row] for row in rows])
        columns.append(column)
    return np.hstack(columns)


def add_file(lake: Lake, file: str, now: datetime, digest: tuple[int, str] | None = None) -> None:
    """Add a file of features to the lake, within a transaction. ``digest`` saves hashing it again."""
    record_checksum(lake, file, digest or digest_file(lake.home, file), now)
    lake.execute("CALL ducklake_add_data_files('lake', 'features', ?)", [file])


def add_rows(lake: Lake, recipe_id: str, file: str, now: datetime, prepare: Callable[[], object] = lambda: None) -> int:
    """Commit those rows of a file of features that the lake lacks, and delete the file if those are not all.

    ``prepare`` writes to the lake first, in the same transaction.

    Returns:
        The number of rows added.
    """
    written = [file]

    def write() -> int:
        prepare()
        return _add_missing(lake, recipe_id, file, now, None, written)[0]

    added = lake.commit(write)
    delete_unnamed(lake, written)
    return added


def _add_missing(
    lake: Lake, recipe_id: str, file: str, now: datetime, digest: tuple[int, str] | None, written: list[str]
) -> tuple[int, int]:
    """Add those rows of a file of features that the lake lacks, within a transaction; returns rows and bytes added.

    ``written`` receives the file that is made of them, if those are not all.
    """
    new = _without_present(lake, recipe_id, file, _read_ids(lake, file))
    if new is None:
        return 0, 0
    if new != file:
        written.append(new)
    add_file(lake, new, now, digest if new == file else None)
    with open_file(lake.home, new) as opened:
        return int(pq.read_metadata(opened).num_rows), int(opened.size())


def _write_shard(
    lake: Lake, shard: Shard, digest: tuple[int, str] | None, now: datetime, holder: str, written: list[str]
) -> int:
    added, size = _add_missing(lake, shard.recipe_id, shard.file, now, digest, written) if shard.file else (0, 0)
    _write_failures(lake, shard, _read_ids(lake, shard.file) if shard.file else to_uuids([]), now)
    row = [shard.recipe_id, added, len(shard.failures), shard.seconds, size, now]
    lake.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)", row)
    if holder:
        drop_lease(lake, holder)
    return added


def _read_ids(lake: Lake, file: str) -> pa.Array:
    with open_file(lake.home, file) as opened:
        return pq.read_table(opened, columns=["image_id"])["image_id"].combine_chunks()


# A shard is a range of ids. Given its ends, the catalog finds the few files that can contain any of them.
_IN_RANGE = "SELECT image_id FROM features WHERE recipe_id = $1 AND image_id BETWEEN $2::UUID AND $3::UUID"

# An expression, since for a plain column DuckLake would read the statistics of every file of the lake.
_OF_RECIPE = "concat(recipe_id) = $1"


def _without_present(lake: Lake, recipe_id: str, file: str, ids: pa.Array) -> str | None:
    with lake.temporary_tables(_shard=pa.table({"image_id": ids})):
        sql = f"{_IN_RANGE} AND image_id IN (SELECT image_id FROM _shard)"
        present = lake.table(sql, [recipe_id, *_find_ends(ids)])
        excluded = set(present["image_id"].to_pylist())
        erased = lake.table(f"SELECT image_id FROM _shard WHERE NOT ({list_survivors(lake)})")
        excluded |= set(erased["image_id"].to_pylist())
    if not excluded:
        return file
    with open_file(lake.home, file) as opened:
        left = pq.read_table(opened).filter(pa.array([image_id not in excluded for image_id in ids.to_pylist()]))
    return write_rows(lake.home, recipe_id, left) if left.num_rows else None


def _find_ends(ids: pa.Array) -> tuple[str, str]:
    """Return the smallest and the largest of some ids in SQL order, which is that of their bytes."""
    raw = ids.storage.to_pylist()
    return str(uuid.UUID(bytes=min(raw))), str(uuid.UUID(bytes=max(raw)))


def _write_failures(lake: Lake, shard: Shard, ids: pa.Array, now: datetime) -> None:
    recorded = f"SELECT 1 FROM failures WHERE {_OF_RECIPE} LIMIT 1"
    if not shard.failures and not (len(ids) and lake.rows(recorded, [shard.recipe_id])):
        return
    failed = pa.table(
        {
            "image_id": to_uuids([failure.image_id for failure in shard.failures]),
            "path": pa.array([failure.path for failure in shard.failures], pa.string()),
            "stage": pa.array([failure.stage for failure in shard.failures], pa.string()),
            "reason": pa.array([failure.reason for failure in shard.failures], pa.string()),
        }
    )
    ends = _find_ends(pa.concat_arrays([ids, failed["image_id"].combine_chunks()]))
    kept = list_survivors(lake)
    with lake.temporary_tables(_failed=failed):
        lake.execute(
            f"""DELETE FROM failures WHERE {_OF_RECIPE}
                AND (image_id IN (SELECT image_id FROM _failed) OR image_id IN ({_IN_RANGE}))""",
            [shard.recipe_id, *ends],
        )
        lake.execute(
            f"INSERT INTO failures SELECT ?, path, image_id, ?, stage, reason, ? FROM _failed WHERE {kept}",
            [shard.source, shard.recipe_id, now],
        )
