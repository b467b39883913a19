"""The SQLite catalog is in WAL mode while anybody writes, whoever else opens and closes it."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.errors import LakeBusyError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home

READ = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1])
con.execute("BEGIN")
con.execute("SELECT count(*) FROM ducklake_snapshot").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = open_home(tmp_path / "home")
    open_lake(made).close()
    return made


def is_at_rest(home: Home) -> bool:
    """Return whether the catalog is one file, whose header says that there is no WAL."""
    alone = [path.name for path in home.root.glob("catalog*")] == ["catalog.sqlite"]
    return alone and home.catalog.read_bytes()[18] == 1  # 2: WAL (https://sqlite.org/fileformat.html, section 1.3.3)


def tag(lake: Lake, name: str) -> None:
    lake.commit(lambda: lake.execute("INSERT INTO tags VALUES (?, 1, now())", [name]))


def start_reader(home: Home) -> "subprocess.Popen[str]":
    """Start a process that reads the catalog, in one transaction, until its input closes."""
    command = [sys.executable, "-c", READ, str(home.catalog)]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout
    assert reader.stdout.readline() == "reading\n"
    return reader


def test_a_writer_that_closes_leaves_others_of_its_process_in_wal_mode(home: Home) -> None:
    with open_lake(home) as first:
        first.execute("BEGIN")
        first.execute("INSERT INTO tags VALUES ('in flight', 1, now())")
        with open_lake(home) as second:
            assert second.column("SELECT tag FROM tags") == []
        assert not is_at_rest(home)
        first.execute("COMMIT")
    assert is_at_rest(home)
    with read_lake(home) as lake:
        assert lake.column("SELECT tag FROM tags") == ["in flight"]


def test_the_last_reader_leaves_the_catalog_at_rest_after_a_writer(home: Home) -> None:
    with open_lake(home) as writer:
        reader = read_lake(home)
        tag(writer, "a")
    assert not is_at_rest(home)
    reader.close()
    reader.close()  # a second time changes nothing
    assert is_at_rest(home)


def test_a_writer_waits_for_a_reader_that_came_while_nobody_wrote(home: Home) -> None:
    with start_reader(home) as reader:
        assert reader.stdin
        threading.Timer(1.0, reader.stdin.close).start()
        began = time.monotonic()
        with open_lake(home) as lake:
            assert time.monotonic() - began > 0.5
            tag(lake, "a")
    with read_lake(home) as lake:
        assert lake.column("SELECT tag FROM tags") == ["a"]


def test_a_reader_that_never_ends_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.lake.attach.PATIENCE", 0.5)
    with start_reader(home) as reader:
        with pytest.raises(LakeBusyError, match=rf"has been locked for .* by process {reader.pid} "):
            open_lake(home)
        assert reader.stdin
        reader.stdin.close()
