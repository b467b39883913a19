"""Erasure: images out of every table, every snapshot, every Parquet file, and the catalog's own pages.

The order: delete, rewrite what is left, forget every older snapshot, delete the files that only they read.
"""

import json
import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from storage.catalog import META, delete_files, find_orphans, list_live
from storage.compaction import merge_tables, prepare_deletes, rewrite_features
from storage.data import open_data
from storage.errors import LakeError
from storage.expiry import delete_unread, forget
from storage.lake import Lake
from storage.vectors import to_uuids

_KNOWN = """SELECT image_id, f.source, f.path, l.label_set, l.class FROM images
            LEFT JOIN files f USING (image_id) LEFT JOIN labels l USING (image_id)"""
_ASKED = "image_id IN (SELECT image_id FROM _erased)"
MENTIONS = {
    "canaries": "probe IN (SELECT image_id::VARCHAR FROM _erased)",
    "leases": "first IN (FROM _erased) OR last IN (FROM _erased)",
}
"""Where tables without an image_id name images."""


@dataclass(frozen=True)
class Trained:
    """A model version that was trained on an erased image, and the source from which to train it again."""

    name: str
    version: int
    label_set: str

    @property
    def retrain(self) -> str:
        """The command that trains and registers it anew, without the erased images."""
        return f"frostline run FOLDER --name '{self.label_set}'"


@dataclass(frozen=True)
class Erased:
    """What an erasure takes: images, rows of all tables, and the names of snapshots that go with it."""

    images: int
    rows: dict[str, int]
    models: tuple[Trained, ...]
    tags: tuple[tuple[str, int], ...]
    snapshots: int


def find_images(lake: Lake, images: Sequence[str], source: str | None, where: str | None) -> list[str]:
    """Find the images that are named, that lie in a source, or of which a condition holds.

    Raises:
        LakeError: where an id is none, or none is asked for.
        QueryError: where the condition is no SQL.
    """
    asked = [_to_id(image) for image in images]
    if source is not None:
        found = lake.rows("SELECT DISTINCT image_id::VARCHAR FROM files WHERE source = ?", [source])
        asked += [image for (image,) in found if image]
    if where is not None:
        asked += [
            image for (image,) in lake.read(f"SELECT DISTINCT image_id::VARCHAR FROM ({_KNOWN}) WHERE {where}")[1]
        ]
    if not (images or source or where):
        raise LakeError("erase", "needs to know what", "Name image ids, or --source NAME, or --where SQL")
    return sorted(set(asked))


def foresee(lake: Lake, images: Sequence[str]) -> Erased:
    """Count what erasing these images takes; writes nothing."""
    with lake.lend(_erased=pa.table({"image_id": to_uuids(images)})):
        rows = {
            table: int(lake.value(f"SELECT count(*) FROM {table} WHERE {condition}"))
            for table, condition in _where(lake)
        }
        models = lake.rows(
            f"""SELECT DISTINCT m.name, m.version, h.label_set FROM models m JOIN heads h USING (training_id)
                WHERE training_id IN (SELECT training_id FROM training_sets WHERE {_ASKED}) ORDER BY ALL"""
        )
    return Erased(
        len(images),
        {table: count for table, count in rows.items() if count},
        tuple(Trained(*model) for model in models),
        tuple((tag, snapshot) for tag, snapshot in lake.rows("SELECT tag, snapshot FROM tags ORDER BY ALL")),
        int(lake.value("SELECT count(*) FROM ducklake_snapshots('lake')")),
    )


def erase(lake: Lake, images: Sequence[str], asked: str, now: datetime) -> Erased:
    """Erase images from all that the lake is and was; gives what it took.

    All earlier snapshots are forgotten, the tagged ones too. Broken off, it goes on when it is called again.

    Args:
        lake: The lake, open for writing.
        images: Their ids.
        asked: Kind of the request, for the audit: images, source or condition.
        now: The present.
    """
    prepare_deletes(lake)
    taken = foresee(lake, images)
    with lake.lend(_erased=pa.table({"image_id": to_uuids(images)})):
        _rewrite_vectors(lake, now)
        lake.commit(lambda: _delete_rows(lake, taken, asked, now))
    merge_tables(lake, 0.0, least=0)
    _forget_history(lake, now)
    _delete_leavings(lake, images, now)
    _scrub(lake)
    return taken


