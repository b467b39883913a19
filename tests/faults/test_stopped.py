"""A writer that is stopped while it has the catalog locked: the others say who it is, and do not blame lost races."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from storage.errors import LakeBusyError
from storage.lake import lake as lakes
from storage.lake import waits
from storage.lake.attach import open_lake
from storage.lake.lake import Lake, busy_error
from storage.locations.home import Home, open_home
from tests.pictures import write_folder
from tests.servers import ROOT

LOCK = """
import sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(600)
"""

RUN = """
from flows.start import main
from storage.lake import waits
waits.FIRST_REPORT = 0.2
main()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = open_home(tmp_path / "home")
    open_lake(made).close()
    return made


def test_a_wait_for_a_stopped_writer_names_it_in_the_log_and_in_the_error(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waits, "FIRST_REPORT", 0.2)
    monkeypatch.setattr(lakes, "PATIENCE", 1.0)
    caplog.set_level(logging.WARNING)
    with open_lake(home) as lake, start_lock(home) as writer:
        try:
            name = rf"process {writer.pid} \(python[^)]*, stopped\)"
            with pytest.raises(LakeBusyError, match=rf"has been locked .* by {name}\. Continue or end it"):
                lake.repeat(lambda: write_directly(lake))
            assert f"process {writer.pid} (" in caplog.text
            assert "races" not in caplog.text
        finally:
            writer.kill()


def test_a_run_that_waits_says_for_whom_on_the_terminal(home: Home, tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", 2)
    command = [sys.executable, "-c", RUN, "run", str(photos), "--home", str(home.root)]
    with start_lock(home) as writer:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr
            said = next(line for line in run.stderr if "locked by" in line)
            run.kill()
        writer.kill()
    assert said.startswith(f"frostline: lake {home.root}: has waited for ")
    assert f"process {writer.pid} (" in said


def test_lost_races_are_named_as_such(home: Home) -> None:
    error = busy_error(home, RuntimeError("Transaction conflict"))
    assert "lost 50 races" in str(error)


def start_lock(home: Home) -> "subprocess.Popen[str]":
    """Start a process that locks the catalog, and stop it."""
    writer = subprocess.Popen([sys.executable, "-c", LOCK, str(home.catalog)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    assert writer.stdout.readline() == "locked\n"
    writer.send_signal(signal.SIGSTOP)
    return writer


def write_directly(lake: Lake) -> None:
    """Write to the catalog with a short timeout of SQLite's own, which says what DuckDB passes on."""
    import duckdb

    with closing(sqlite3.connect(lake.home.catalog, timeout=0.1)) as con:
        try:
            con.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise duckdb.IOException(str(error)) from error
