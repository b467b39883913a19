"""The embedded registry of a home that was moved or copied: MLflow records where artifacts are as absolute URIs."""

import sqlite3
from contextlib import closing

from storage.errors import LakeError
from storage.locations.home import Home

LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""The columns of MLflow's store that hold such URIs."""
_FORMER = """SELECT DISTINCT artifact_location FROM experiments
             WHERE artifact_location LIKE 'file:%/mlflow/artifacts' AND artifact_location <> ?"""
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def adopt_artifacts(home: Home) -> None:
    """Let the home's own registry name the artifacts in the home, not those where it was before.

    Otherwise a copy would write into the original, and a moved home would not find its models.

    Raises:
        LakeError: if the registry cannot be written.
    """
    for former in find_former(home):
        try:
            with closing(sqlite3.connect(_name(home, "rw"), uri=True, timeout=20)) as con, con:
                _replace(con, former, home.registry_artifacts)
        except sqlite3.Error as error:
            raise LakeError(
                f"registry {home.registry_database}",
                f"names files in {former}, where this home was before, and cannot be written: {error}",
                "Check its permissions, and that nobody else uses it, then run again",
            ) from error


def find_former(home: Home) -> list[str]:
    """Find where the artifacts of a home's own registry were before the home was moved or copied; writes nothing."""
    if not home.registry_database.is_file():
        return []
    try:
        with closing(sqlite3.connect(_name(home, "ro"), uri=True, timeout=20)) as con:
            return [former for (former,) in con.execute(_FORMER, [home.registry_artifacts])]
    except sqlite3.Error:  # no store of MLflow, or not yet: whoever opens it next says what is wrong
        return []


def locate_artifact(home: Home, uri: str) -> str:
    """Return where an artifact of the home's own registry is, although the home was moved or copied."""
    for former in find_former(home):
        if uri.startswith(f"{former}/"):
            return home.registry_artifacts + uri.removeprefix(former)
    return uri


def _replace(con: sqlite3.Connection, former: str, current: str) -> None:
    tables = {name for (name,) in con.execute(_TABLES)}
    for table, columns in LOCATIONS.items():
        for column in columns if table in tables else ():
            within = f"{column} = ? OR substr({column}, 1, ?) = ?"
            sql = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {within}"
            con.execute(sql, [current, len(former) + 1, former, len(former) + 1, f"{former}/"])


def _name(home: Home, mode: str) -> str:
    return f"{home.registry_database.as_uri()}?mode={mode}"