def _where(lake: Lake) -> list[tuple[str, str]]:
    """List each table that may name an image, with the condition on its rows."""
    found = lake.rows(
        """SELECT table_name FROM duckdb_columns() WHERE database_name = 'lake' AND column_name = 'image_id'
           AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake') ORDER BY ALL"""
    )
    in_failures = f"{_ASKED} OR (source, path) IN (SELECT (source, path) FROM files WHERE {_ASKED})"
    conditions = {table: _ASKED for (table,) in found} | {"failures": in_failures} | MENTIONS
    return sorted(conditions.items(), key=lambda part: (part[0] in ("files", "images"), part[0]))


def _rewrite_vectors(lake: Lake, now: datetime) -> None:
    """Write the files that have an erased image's vector without it."""
    found = lake.rows(f"SELECT DISTINCT parse_filename(filename) FROM features WHERE {_ASKED}")
    touched = {name for (name,) in found}
    for file in list_live(lake):
        if file.table == "features" and (file.name in touched or file.deleted):
            rewrite_features(lake, [file], f"NOT ({_ASKED})", now)


def _delete_rows(lake: Lake, taken: Erased, asked: str, now: datetime) -> None:
    for table, condition in _where(lake):
        lake.execute(f"DELETE FROM {table} WHERE {condition}")
    lake.execute("DELETE FROM tags")
    models = json.dumps([[model.name, model.version] for model in taken.models])
    row = [str(uuid.uuid4()), asked, taken.images, sum(taken.rows.values()), models, now]
    lake.execute("INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?)", row)


def _forget_history(lake: Lake, now: datetime) -> None:
    """Forget every snapshot but the newest, and delete the files that only they read."""

    def write() -> None:
        found = lake.rows("SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY ALL")
        forget(lake, [snapshot for (snapshot,) in found[:-1]])

    for _ in range(2):  # the first leaves the snapshot before its own
        lake.commit(write)
    delete_unread(lake, now + timedelta(days=1))


def _delete_leavings(lake: Lake, images: Sequence[str], now: datetime) -> None:
    """Delete files of killed runs that hold one of the images, or cannot be read."""
    erased = {uuid.UUID(image) for image in images}
    for orphan in find_orphans(lake, now + timedelta(days=1)):
        try:
            held = set(_read_ids(lake, orphan.path))
        except (pa.ArrowInvalid, KeyError):  # broken off: nobody can say what it holds
            held = erased
        if held & erased:
            delete_files(lake, [orphan.path])


def _read_ids(lake: Lake, path: str) -> list[uuid.UUID]:
    system, folder = open_data(lake.home)
    with system.open_input_file(f"{folder}/{path}") as file:
        found: list[uuid.UUID] = pq.ParquetFile(file).read(columns=["image_id"])["image_id"].to_pylist()
    return found


def _scrub(lake: Lake) -> None:
    """Remove what the catalog itself remembers: each table's least and greatest values, and freed pages."""
    forget_bounds = f"UPDATE {META}.ducklake_table_column_stats SET min_value = NULL, max_value = NULL"
    lake.commit(lambda: lake.execute(forget_bounds), guarded=False)
    if lake.home.catalog_url is None:
        with closing(sqlite3.connect(lake.home.catalog, timeout=60)) as catalog:
            catalog.execute("VACUUM")
            catalog.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _to_id(image: str) -> str:
    try:
        return str(uuid.UUID(image))
    except ValueError as error:
        raise LakeError(f"image {image!r}", "is no image_id", "See `frostline sql 'from files'`") from error
