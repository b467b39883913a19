"""Checks of the packages in the home's own registry, without MLflow, which takes seconds to import."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.artifacts.head_files import is_whole
from storage.care.row_checks import BACKUP, Finding
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.registry_paths import locate_artifact
from storage.tables.trainings import HEAD

REPAIR = "restore it from a backup, or delete the version in MLflow: the next run registers the newest head anew"
VERSIONS = """SELECT name, version, run_id, coalesce(storage_location, source) FROM model_versions
              WHERE current_stage IS NOT 'Deleted_Internal' ORDER BY name, version DESC"""
"""The versions in MLflow's database, less those that were deleted."""

_Version = tuple[str, int, str, str]


def check_model_packages(lake: Lake) -> Iterator[Finding]:
    """Find versions in the home's own store whose package is missing or damaged.

    A version that somebody deleted in MLflow is no finding, and an MLflow server checks its own store.
    """
    recorded = set(lake.rows("SELECT name, version, run_id FROM models"))
    try:
        versions = _list_versions(lake.home)
    except sqlite3.Error as error:
        yield Finding("model", f"registry {lake.home.registry_database}: cannot be read: {error}", BACKUP)
        return
    for name, number, run_id, uri in versions:
        folder = locate_artifact(lake.home, uri)
        if (name, number, run_id) in recorded and not _is_whole_package(folder):
            what = f"model {name} version {number}: its package {folder} is missing or incomplete"
            yield Finding("model", what, REPAIR)


def _list_versions(home: Home) -> list[_Version]:
    url = f"{home.registry_database.as_uri()}?mode=ro"
    with closing(sqlite3.connect(url, uri=True, timeout=20)) as con:
        versions: list[_Version] = con.execute(VERSIONS).fetchall()
    return versions


def _is_whole_package(uri: str) -> bool:
    """Return whether a package can be loaded, as far as it is a local folder."""
    url = urlsplit(uri)
    folder = Path(unquote(url.path))
    return url.scheme != "file" or ((folder / "MLmodel").is_file() and is_whole(folder / "artifacts" / HEAD))
