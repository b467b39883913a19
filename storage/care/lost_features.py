"""Lost features: drop the files that are missing or damaged from the catalog, restore rows that an old snapshot has.

DuckLake has to open a file in order to delete rows of it. A lost file is therefore dropped from the catalog like one
whose rows were all deleted: a new snapshot ends it (DuckLake's specification, "Delete"). Older snapshots still refer to
it, and reading them still fails.
"""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake.checksums import matches_checksum
from storage.lake.ducklake_files import META
from storage.lake.lake import Lake
from storage.tables.features import add_rows
from storage.tables.leases import announce_rewriting
from storage.vectors.feature_file import to_uuids, write_rows
from storage.vectors.gather import INLINED, at_snapshot


def drop_files(lake: Lake, paths: Sequence[str]) -> int:
    """Drop files, given by their paths below the data folder, with all their rows from the catalog; opens none of them.

    Returns:
        The number of files that were live.

    Raises:
        LakeError: if the lake cannot be written.
    """
    names = [path.rpartition("/")[2] for path in paths]

    def write() -> int:
        live = lake.rows(
            f"""SELECT data_file_id, table_id FROM {META}.ducklake_data_file
                WHERE end_snapshot IS NULL AND parse_filename(path) IN (SELECT unnest(?))""",
            [names],
        )
        if live:
            _end_files(lake, [file for file, _ in live], {table for _, table in live})
        return len(live)

    return lake.commit(write, guarded=False)


def find_rows(lake: Lake, recipe_id: str, at: int, image_ids: Sequence[str]) -> set[str]:
    """Find which of some images have a feature at a snapshot; none if it has expired or its files are gone."""
    with contextlib.suppress(duckdb.Error):
        return {str(image_id) for image_id in _read_rows(lake, recipe_id, at, image_ids)["image_id"].to_pylist()}
    return set()


def restore_rows(lake: Lake, recipe_id: str, at: int, image_ids: Sequence[str], now: datetime) -> int:
    """Add features that only an old snapshot has; returns their number."""
    with announce_rewriting(lake, now):
        rows = _read_rows(lake, recipe_id, at, image_ids)
        return add_rows(lake, recipe_id, write_rows(lake.home, recipe_id, rows), now) if rows.num_rows else 0


def _end_files(lake: Lake, files: Sequence[int], tables: set[int]) -> None:
    """Insert the snapshot that ends the files. Its number is unique, so that a lost race conflicts."""
    last = int(lake.value(f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot"))
    lake.execute(
        f"""INSERT INTO {META}.ducklake_snapshot
              (snapshot_id, snapshot_time, schema_version, next_catalog_id, next_file_id)
            SELECT ?, ?, schema_version, next_catalog_id, next_file_id FROM {META}.ducklake_snapshot
            WHERE snapshot_id = ?""",
        [last + 1, datetime.now(UTC), last],
    )
    changes = ",".join(f"deleted_from_table:{table}" for table in sorted(tables))
    sql = f"INSERT INTO {META}.ducklake_snapshot_changes (snapshot_id, changes_made) VALUES (?, ?)"
    lake.execute(sql, [last + 1, changes])
    for table in ("data_file", "delete_file"):
        lake.execute(
            f"""UPDATE {META}.ducklake_{table} SET end_snapshot = ?
                WHERE end_snapshot IS NULL AND data_file_id IN ({", ".join(map(str, files))})""",
            [last + 1],
        )


def _read_rows(lake: Lake, recipe_id: str, at: int, image_ids: Sequence[str]) -> pa.Table:
    """Read the intact rows: finite vectors of the right length, from files that match their checksum."""
    with lake.temporary_tables(_lost=pa.table({"image_id": to_uuids(image_ids)})):
        found = lake.table(
            f"""SELECT image_id, vector, filename FROM features{at_snapshot(at)} WHERE recipe_id = $1
                AND image_id IN (SELECT image_id FROM _lost) AND isfinite(list_sum(vector))
                AND len(vector) = (SELECT max(dim) FROM recipes WHERE recipe_id = $1)""",
            [recipe_id],
        )
    names = set(found["filename"].to_pylist())
    intact = [name for name in names if name.startswith(INLINED) or matches_checksum(lake, name)]
    return found.filter(pc.is_in(found["filename"], pa.array(intact, pa.string())))
