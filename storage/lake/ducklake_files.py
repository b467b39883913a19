"""The lake's files: those in the catalog, and those in the data folder."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.lake.lake import Lake
from storage.locations.parquet_files import find_path, list_folder, open_data

META = "__ducklake_metadata_lake"
"""The database of DuckLake's own metadata tables, which DuckDB attaches beside the lake."""

_PATH = """CASE WHEN NOT d.path_is_relative::BOOLEAN THEN d.path
            ELSE concat(s.path, t.path, d.path) END"""


@dataclass(frozen=True)
class DataFile:
    """A live Parquet file: its table, path below the data folder, size, row count, and number of deleted rows."""

    table: str
    path: str
    bytes: int
    rows: int
    deleted: int

    @property
    def name(self) -> str:
        """The file name, which is unique."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class StoredFile:
    """A file in the data folder."""

    path: str
    bytes: int
    changed_at: datetime


def list_live(lake: Lake) -> list[DataFile]:
    """List the Parquet files of the newest snapshot."""
    found = lake.rows(
        f"""SELECT t.table_name, {_PATH}, d.file_size_bytes, d.record_count, coalesce(sum(x.delete_count), 0)
            FROM {META}.ducklake_data_file d JOIN {META}.ducklake_table t USING (table_id)
            JOIN {META}.ducklake_schema s USING (schema_id)
            LEFT JOIN {META}.ducklake_delete_file x ON x.data_file_id = d.data_file_id AND x.end_snapshot IS NULL
            WHERE d.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
            GROUP BY ALL ORDER BY ALL"""
    )
    return [DataFile(table, path, size, rows, int(deleted)) for table, path, size, rows, deleted in found]


def list_deletes(lake: Lake) -> dict[DataFile, str]:
    """List the live delete files, each with the path of the data file whose rows it deletes."""
    path_sql = _PATH.replace("d.", "{0}.")
    found = lake.rows(
        f"""SELECT t.table_name, {path_sql.format("x")}, x.file_size_bytes, x.delete_count, {path_sql.format("d")}
            FROM {META}.ducklake_delete_file x JOIN {META}.ducklake_data_file d USING (data_file_id)
            JOIN {META}.ducklake_table t ON t.table_id = d.table_id JOIN {META}.ducklake_schema s USING (schema_id)
            WHERE x.end_snapshot IS NULL AND d.end_snapshot IS NULL AND t.end_snapshot IS NULL
              AND s.end_snapshot IS NULL ORDER BY ALL"""
    )
    return {DataFile(table, path, size, rows, 0): of for table, path, size, rows, of in found}


def list_ranges(lake: Lake) -> dict[str, tuple[str, str]]:
    """Return the first and the last image_id of each live file of features, by file name, from the catalog."""
    found = lake.rows(
        f"""SELECT parse_filename(d.path), s.min_value, s.max_value FROM {META}.ducklake_data_file d
            JOIN {META}.ducklake_file_column_stats s USING (data_file_id, table_id)
            JOIN {META}.ducklake_column c ON c.table_id = d.table_id AND c.column_id = s.column_id
            JOIN {META}.ducklake_table t ON t.table_id = d.table_id
            WHERE d.end_snapshot IS NULL AND c.end_snapshot IS NULL AND c.column_name = 'image_id'
              AND t.table_name = 'features'"""
    )
    return {name: (first, last) for name, first, last in found}


def list_named(lake: Lake) -> set[str]:
    """List the names of all files that belong to any snapshot or are scheduled for deletion."""
    tables = ("data_file", "delete_file", "files_scheduled_for_deletion")
    union = " UNION ALL ".join(f"SELECT parse_filename(path) FROM {META}.ducklake_{table}" for table in tables)
    return set(lake.column(union))


def list_stored_files(lake: Lake) -> list[StoredFile]:
    """List all files in the data folder."""
    _, folder = open_data(lake.home)
    return [
        StoredFile(info.path[len(folder) :].lstrip("/"), info.size, info.mtime.astimezone(UTC))
        for info in list_folder(lake.home, "")
    ]


def find_orphans(lake: Lake, before: datetime | None = None) -> list[StoredFile]:
    """Find files left by killed runs: not in the catalog, and untouched since ``before``.

    Files are listed before the catalog is read, so that a file committed in between does not count as an orphan.
    """
    stored = [file for file in list_stored_files(lake) if before is None or file.changed_at < before]
    named = list_named(lake)
    return [file for file in stored if file.path.rpartition("/")[2] not in named]


def delete_unnamed(lake: Lake, names: Sequence[str]) -> None:
    """Delete those of some files, given by their paths in the catalog's notation, that belong to no snapshot."""
    named = list_named(lake)
    system, _ = open_data(lake.home)
    for name in names:
        if name.rpartition("/")[2] not in named:
            with contextlib.suppress(FileNotFoundError):
                system.delete_file(find_path(lake.home, name))


def delete_files(lake: Lake, paths: Sequence[str]) -> None:
    """Delete files below the data folder; those already deleted are skipped."""
    system, folder = open_data(lake.home)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(f"{folder}/{path}")
