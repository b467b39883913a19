"""Scrubbing: remove erased rows from files, old snapshots and the catalog, including its free pages.

Safe beside writers: each step is a transaction that is repeated after a lost race, or touches only what nobody reads.
Safe to interrupt: each step does whatever is left to do.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from storage.care.leftovers import delete_leftovers
from storage.errors import LakeBusyError
from storage.lake.attach import open_lake
from storage.lake.ducklake_files import META
from storage.lake.extensions import connect
from storage.lake.lake import Lake, Row, quote
from storage.locations.home import Home
from storage.locations.locks import lock_commits
from storage.locations.parquet_files import open_file
from storage.locations.urls import POSTGRES
from storage.tables.features import add_file
from storage.vectors.feature_file import write_rows
from storage.vectors.gather import INLINED

ATTEMPTS = 40


def rewrite_features(lake: Lake, kept: str, now: datetime) -> None:
    """Rewrite vector files without rows that are deleted or do not meet a condition, within a transaction.

    DuckLake would rewrite them without byte-stream-split, and larger.
    """
    found = lake.rows(
        f"""SELECT any_value(recipe_id), f.filename, count(*), list(file_row_number ORDER BY file_row_number)
              FILTER ({kept})
            FROM features f GROUP BY f.filename"""
    )
    for recipe_id, file, visible, rows in found:
        if file.startswith(INLINED) or (rows and len(rows) == visible == _count_rows(lake, file)):
            continue
        lake.execute("DELETE FROM features WHERE recipe_id = ? AND filename = ?", [recipe_id, file])
        lake.execute("DELETE FROM checksums WHERE parse_filename(path) = parse_filename(?)", [file])
        if rows:
            add_file(lake, _copy_rows(lake.home, recipe_id, file, rows), now)


def scrub(home: Home, now: datetime, tables: Iterable[str]) -> int:
    """Remove from files, old snapshots and the catalog all rows of some tables that the newest snapshot does not have.

    Every other snapshot expires.

    Returns:
        The number of runs and files that may still hold an erased image, see :func:`delete_leftovers`.

    Raises:
        LakeBusyError: if other processes keep the catalog locked.
    """
    with open_lake(home) as lake:
        for table in tables:
            lake.call(f"ducklake_flush_inlined_data('lake', table_name => '{table}')")
            lake.call(f"ducklake_rewrite_data_files('lake', '{table}', delete_threshold => 0)")
        _expire(lake)
        lake.call("ducklake_cleanup_old_files('lake', cleanup_all => true)")
        remaining = delete_leftovers(lake, now)
        for table in tables:
            _narrow_statistics(lake, table)
        lake.call(
            "ducklake_flush_inlined_data('lake', table_name => 'guard')"
        )  # a new file invalidates cached statistics
    (_vacuum_postgres if home.catalog_url else _vacuum_sqlite)(home)
    return remaining


def _count_rows(lake: Lake, file: str) -> int:
    with open_file(lake.home, file) as opened:
        return int(pq.read_metadata(opened).num_rows)


def _copy_rows(home: Home, recipe_id: str, file: str, rows: Sequence[int]) -> str:
    with open_file(home, file) as opened:
        kept = pq.read_table(opened, columns=["image_id", "vector"]).take(pa.array(rows))
    return write_rows(home, recipe_id, kept)


def _expire(lake: Lake) -> None:
    old = lake.column("SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY snapshot_id")[:-1]
    if old:
        lake.call(f"ducklake_expire_snapshots('lake', versions => {old})")


def _narrow_statistics(lake: Lake, table: str) -> None:
    """Recompute a table's column statistics, whose smallest and largest values outlive deleted rows.

    If another snapshot is committed in between, whose rows they would miss, nothing is changed and it is repeated.
    """
    columns = lake.rows(
        f"""SELECT table_id, column_id, column_name FROM {META}.ducklake_column c
            JOIN {META}.ducklake_table t USING (table_id)
            WHERE table_name = ? AND column_type IN ('varchar', 'uuid') AND parent_column IS NULL
              AND c.end_snapshot IS NULL AND t.end_snapshot IS NULL""",
        [table],
    )
    for _ in range(ATTEMPTS):
        if lake.repeat(lambda: _narrow_columns(lake, table, columns)):
            return
    raise LakeBusyError(
        f"lake {lake.home.lake}", "is being written without a pause", "Run `frostline erase` again later"
    )


def _narrow_columns(lake: Lake, table: str, columns: Sequence[Row]) -> bool:
    at = lake.snapshot
    for table_id, column_id, name in columns:
        # An expression, so that DuckDB reads the rows and not the statistics.
        ends = lake.rows(f"SELECT min(\"{name}\"::VARCHAR || ''), max(\"{name}\"::VARCHAR || '') FROM {table}")[0]
        lake.execute(
            f"""UPDATE {META}.ducklake_table_column_stats SET min_value = ?, max_value = ?
                WHERE table_id = ? AND column_id = ? AND min_value IS NOT NULL
                  AND (SELECT max(snapshot_id) FROM {META}.ducklake_snapshot) = ?""",
            [*ends, table_id, column_id, at],
        )
    return lake.snapshot == at


def _vacuum_sqlite(home: Home) -> None:
    """Rewrite the catalog without free pages, in which deleted rows remain, and empty its log."""
    with lock_commits(home), closing(sqlite3.connect(home.catalog, timeout=20, isolation_level=None)) as con:
        for _ in range(ATTEMPTS):
            try:
                con.execute("VACUUM")
                if con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                    return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
            time.sleep(0.25)
    raise LakeBusyError(f"lake {home.lake}", "is in use by readers or writers", "Run `frostline erase` again later")


def _vacuum_postgres(home: Home) -> None:
    """Remove dead rows from the catalog's tables."""
    with closing(connect(("postgres",)).cursor()) as con:
        connection = str(home.catalog_url).removeprefix(POSTGRES)
        con.execute(f"ATTACH {quote(connection)} AS catalog (TYPE postgres)")
        try:
            found = con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'catalog'").fetchall()
            names = ", ".join(f'"{name}"' for (name,) in found if name.startswith("ducklake"))
            vacuum = f"SET lock_timeout = '20s'; VACUUM (ANALYZE) {names}"
            for statement in vacuum.split("; "):
                con.execute("CALL postgres_execute('catalog', ?, use_transaction => false)", [statement])
        finally:
            con.execute("DETACH catalog")
