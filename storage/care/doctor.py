"""The doctor: check that the lake's catalog, files, rows and folders agree. Needs no torch."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from shutil import rmtree

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.artifacts.head_files import is_whole
from storage.care.erase import count_open, finish
from storage.care.lost_features import drop_files, find_rows, restore_rows
from storage.care.recipe_checks import check_recipes, is_of
from storage.care.row_checks import BACKUP, CHECKS, NO_RECORD, Finding, RowCheck
from storage.care.small_tables import copy_small_tables
from storage.errors import LakeError
from storage.lake.attach import read_lake
from storage.lake.checksums import digest_files, name_data_file
from storage.lake.ducklake_files import (
    DataFile,
    delete_files,
    find_orphans,
    list_deletes,
    list_live,
    list_ranges,
    list_stored_files,
)
from storage.lake.lake import Lake
from storage.lake.sqlite_catalog import quick_check
from storage.locations.home import Home
from storage.locations.parquet_files import explain_unreachable, open_file
from storage.plural import pluralize
from storage.progress import Progress, silent
from storage.tables.trainings import REMEMBERS_IMAGES, Training, evaluation_path, head_path, list_trainings

DAY = timedelta(days=1)
AGAIN = "its rows are dropped from the catalog, and the next run computes them again"
REPLACEABLE = {
    "features": AGAIN,
    "guard": "it is dropped from the catalog, and a new row is inserted",
    "leases": "it is dropped from the catalog; work in progress may be computed twice and is stored once",
    "checksums": "it is dropped from the catalog, and checksums of the existing files are taken again",
    "shards": "it is dropped from the catalog, and plan estimates durations again after the next run",
}
"""How a broken file is repaired, by its table; files of other tables cannot be replaced."""


def check_lake(lake: Lake, now: datetime, progress: Progress = silent) -> list[Finding]:
    """Run all checks that need no backbone. Rows are checked only in tables whose files can be read."""
    broken = list(_check_files(lake, progress))
    tables = {file.table for file, _ in broken}
    found = [*check_catalog(lake.home), *(_report(lake, file, problem) for file, problem in broken)]
    recipes = [] if "recipes" in tables else _run_check(lake, ("recipes",), partial(check_recipes, lake, now))
    checks = [check for check in CHECKS if not (tables | ({"recipes"} if recipes else set())) & set(check.tables)]
    with copy_small_tables(lake, {table for check in checks for table in check.tables}):
        for check in checks:
            found += _run_check(lake, check.tables, partial(_check_rows, lake, check, now))
    found += recipes
    if all(finding.check != "file" for finding in found):
        found += [*_check_guard(lake), *_check_erasures(lake, now), *_check_trained(lake, now)]
        found += [] if recipes else _check_backbones(lake)
    return list(dict.fromkeys([*found, *_check_orphans(lake, now)]))


def check_pages(lake: Lake, table: str = "features") -> Iterator[Finding]:
    """Read every file of a table completely, and compare it with the catalog."""
    ranges = list_ranges(lake)
    for file in list_live(lake):
        if file.table == table and (problem := _read_whole(lake, file, ranges.get(file.name))):
            yield _report(lake, file, problem)


def check_catalog(home: Home) -> Iterator[Finding]:
    """Let SQLite check the catalog file; a Postgres catalog is left to its server."""
    if home.catalog_url:
        return
    for problem in quick_check(home):
        if problem != "ok":
            yield Finding("catalog", f"file {home.catalog}: {' '.join(problem.split())}", BACKUP)


def list_lost_heads(lake: Lake) -> list[Training]:
    """List the trainings whose head is missing from this home, or broken."""
    if lake.home.catalog_url:  # heads of a shared lake are in the home of the run that trained them
        return []
    expected = f"""NOT {NO_RECORD} AND NOT ({REMEMBERS_IMAGES}
               AND trained_at < coalesce((SELECT max(erased_at) FROM erasures), '-infinity'))"""
    return [
        training
        for training in list_trainings(lake, expected)  # an erasure deletes heads that contain erased vectors
        if not (is_whole(head_path(lake.home, training.training_id)) and _is_as_written(lake.home, training))
    ]


def can_read(home: Home, training: Training) -> bool:
    """Return whether the features of a training can be read at its snapshot."""
    with contextlib.suppress(duckdb.Error, LakeError), read_lake(home, training.snapshot) as lake:
        lake.rows("SELECT count(vector) FROM features WHERE recipe_id = ?", [training.recipe_id])
        return True
    return False


def _is_as_written(home: Home, training: Training) -> bool:
    """Return whether a head matches the checksum in its evaluation; earlier releases recorded none."""
    try:
        text = evaluation_path(home, training.training_id).read_text(encoding="utf-8")
        recorded = json.loads(text).get("head_sha256")
    except (OSError, ValueError):
        return False
    return recorded in (None, hashlib.sha256(head_path(home, training.training_id).read_bytes()).hexdigest())


def _check_files(lake: Lake, progress: Progress) -> Iterator[tuple[DataFile, str]]:
    """Find live files that are missing or have changed, or whose delete file is or has."""
    sizes = {file.path: file.bytes for file in list_stored_files(lake)}
    live, whole = list_live(lake), list[DataFile]()
    for file in live:
        if problem := _compare_size(sizes, file):
            yield file, problem
        else:
            whole.append(file)
    by_path = {file.path: file for file in live}
    for deletes, of in list_deletes(lake).items():
        if problem := _compare_size(sizes, deletes):
            yield by_path[of], f"its list of deleted rows, {deletes.name}, {problem}"
    if sum(file.table == "checksums" for file in whole) == sum(file.table == "checksums" for file in live):
        yield from _check_sums(lake, whole, progress)


def _compare_size(sizes: Mapping[str, int], file: DataFile) -> str | None:
    if file.path not in sizes:
        return "is gone"
    return None if sizes[file.path] == file.bytes else f"has {pluralize(sizes[file.path], 'byte')}, not {file.bytes:,}"


def _check_sums(lake: Lake, files: Sequence[DataFile], progress: Progress) -> Iterator[tuple[DataFile, str]]:
    recorded = {path: (size, sha) for path, size, sha in lake.rows("SELECT path, bytes, sha256 FROM checksums")}
    digests = digest_files(lake, [file.path for file in files if file.path in recorded], progress)
    for file in files:
        if file.path in digests and digests[file.path] != recorded[file.path]:
            yield file, "has other bytes than were written"


def _report(lake: Lake, file: DataFile, problem: str) -> Finding:
    what = f"file {file.path} of {file.table}: {problem}"
    if file.table in REPLACEABLE:
        return Finding("file", what, REPLACEABLE[file.table], partial(drop_files, lake, [file.path]))
    return Finding("file", what, BACKUP)


def _read_whole(lake: Lake, file: DataFile, ends: tuple[str, str] | None) -> str | None:
    """Return what is wrong with a file: unreadable, or different from its entry in the catalog. None if nothing."""
    name = name_data_file(lake, file.path)
    try:
        with explain_unreachable(f"file {name}"), open_file(lake.home, name) as opened:
            parquet = pq.ParquetFile(opened)
            groups = [parquet.read_row_group(number) for number in range(parquet.num_row_groups)]
            ids = [str(image_id) for group in groups if ends for image_id in group["image_id"].to_pylist()]
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    if parquet.metadata.num_rows != file.rows:
        return f"has {pluralize(parquet.metadata.num_rows, 'row')}, the catalog says {file.rows:,}"
    if ends and ids and not ends[0] <= min(ids) <= max(ids) <= ends[1]:
        return f"has images from {min(ids)} to {max(ids)}, the catalog says {' to '.join(ends)}"
    return None


def _check_rows(lake: Lake, check: RowCheck, now: datetime) -> Iterator[Finding]:
    fix = partial(check.fix, lake, now) if check.fixable else None
    for what in check.find(lake, now):
        yield Finding(check.name, what, check.repair, fix)


def _run_check(lake: Lake, tables: Sequence[str], check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run a check of rows; if a file of the tables cannot be read, report that instead."""
    try:
        return list(check())
    except duckdb.Error as error:
        broken = [finding for table in tables for finding in check_pages(lake, table)]
        reason = " ".join(str(error).split())
        return broken or [Finding("file", f"{' or '.join(tables)}: cannot be read: {reason}", BACKUP)]


