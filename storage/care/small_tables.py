"""Copies of small tables in memory, for many queries over the same rows.

DuckLake plans a query for longer than it reads a small table: it asks the catalog for the files of each table again.
"""

import contextlib
from collections.abc import Collection, Iterator

import duckdb

from storage.lake.ducklake_files import META
from storage.lake.lake import Lake

MAX_ROWS = 100_000
WITH_VECTORS = ("features", "canaries")
MAX_VECTORS = 5_000
"""A table with more rows, or of these tables with more vectors, is read in the lake each time."""


@contextlib.contextmanager
def copy_small_tables(lake: Lake, tables: Collection[str]) -> Iterator[None]:
    """Let reading queries within a block see copies of those of some tables that are small; they must not write.

    A table that cannot be read is left to the queries, which then fail as they would.
    """
    copied = [name for name in _list_small(lake) if name in tables and _copy(lake, name)]
    try:
        yield
    finally:
        for name in copied:
            lake.execute(f"DROP TABLE IF EXISTS temp.{name}")


def _list_small(lake: Lake) -> list[str]:
    rows = lake.rows(
        f"""SELECT table_name, coalesce(record_count, 0) FROM {META}.ducklake_table t
            LEFT JOIN {META}.ducklake_table_stats USING (table_id) WHERE t.end_snapshot IS NULL"""
    )
    return [name for name, count in rows if count <= (MAX_VECTORS if name in WITH_VECTORS else MAX_ROWS)]


def _copy(lake: Lake, name: str) -> bool:
    try:
        lake.execute(f"CREATE TEMP TABLE {name} AS FROM lake.{name}")
    except duckdb.Error:
        return False
    return True
