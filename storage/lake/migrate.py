"""Schema versions: a lake of an earlier release is brought up to this one's, a version at a time, never down."""

from importlib.resources import files

import duckdb

from storage.lake.lake import Lake

VERSION = 4


def make_tables(lake: Lake) -> None:
    """Give an empty lake its tables; run inside a transaction."""
    lake.execute(_read("schema.sql"))


def upgrade(lake: Lake) -> None:
    """Bring a lake up to ``VERSION``: a transaction for each version, each done by one process of several.

    Raises:
        LakeError: where the lake cannot be written.
    """
    while (found := read_version(lake)) < VERSION:
        lake.commit(lambda: _upgrade_one(lake, found))


def read_version(lake: Lake) -> int:
    """Read the schema's version; 0 where the lake has no tables."""
    try:
        return int(lake.value("SELECT max(version) FROM lake_version"))
    except duckdb.CatalogException:
        return 0


def _upgrade_one(lake: Lake, found: int) -> None:
    if read_version(lake) == found:  # otherwise another process has done it
        lake.execute(_read(f"migrations/{found + 1}.sql"))


def _read(name: str) -> str:
    return files("storage.lake").joinpath(name).read_text(encoding="utf-8")
