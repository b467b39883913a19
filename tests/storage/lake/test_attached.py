"""Within a run the lake stays attached between steps: it still sees what others commit, and nobody waits for it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import keep_lake_attached
from storage.locations.home import Home, open_home
from tests.test_layers import ROOT

COMMIT = """
import sys; from pathlib import Path
from storage.lake.attach import open_lake; from storage.locations.home import open_home
with open_lake(open_home(Path(sys.argv[1]))) as lake:
    lake.commit(lambda: lake.execute("INSERT INTO tags VALUES (?, 1, now())", [sys.argv[2]]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = open_home(tmp_path / "home")
    open_lake(home).close()
    return home


def commit_elsewhere(home: Home, tag: str) -> None:
    command = [sys.executable, "-c", COMMIT, str(home.root), tag]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60)


def test_a_lake_is_attached_once_and_sees_what_others_commit(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    attaching = list[str]()

    def attach(con: duckdb.DuckDBPyConnection, _: Home, options: object) -> None:
        attaching.append(str(options))
        original(con, home, options)  # type: ignore[arg-type]

    from storage.lake import attach as module

    original = module._attach_at
    monkeypatch.setattr(module, "_attach_at", attach)
    with keep_lake_attached(home):
        for tag in ("one", "two"):
            with open_lake(home) as lake:
                lake.commit(lambda tag=tag: lake.execute("INSERT INTO tags VALUES (?, 1, now())", [tag]))  # type: ignore[misc]
            commit_elsewhere(home, f"{tag}-elsewhere")
            with read_lake(home) as lake:
                tags = lake.column("SELECT tag FROM tags ORDER BY tag")
    assert tags == ["one", "one-elsewhere", "two", "two-elsewhere"]
    assert len(attaching) == 2  # for writing, for reading
    open_lake(home).close()
    assert len(attaching) == 3


def test_a_transaction_that_was_left_open_is_rolled_back(home: Home) -> None:
    with keep_lake_attached(home):
        lake = open_lake(home)
        lake.execute("BEGIN")
        lake.execute("INSERT INTO tags VALUES ('left', 1, now())")
        lake.close()
        commit_elsewhere(home, "other")
        with read_lake(home) as read:
            assert read.column("SELECT tag FROM tags") == ["other"]


def test_afterwards_the_catalog_can_be_read_without_permission_to_write(home: Home) -> None:
    with keep_lake_attached(home), keep_lake_attached(home), open_lake(home) as lake:
        lake.commit(lambda: None)
    assert not list(home.root.glob("catalog.sqlite-*"))
    with closing(sqlite3.connect(home.catalog)) as con:
        assert con.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_lake_as_it_was_is_not_kept(home: Home) -> None:
    with open_lake(home) as lake:
        lake.commit(lambda: lake.execute("INSERT INTO tags VALUES ('new', 1, now())"))
        newest = lake.snapshot
    with keep_lake_attached(home):
        with read_lake(home, newest - 1) as old:
            assert old.column("SELECT tag FROM tags") == []
        with read_lake(home) as new:
            assert new.column("SELECT tag FROM tags") == ["new"]
