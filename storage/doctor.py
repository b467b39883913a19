"""The doctor: whether the lake's catalog, files, rows and folders agree with one another. Needs no torch."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from shutil import rmtree

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.attach import read_lake
from storage.canonical import canonical, digest
from storage.catalog import DataFile, delete_files, find_orphans, list_live, list_lying
from storage.checksums import digest_file, name_live
from storage.data import open_file, reach
from storage.errors import LakeError
from storage.findings import Finding
from storage.lake import Lake
from storage.lost import drop_files
from storage.paths import Home
from storage.restore import find_rows, restore_rows
from storage.rows import CHECKS, RowCheck
from storage.trainings import head_path

DAY = timedelta(days=1)
AGAIN = "its rows leave the catalog, and the next run computes them"
BACKUP = "restore it from a backup"


@dataclass(frozen=True)
class LostHead:
    """A head whose file is gone; ``readable`` where its snapshot's features still are."""

    training_id: str
    label_set: str
    recipe_id: str
    snapshot: int
    settings: str
    readable: bool


def check_lake(lake: Lake, now: datetime) -> list[Finding]:
    """Check all that needs no backbone; rows are checked where their tables' files can be read."""
    files = list_live(lake)
    broken = list(_check_files(lake, files))
    tables = {file.table for file, _ in broken}
    found = [_report(lake, file, problem) for file, problem in broken]
    for check in CHECKS:
        if not tables & set(check.tables):
            found += _check_rows(lake, check, now)
    if all(finding.check != "file" for finding in found):
        found += [*_check_recipes(lake), *_check_backbones(lake), *_check_trained(lake, now)]
    return list(dict.fromkeys([*found, *_check_orphans(lake, now)]))


def check_pages(lake: Lake, table: str = "features") -> Iterator[Finding]:
    """Read every file of a table whole."""
    for file in list_live(lake):
        if file.table == table and (problem := _read_whole(lake.home, name_live(lake, file.path))):
            yield _report(lake, file, problem)


def list_lost_heads(lake: Lake) -> list[LostHead]:
    """List the heads whose file this home should have and has not."""
    if lake.home.catalog_url:  # a shared lake's heads lie in the home of the run that trained them
        return []
    heads = lake.rows(  # an erasure deletes what keeps vectors of its own
        """SELECT training_id, label_set, recipe_id, heads.snapshot, settings FROM heads
           WHERE NOT (contains(coalesce(settings, ''), '"chosen_head":"knn"')
                      AND trained_at < coalesce((SELECT max(erased_at) FROM erasures), '-infinity')) ORDER BY ALL"""
    )
    return [
        LostHead(training_id, label_set, recipe_id, at, settings, _can_read(lake.home, recipe_id, at))
        for training_id, label_set, recipe_id, at, settings in heads
        if not head_path(lake.home, training_id).is_file()
    ]


def _can_read(home: Home, recipe_id: str, at: int) -> bool:
    """Tell whether a recipe's features can be read as they were."""
    with contextlib.suppress(duckdb.Error, LakeError), read_lake(home, at) as lake:
        lake.rows("SELECT count(vector) FROM features WHERE recipe_id = ?", [recipe_id])
        return True
    return False


def _check_files(lake: Lake, files: Sequence[DataFile]) -> Iterator[tuple[DataFile, str]]:
    lying = {file.path: file.bytes for file in list_lying(lake)}
    sealed = {path: (size, sha) for path, size, sha in lake.rows("SELECT path, bytes, sha256 FROM checksums")}
    for file in files:
        if file.path not in lying:
            yield file, "is gone"
        elif lying[file.path] != file.bytes:
            yield file, f"has {lying[file.path]} bytes, not {file.bytes}"
        elif file.path in sealed and digest_file(lake.home, name_live(lake, file.path)) != sealed[file.path]:
            yield file, "has other bytes than were written"


