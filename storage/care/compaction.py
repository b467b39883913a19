"""Compaction: many small files become few, and rows that were deleted leave their files.

DuckLake merges the small tables. Vectors are rewritten here: DuckLake would write them without byte-stream-split.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from storage.lake.ducklake_files import META, DataFile, delete_files, list_live
from storage.lake.lake import Lake
from storage.tables.features import add_file
from storage.vectors.feature_file import write_rows

SMALL = 32 << 20
"""A file of vectors below this many bytes is small."""
TOGETHER = 128 << 20
"""Bytes of small files that become one."""
DELETED = 0.3
"""The share of deleted rows from which a file is written anew."""
ROWS = 100
"""So many rows in the catalog are worth a file."""
INLINED = ("guard", "lake_version")
"""Tables of one row, which stay in the catalog."""


def prepare_deletes(lake: Lake) -> None:
    """Let what is deleted from features be written as files from now on, never as rows of the catalog.

    So whoever reads the files needs no more than their list, and a file that lost its last row is gone.
    """
    option = "data_inlining_row_limit"
    if not lake.value("SELECT count(*) FROM ducklake_options('lake') WHERE option_name = ?", [option]):
        lake.call(f"ducklake_set_option('lake', '{option}', 0, schema => 'main', table_name => 'features')")
        lake.call("ducklake_flush_inlined_data('lake', table_name => 'features')")


def compact(lake: Lake, now: datetime) -> int:
    """Compact every table; gives how many files of vectors were written anew."""
    prepare_deletes(lake)
    merge_tables(lake, DELETED, least=ROWS)
    return sum(rewrite_features(lake, group, now) for group in list_small(lake))


def merge_tables(lake: Lake, deleted: float, least: int) -> None:
    """Merge the small files of all tables but the vectors', dropping rows from files that lost such a share of them.

    Rows that lie in the catalog become a file where there are at least so many. Each call is a transaction of its own:
    DuckLake fails where a table is flushed and changed in one.
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
    """List the tables that have at least so many rows in the catalog, deleted ones included."""
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
    """List the files of vectors that are worth rewriting, those that become one file together."""
    small = [file for file in list_live(lake) if file.table == "features" and _is_worth_it(file)]
    groups: list[list[DataFile]] = []
    for _, files in groupby(small, key=_partition):
        groups += _gather(files)
    return [group for group in groups if len(group) > 1 or group[0].deleted > DELETED * group[0].rows]


def rewrite_features(lake: Lake, files: Sequence[DataFile], now: datetime) -> int:
    """Write the rows of some files of one recipe as one file, in place of them.

    Rows that were deleted in the meantime, by another process, stay deleted: then nothing is done.

    Returns:
        How many files were replaced.
    """
    recipe_id = _partition(files[0]).rpartition("=")[2]
    names = [file.name for file in files]
    there = "recipe_id = ? AND parse_filename(filename) IN (SELECT unnest(?))"
    before = lake.value(f"SELECT count(*) FROM features WHERE {there}", [recipe_id, names])
    rows = lake.table(f"SELECT image_id, vector FROM features WHERE {there} ORDER BY image_id", [recipe_id, names])
    new = write_rows(lake.home, recipe_id, rows) if rows.num_rows else None

    def swap() -> bool:
        if lake.value(f"SELECT count(*) FROM features WHERE {there}", [recipe_id, names]) != before:
            return False
        lake.execute(f"DELETE FROM features WHERE {there}", [recipe_id, names])
        lake.execute("DELETE FROM checksums WHERE parse_filename(path) IN (SELECT unnest(?))", [names])
        if new:
            add_file(lake, new, now)
        return True

    if lake.commit(swap):
        return len(files)
    if new:
        delete_files(lake, [f"{_partition(files[0])}/{new.rpartition('/')[2]}"])
    return 0


def _is_worth_it(file: DataFile) -> bool:
    return file.bytes < SMALL or file.deleted > DELETED * file.rows


def _partition(file: DataFile) -> str:
    return file.path.rpartition("/")[0]


def _gather(files: Iterator[DataFile]) -> list[list[DataFile]]:
    groups: list[list[DataFile]] = [[]]
    for file in files:
        if sum(other.bytes for other in groups[-1]) + file.bytes > TOGETHER and groups[-1]:
            groups.append([])
        groups[-1].append(file)
    return groups