def _check_guard(lake: Lake) -> Iterator[Finding]:
    count = lake.value("SELECT count(*) FROM guard")
    if count != 1:
        what = f"table guard: has {pluralize(count, 'row')} instead of the one that makes concurrent commits conflict"
        yield Finding("guard", what, "one row is inserted", partial(_reset_guard, lake))


def _reset_guard(lake: Lake) -> None:
    def write() -> None:
        lake.execute("DELETE FROM guard")
        lake.execute("INSERT INTO guard VALUES (0)")

    lake.commit(write)


def _check_backbones(lake: Lake) -> Iterator[Finding]:
    for recipe_id, weights in lake.rows("SELECT recipe_id, weights FROM recipes ORDER BY ALL"):
        folder = lake.home.backbones / recipe_id
        if not folder.is_dir():
            continue
        packed = [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("weights*")]
        text = folder / "recipe.json"
        if packed != [weights] or not text.is_file() or not is_of(text.read_text(encoding="utf-8"), recipe_id):
            what = f"backbone {folder}: does not match its recipe"
            yield Finding("backbone", what, "it is removed, and the next run packs it", partial(rmtree, folder))


def _check_trained(lake: Lake, now: datetime) -> Iterator[Finding]:
    """Find features that a training used and that are missing, although no run would compute them again."""
    missing = lake.rows(
        """SELECT h.recipe_id, h.snapshot, list(DISTINCT t.image_id::VARCHAR ORDER BY t.image_id::VARCHAR),
             list(DISTINCT t.image_id::VARCHAR) FILTER (t.image_id NOT IN
               (SELECT image_id FROM files WHERE image_id IS NOT NULL))
           FROM training_sets t JOIN heads h USING (training_id)
           WHERE NOT EXISTS (FROM features f WHERE f.recipe_id = h.recipe_id AND f.image_id = t.image_id)
           GROUP BY ALL ORDER BY ALL"""
    )
    for recipe_id, snapshot, image_ids, gone in missing:
        restorable = find_rows(lake, recipe_id, snapshot, image_ids)
        fix = partial(restore_rows, lake, recipe_id, snapshot, sorted(restorable), now)
        for image_id in image_ids:
            what = f"feature of image {image_id}, recipe {recipe_id}: is missing, and a training used it"
            if image_id in restorable:
                yield Finding("lost row", what, f"it is read from snapshot {snapshot}", fix)
            elif image_id in (gone or []):
                yield Finding("lost row", what, "restore the lake or the image from a backup")


def _check_erasures(lake: Lake, now: datetime) -> Iterator[Finding]:
    if count := count_open(lake):
        what = f"{pluralize(count, 'erasure')}: unfinished, since a run or a file may still hold an erased image"
        yield Finding("erasure", what, "it is finished, once no run holds one", partial(finish, lake.home, now))


def _check_orphans(lake: Lake, now: datetime) -> Iterator[Finding]:
    for orphan in find_orphans(lake, now - DAY):
        what = f"file {orphan.path}: belongs to no snapshot"
        yield Finding("orphan", what, "it is deleted", partial(delete_files, lake, [orphan.path]))