def _report(lake: Lake, file: DataFile, problem: str) -> Finding:
    what = f"file {file.path} of {file.table}: {problem}"
    if file.table == "features":
        return Finding("file", what, AGAIN, partial(drop_files, lake, [file.path]))
    return Finding("file", what, BACKUP)


def _read_whole(home: Home, name: str) -> str | None:
    """Say what keeps a file from being read."""
    try:
        with reach(f"file {name}"), open_file(home, name) as opened:
            file = pq.ParquetFile(opened)
            for number in range(file.num_row_groups):
                file.read_row_group(number)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    return None


def _check_rows(lake: Lake, check: RowCheck, now: datetime) -> Iterator[Finding]:
    """Look for wrong rows; where a file of the table cannot be read, that is what is found."""
    try:
        found = check.find(lake, now)
    except duckdb.Error as error:
        broken = [finding for table in check.tables for finding in check_pages(lake, table)]
        if not broken:
            yield Finding("file", f"{check.table}: cannot be read: {' '.join(str(error).split())}", BACKUP)
        yield from broken
        return
    mend = partial(check.mend, lake, now)
    for what in found:
        yield Finding(check.name, what, check.repair, mend)


def _check_recipes(lake: Lake) -> Iterator[Finding]:
    for recipe_id, text in lake.rows("SELECT recipe_id, recipe FROM recipes ORDER BY ALL"):
        if not _is_of(text, recipe_id):
            repair = f"{BACKUP}, or delete its features and the recipe: their numbers cannot be explained"
            yield Finding("recipe", f"recipe {recipe_id}: its text is not what the id is the hash of", repair)


def _is_of(text: str, recipe_id: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return digest(value) == recipe_id and canonical(value) == text


def _check_backbones(lake: Lake) -> Iterator[Finding]:
    for recipe_id, weights in lake.rows("SELECT recipe_id, weights FROM recipes ORDER BY ALL"):
        folder = lake.home.backbones / recipe_id
        if not folder.is_dir():
            continue
        packed = [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("weights*")]
        text = folder / "recipe.json"
        if packed != [weights] or not text.is_file() or not _is_of(text.read_text(encoding="utf-8"), recipe_id):
            what = f"backbone {folder}: is not what its recipe names"
            yield Finding("backbone", what, "it is removed, and the next run packs it", partial(rmtree, folder))


def _check_trained(lake: Lake, now: datetime) -> Iterator[Finding]:
    """Look for features that a training names and that no run will compute, as their rows were dropped alone."""
    lacking = lake.rows(
        """SELECT h.recipe_id, h.snapshot, list(DISTINCT t.image_id::VARCHAR ORDER BY t.image_id::VARCHAR),
             list(DISTINCT t.image_id::VARCHAR) FILTER (t.image_id NOT IN
               (SELECT image_id FROM files WHERE image_id IS NOT NULL))
           FROM training_sets t JOIN heads h USING (training_id)
           WHERE NOT EXISTS (FROM features f WHERE f.recipe_id = h.recipe_id AND f.image_id = t.image_id)
           GROUP BY ALL ORDER BY ALL"""
    )
    for recipe_id, snapshot, image_ids, gone in lacking:
        kept = find_rows(lake, recipe_id, snapshot, image_ids)
        mend = partial(restore_rows, lake, recipe_id, snapshot, sorted(kept), now)
        for image_id in image_ids:
            what = f"feature of image {image_id}, recipe {recipe_id}: a training names it and it is not there"
            if image_id in kept:
                yield Finding("lost row", what, f"it is read from snapshot {snapshot}", mend)
            elif image_id in (gone or []):
                yield Finding("lost row", what, "restore the lake or the image from a backup")


def _check_orphans(lake: Lake, now: datetime) -> Iterator[Finding]:
    for orphan in find_orphans(lake, now - DAY):
        what = f"file {orphan.path}: no snapshot names it"
        yield Finding("orphan", what, "it is deleted", partial(delete_files, lake, [orphan.path]))
