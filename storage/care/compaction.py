"""Compaction: merge small files, and remove deleted rows from files.

DuckLake merges the small tables. Vectors are rewritten here, since DuckLake would write them without byte-stream-split.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from storage.lake.ducklake_files import META, DataFile, delete_files, list_live
from storage.lake.lake import Lake
from storage.tables.features import add_file
from storage.tables.leases import announce_rewriting, renew_lease
from storage.vectors.feature_file import write_rows

SMALL = 32 << 20
"""A file of vectors with fewer bytes is small."""
MERGED = 128 << 20
"""Most bytes of small files to merge into one."""
DELETED = 0.3
"""The share of deleted rows above which a file is rewritten."""
ROWS = 100
"""The number of rows in the catalog that are worth a file."""
INLINED = ("guard", "lake_version")
"""Tables of one row, which stay in the catalog."""


def prepare_deletes(lake: Lake) -> None:
    """From now on write deletes from features as files, never as rows in the catalog.

    Readers then need only the list of files, and a file that loses its last row is dropped.
    """
    option = "data_inlining_row_limit"
    if not lake.value("SELECT count(*) FROM ducklake_options('lake') WHERE option_name = ?", [option]):
        lake.call(f"ducklake_set_option('lake', '{option}', 0, schema => 'main', table_name => 'features')")
        lake.call("ducklake_flush_inlined_data('lake', table_name => 'features')")


def compact(lake: Lake, now: datetime) -> int:
    """Compact every table; returns the number of vector files that were replaced."""
    prepare_deletes(lake)
    with announce_rewriting(lake, now) as holder:
        merge_tables(lake, DELETED, least=ROWS)
        replaced = 0
        for group in list_small(lake):
            renew_lease(lake, holder, datetime.now(UTC))
            replaced += rewrite_features(lake, group, now)
    return replaced


def merge_tables(lake: Lake, deleted: float, least: int) -> None:
    """Merge the small files of all tables but features; rewrite those whose share of deleted rows exceeds ``deleted``.

    Rows in the catalog become a file if there are at least ``least``. Each call is a transaction of its own, since
    DuckLake cannot flush and change a table in one.
    """
    for table in _list_inlined(lake, least):
        lake.call(f"ducklake_flush_inlined_data('lake', table_name => '{table}')")
    live = [file for file in list_live(lake) if file.table not in ("features", *INLINED)]
    for table, files in groupby(live, key=lambda file: file.table):
        parts = list(files)
        if any(file.deleted > deleted * file.rows for file in parts):
            lake.call(f"ducklake_rewrite_data_files('lake', '{table}', delete_threshold => {deleted})")
        if len(parts) > 1:
            lake.call(f"ducklake_merge_adjacent_files('lake', '{table}')")


def _list_inlined(lake: Lake, least: int) -> list[str]:
    """List the tables with at least ``least`` rows in the catalog, deleted ones included."""
    found = lake.rows(
        f"""SELECT t.table_name, i.table_name FROM {META}.ducklake_inlined_data_tables i
            JOIN {META}.ducklake_table t USING (table_id) WHERE t.end_snapshot IS NULL ORDER BY ALL"""
    )
    return [
        table
        for table, inlined in found
        if table not in INLINED and lake.value(f'SELECT count(*) FROM {META}."{inlined}"') >= least
    ]


def list_small(lake: Lake) -> list[list[DataFile]]:
    """List the vector files that are worth rewriting, in groups that become one file each."""
    small = [file for file in list_live(lake) if file.table == "features" and _needs_rewrite(file)]
    groups: list[list[DataFile]] = []
    for _, files in groupby(small, key=_partition):
        groups += _group(files)
    return [group for group in groups if len(group) > 1 or group[0].deleted > DELETED * group[0].rows]


def rewrite_features(lake: Lake, files: Sequence[DataFile], now: datetime) -> int:
    """Replace some files of one recipe by one file with their rows.

    If another process deletes rows of them in the meantime, nothing is replaced.

    Returns:
        The number of files that were replaced.
    """
    recipe_id = _partition(files[0]).rpartition("=")[2]
    names = [file.name for file in files]
    in_files = "recipe_id = ? AND parse_filename(filename) IN (SELECT unnest(?))"
    before = lake.value(f"SELECT count(*) FROM features WHERE {in_files}", [recipe_id, names])
    rows = lake.table(f"SELECT image_id, vector FROM features WHERE {in_files} ORDER BY image_id", [recipe_id, names])
    new = write_rows(lake.home, recipe_id, rows) if rows.num_rows else None

    def swap() -> bool:
        if lake.value(f"SELECT count(*) FROM features WHERE {in_files}", [recipe_id, names]) != before:
            return False
        lake.execute(f"DELETE FROM features WHERE {in_files}", [recipe_id, names])
        lake.execute("DELETE FROM checksums WHERE parse_filename(path) IN (SELECT unnest(?))", [names])
        if new:
            add_file(lake, new, now)
        return True

    if lake.commit(swap):
        return len(files)
    if new:
        delete_files(lake, [f"{_partition(files[0])}/{new.rpartition('/')[2]}"])
    return 0


def _needs_rewrite(file: DataFile) -> bool:
    return file.bytes < SMALL or file.deleted > DELETED * file.rows


def _partition(file: DataFile) -> str:
    return file.path.rpartition("/")[0]


def _group(files: Iterator[DataFile]) -> list[list[DataFile]]:
    groups: list[list[DataFile]] = [[]]
    for file in files:
        if sum(other.bytes for other in groups[-1]) + file.bytes > MERGED and groups[-1]:
            groups.append([])
        groups[-1].append(file)
    return groups
