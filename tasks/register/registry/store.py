"""MLflow's SQLite store, created so that runs that start at once share it: MLflow itself would break it."""

import contextlib
import sqlite3
import uuid
from pathlib import Path

from storage.locations.locks import hold_lock
from storage.locations.urls import write_sqlite_url


def make_store(path: Path) -> None:
    """Create a local store, unless it exists.

    It is created under another name and moved into place when it is whole, by one process at a time. What an
    interrupted creation by MLflow itself left is created anew: a store without its schema's version holds nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_whole(path):
        return
    with hold_lock(path.parent):
        if not _is_whole(path):
            _create(path)


def _is_whole(path: Path) -> bool:
    """Return whether a store exists and its schema is complete."""
    if not path.is_file():
        return False
    with contextlib.closing(sqlite3.connect(path)) as database:
        try:
            return bool(database.execute("SELECT count(*) FROM alembic_version").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return "no such table" not in str(error)  # locked, unreadable, or no database: not ours to replace


def _create(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        store = SqlAlchemyStore(write_sqlite_url(unfinished), (path.parent / "artifacts").as_uri())  # type: ignore[no-untyped-call]
        store.engine.dispose()
        unfinished.replace(path)
    finally:
        for left in path.parent.glob(f"{unfinished.name}*"):  # with SQLite's own files
            left.unlink(missing_ok=True)
