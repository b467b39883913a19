"""What a first run leaves, made once and copied: the run itself takes seconds."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage.lake.attach import open_lake
from storage.locations.home import open_home
from tests.counting import Tally, install
from tests.pictures import write_folder
from tests.servers import without_server


@dataclass(frozen=True)
class FirstRun:
    """A folder with ``photos``, the ``home`` after one run over them and its tally, and the run's report."""

    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, registry_template: Path) -> FirstRun:
    """One run with default settings, made once: it takes seconds. Tests change copies of it."""
    from flows.pipeline import pipeline
    from flows.settings import RunSettings

    folder = tmp_path_factory.mktemp("first-run")
    (folder / "home" / "mlflow").mkdir(parents=True)
    shutil.copy(registry_template, folder / "home" / "mlflow" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch, without_server():
        install(patch, Tally(folder / "backbone-calls"))
        report = pipeline(RunSettings(source=write_folder(folder / "photos"), home=folder / "home"))
    # Copies of the photos have other inodes and times of change.
    with open_lake(open_home(folder / "home")) as lake:
        lake.commit(lambda: lake.execute("UPDATE files SET ctime_ns = NULL, inode = NULL"))
    return FirstRun(folder, report.to_json())


@pytest.fixture
def first_report(first_run: FirstRun, tally: Tally, photos: Path, home: Path, tmp_path: Path) -> dict[str, Any]:
    """Photos, home and tally as a first ``run()`` leaves them, copied from ``first_run``; returns its report."""
    assert {tally.log.parent, photos.parent, home.parent} == {tmp_path}
    copy_homes(first_run.folder, tmp_path)
    report: dict[str, Any] = json.loads(json.dumps(first_run.report).replace(str(first_run.folder), str(tmp_path)))
    return report


def copy_homes(old: Path, new: Path) -> None:
    """Copy a folder with homes in it; their catalogs and registries name the new folder."""
    shutil.copytree(old, new, dirs_exist_ok=True)
    for database in (*new.rglob("catalog.sqlite"), *new.rglob("mlflow.db")):
        replace_text(database, str(old), str(new))


def replace_text(database: Path, old: str, new: str) -> None:
    """Replace a path in all texts of a SQLite database."""
    with closing(sqlite3.connect(database)) as con, con:
        tables = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, *_ in con.execute(f'PRAGMA table_info("{table}")').fetchall():
                sql = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                con.execute(f"{sql} AND typeof(\"{column}\") = 'text'", [old, new, old])
