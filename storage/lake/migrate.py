"""Schema migrations: a lake of an earlier release is upgraded one version at a time, and never downgraded."""

from importlib.resources import files

import duckdb

from storage.lake.lake import Lake

VERSION = 8


def create_tables(lake: Lake) -> None:
    """Create the tables of an empty lake, within a transaction."""
    lake.execute(_read("schema.sql"))


def upgrade(lake: Lake) -> None:
    """Upgrade a lake to ``VERSION``, in one transaction per version; of several processes one does each.

    Raises:
        LakeError: if the lake cannot be written.
    """
    while (version := read_version(lake)) < VERSION:
        lake.commit(lambda: _upgrade_one(lake, version))


def read_version(lake: Lake) -> int:
    """Read the schema version; 0 if the lake has no tables."""
    try:
        return int(lake.value("SELECT max(version) FROM lake_version"))
    except duckdb.CatalogException:
        return 0


def _upgrade_one(lake: Lake, version: int) -> None:
    if read_version(lake) == version:  # otherwise another process has done it
        lake.execute(_read(f"migrations/{version + 1}.sql"))


def _read(name: str) -> str:
    return files("storage.lake").joinpath(name).read_text(encoding="utf-8")
