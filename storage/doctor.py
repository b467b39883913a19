"""The doctor: whether the lake's rows, files and folders agree with one another. Needs no torch."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from storage.canonical import canonical, digest
from storage.catalog import META, DataFile, delete_files, find_orphans, list_live, list_lying
from storage.checksums import digest_file, seal
from storage.compaction import prepare_deletes
from storage.findings import Finding
from storage.lake import Lake
from storage.trainings import head_path

DAY = timedelta(days=1)
AGAIN = "its rows are removed, and the next run computes them again"
REMOVED = "the row is removed"
_UNKNOWN_IMAGE = "image_id IS NOT NULL AND image_id NOT IN (SELECT image_id FROM images)"
_AGAIN = "rowid NOT IN (SELECT min(rowid) FROM features GROUP BY recipe_id, image_id)"
_LENGTH = "len(vector) <> (SELECT any_value(dim) FROM recipes r WHERE r.recipe_id = features.recipe_id)"
ROWS = (
    ("foreign image", "features", _UNKNOWN_IMAGE, "belongs to no image"),
    ("foreign image", "labels", _UNKNOWN_IMAGE, "belongs to no image"),
    ("foreign image", "files", _UNKNOWN_IMAGE, "belongs to no image"),
    ("foreign image", "training_sets", _UNKNOWN_IMAGE, "belongs to no image"),
    ("foreign image", "predictions", _UNKNOWN_IMAGE, "belongs to no image"),
    ("foreign recipe", "features", "recipe_id NOT IN (SELECT recipe_id FROM recipes)", "belongs to no recipe"),
    ("foreign training", "training_sets", "training_id NOT IN (SELECT training_id FROM heads)", "belongs to no head"),
    ("duplicate", "features", _AGAIN, "is there twice for its image and recipe"),
    ("not finite", "features", "len(list_filter(vector, lambda x: NOT isfinite(x))) > 0", "has a number that is none"),
    (
        "wrong length",
        "features",
        _LENGTH,
        "is not as long as its recipe says",
    ),
    ("expired lease", "leases", "expires_at < now()", "is of a run that is dead"),
    (
        "lost snapshot",
        "tags",
        "snapshot NOT IN (SELECT snapshot_id FROM ducklake_snapshots('lake'))",
        "names a snapshot that is not there",
    ),
)
"""(kind, table, condition, problem): rows of which the condition holds are wrong, and are removed."""


def check_lake(lake: Lake, now: datetime) -> list[Finding]:
    """Check all that needs no backbone; rows of tables whose files are broken are checked once these are mended."""
    found = list(_check_files(lake))
    broken = {finding.kind.partition(" ")[0] for finding in found if finding.kind.endswith(" file")}
    if broken:
        return found
    return [*found, *_check_rows(lake), *_check_recipes(lake), *_check_heads(lake), *_check_orphans(lake, now)]


def seal_files(lake: Lake, now: datetime) -> int:
    """Record the checksums of live files that have none yet; gives how many."""
    sealed = {path for (path,) in lake.rows("SELECT path FROM checksums")}
    unsealed = [file.path for file in list_live(lake) if file.table == "features" and file.path not in sealed]
    for path in unsealed:
        lake.commit(partial(seal, lake, path, now))
    return len(unsealed)


def _check_files(lake: Lake) -> Iterator[Finding]:
    lying = {file.path: file.bytes for file in list_lying(lake)}
    sealed = {path: (size, sha) for path, size, sha in lake.rows("SELECT path, bytes, sha256 FROM checksums")}
    live = list_live(lake)
    for file in live:
        problem = _find_problem(lake, file, lying, sealed)
        if problem:
            mend = partial(forget_file, file=file) if file.table == "features" else None
            repair = AGAIN if mend else "restore it from a backup, or erase nothing and go back to an older snapshot"
            yield Finding(f"{file.table} file", file.path, problem, repair, mend)
    known = {file.path for file in live}
    for path in sorted(set(sealed) - known):
        yield Finding("stale checksum", path, "belongs to no live file", REMOVED, partial(_unseal, path=path))


def _find_problem(lake: Lake, file: DataFile, lying: dict[str, int], sealed: dict[str, tuple[int, str]]) -> str | None:
    if file.path not in lying:
        return "is not there"
    if lying[file.path] != file.bytes:
        return f"has {lying[file.path]} bytes, {file.bytes} were written"
    if file.path in sealed and digest_file(lake, file.path) != sealed[file.path]:
        return "has other bytes than were written"
    return None


def forget_file(lake: Lake, file: DataFile) -> None:
    """Take a file that cannot be read out of the catalog: to delete its rows, DuckLake would have to read it."""
    ids = f"SELECT data_file_id FROM {META}.ducklake_data_file WHERE ends_with(path, ?)"
    (number,) = [row[0] for row in lake.rows(ids, [file.name])]

    def write() -> None:
        for table in ("file_column_stats", "delete_file", "file_partition_value", "data_file"):
            lake.execute(f"DELETE FROM {META}.ducklake_{table} WHERE data_file_id = ?", [number])

    lake.commit(write, guarded=False)
    _unseal(lake, file.path)


def _unseal(lake: Lake, path: str) -> None:
    lake.commit(lambda: lake.execute("DELETE FROM checksums WHERE path = ?", [path]))


def _check_rows(lake: Lake) -> Iterator[Finding]:
    for kind, table, condition, problem in ROWS:
        key = "tag" if table == "tags" else "first" if table == "leases" else "image_id"
        for name, count in lake.rows(f"SELECT {key}::VARCHAR, count(*) FROM {table} WHERE {condition} GROUP BY ALL"):
            row = f"{table} {key} {name}" + (f" ({count} rows)" if count > 1 else "")

            def mend(lake: Lake, table: str = table, condition: str = condition) -> None:
                prepare_deletes(lake)
                lake.commit(lambda: lake.execute(f"DELETE FROM {table} WHERE {condition}"))

            yield Finding(kind, row, problem, AGAIN if table == "features" else REMOVED, mend)


def _check_recipes(lake: Lake) -> Iterator[Finding]:
    for recipe_id, text in lake.rows("SELECT recipe_id, recipe FROM recipes"):
        if _is_of(text, recipe_id):
            continue

        def mend(lake: Lake, recipe_id: str = recipe_id) -> None:
            lake.commit(lambda: _mend_recipe(lake, recipe_id))

        repair = "read again from its packed backbone; where that is gone, removed with its features"
        yield Finding("tampered recipe", f"recipe {recipe_id}", "is not what its id is the hash of", repair, mend)


def _is_of(text: str, recipe_id: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return digest(value) == recipe_id and canonical(value) == text


def _mend_recipe(lake: Lake, recipe_id: str) -> None:
    packed = lake.home.backbones / recipe_id / "recipe.json"
    text = packed.read_text(encoding="utf-8") if packed.exists() else ""
    if text and _is_of(text, recipe_id):
        lake.execute("UPDATE recipes SET recipe = ? WHERE recipe_id = ?", [text, recipe_id])
        return
    for table in ("recipes", "recipe_requests", "features", "canaries"):
        lake.execute(f"DELETE FROM {table} WHERE recipe_id = ?", [recipe_id])


def _check_heads(lake: Lake) -> Iterator[Finding]:
    for name, version, training_id in lake.rows("SELECT name, version, training_id FROM models ORDER BY ALL"):
        head = head_path(lake.home, training_id)
        if not head.exists():
            repair = f"train it again: frostline train --name '{name}' --at the snapshot of its head"
            yield Finding("lost head", f"model {name} version {version}", f"its head {head} is not there", repair)


def _check_orphans(lake: Lake, now: datetime) -> Iterator[Finding]:
    for orphan in find_orphans(lake, now - DAY):
        path = orphan.path
        yield Finding(
            "orphan",
            path,
            "no snapshot names it",
            "deleted, as frostline maintain does",
            partial(delete_files, paths=[path]),
        )
