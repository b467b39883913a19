"""A lake of the first release opens in this one: nothing is lost, nothing is computed again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake, Row
from storage.lake.migrate import VERSION, read_version
from storage.locations.home import Home, open_home
from storage.tables.features import read_features
from storage.tables.trainings import head_path, list_trainings
from tasks.heads.files import load_head
from tests.counting import Tally

FIRST = Path(__file__).parent / "lakes" / "first_lake.zip"
ROWS = {
    "files": 32,
    "images": 32,
    "scans": 2,
    "labels": 31,
    "recipes": 1,
    "recipe_requests": 1,
    "features": 31,
    "shards": 2,
    "failures": 2,
    "heads": 2,
    "training_sets": 60,
    "models": 2,
    "predictions": 60,
}
NEWEST, TRAINED = 10, 4  # snapshots: the release's last, and the one from which it trained its first head
TRIED_AGAIN = {"files": 31, "failures": 0}
"""What the decoder of an earlier release refused is forgotten once, so that the next scan reads it again."""


@pytest.fixture
def first(tmp_path: Path) -> Home:
    """The first release's home, beside its photos, whose files have the times that it knows."""
    with zipfile.ZipFile(FIRST) as packed:
        packed.extractall(tmp_path)
    return open_home(tmp_path / "home")


@contextlib.contextmanager
def open_raw(home: Home) -> Iterator[Lake]:
    """Open a lake as it lies, without an upgrade: at its newest snapshot by number."""
    with contextlib.closing(read_lake(home, NEWEST)) as lake:
        yield lake


def count_rows(lake: Lake) -> dict[str, int]:
    return {name: int(lake.value(f"SELECT count(*) FROM {name}")) for name in ROWS}


def describe(lake: Lake) -> dict[str, list[Row]]:
    """Return tables, columns in their order, views, and all comments."""
    return {
        "tables": lake.rows(
            "SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY table_name"
        ),
        "columns": lake.rows(
            """SELECT table_name, column_index, column_name, data_type, comment FROM duckdb_columns()
               WHERE database_name = 'lake' AND table_name NOT IN (SELECT view_name FROM duckdb_views())
               ORDER BY table_name, column_index"""
        ),
        "views": lake.rows(
            "SELECT view_name, sql, comment FROM duckdb_views() WHERE database_name = 'lake' ORDER BY view_name"
        ),
    }


def test_every_row_is_there_after_the_upgrade(first: Home) -> None:
    with open_raw(first) as lake:
        assert (read_version(lake), count_rows(lake)) == (1, ROWS)
    with read_lake(first) as lake:
        assert (read_version(lake), count_rows(lake)) == (VERSION, ROWS | TRIED_AGAIN)
        assert lake.value("SELECT count(*) FROM heads WHERE code IS NULL") == 2
        assert lake.snapshot == NEWEST + VERSION - 1
    with open_lake(first) as lake:
        assert lake.snapshot == NEWEST + VERSION - 1  # nothing is left to upgrade


def test_an_upgraded_lake_has_the_schema_and_the_comments_of_a_new_one(first: Home, tmp_path: Path) -> None:
    with open_lake(first) as old, open_lake(open_home(tmp_path / "new")) as new:
        assert describe(old) == describe(new)
        assert all(comment for _, comment in describe(new)["tables"])
        assert all(row[-1] for row in describe(new)["columns"])
        assert all(row[-1] for row in describe(new)["views"])


def test_choices_and_views_move_from_the_settings_to_columns(first: Home) -> None:
    choice = '"chosen_head":"tail","chosen_epoch":3,"chosen_l2":1e-05'
    settings = f'{{"average_views":true,{choice},"group":null,"views":["v1","v2"]}}'
    with patch("storage.lake.migrate.VERSION", 3), patch("storage.lake.attach.VERSION", 3), open_lake(first) as lake:
        rows = "SELECT 'tail', label_set, recipe_id, snapshot, ?, metrics, trained_at, code FROM heads LIMIT 1"
        lake.commit(lambda: lake.execute(f"INSERT INTO heads {rows}", [settings]))
        broken = "INSERT INTO heads (training_id, settings, metrics) VALUES ('broken', 'no JSON', '{}')"
        lake.commit(lambda: lake.execute(broken))
        before = list_trainings(lake, "training_id <> 'broken'")  # as snapshots from before the upgrade are read
    with open_lake(first) as lake:
        after = list_trainings(lake, "training_id <> 'broken'")
        assert lake.rows("SELECT settings, kind FROM heads WHERE training_id = 'broken'") == [("no JSON", None)]
    assert after == before
    [tail] = [training for training in after if training.training_id == "tail"]
    assert (tail.kind, tail.hyperparameters, tail.averaged) == ("tail", {"epoch": 3, "l2": 1e-05}, ("v1", "v2"))
    assert tail.settings == {"average_views": True, "group": None}
    assert tail.parameters == json.loads(settings)
    assert [training.chosen for training in after if training != tail] == [{"head": "softmax", "l2": 1e-04}] * 2


def test_the_lake_as_it_was_before_the_upgrade_stays_readable(first: Home) -> None:
    open_lake(first).close()
    with read_lake(first, TRAINED) as lake:
        assert read_version(lake) == 1
        assert lake.value("SELECT count(*) FROM features") == 30
        assert lake.value("SELECT count(*) FROM labels") == 31
        assert lake.value("SELECT count(*) FROM heads") == 0


def test_old_heads_load_and_predict_the_same(first: Home) -> None:
    with open_lake(first) as lake:
        versions = lake.rows("SELECT version, training_id, recipe_id FROM models JOIN heads USING (training_id)")
        assert len(versions) == 2
        for version, training_id, recipe_id in versions:
            said = lake.rows(
                "SELECT image_id::VARCHAR, class, probability FROM predictions WHERE version = ? ORDER BY ALL",
                [version],
            )
            head = load_head(head_path(first, training_id))
            probabilities = head.probabilities(read_features(lake, recipe_id, [row[0] for row in said]))
            assert [head.classes[best] for best in probabilities.argmax(axis=1)] == [row[1] for row in said]
            assert np.array_equal(
                probabilities.max(axis=1).astype(np.float32), np.array([row[2] for row in said], np.float32)
            )


def test_a_run_after_the_upgrade_computes_and_trains_nothing(first: Home, tally: Tally) -> None:
    from flows.embed import embed
    from flows.ingest import ingest
    from flows.settings import RunSettings
    from flows.train import train

    photos = restore_times(first.root.parent / "photos")
    settings = RunSettings(source=photos, home=first.root)
    seen = ingest(settings, for_training=True)
    assert (seen.new, seen.opened) == (0, 32)  # once: the decoder has changed
    done = embed(settings)
    assert (done.computed, done.reused, done.failed) == (0, 30, 2)
    assert tally.images == 0
    assert not train(settings).new


def restore_times(photos: Path) -> Path:
    """Give the unpacked files the times that the lake has for them; a zip rounds them to two seconds."""
    with read_lake(open_home(photos.parent / "home"), NEWEST) as lake:
        for path, time in lake.rows("SELECT path, mtime_ns FROM files"):
            os.utime(photos / path, ns=(time, time))
    return photos


UPGRADER = """
import sys
from pathlib import Path
from unittest.mock import patch
from storage.lake.attach import open_lake
from storage.locations.home import open_home

print("ready", flush=True)
sys.stdin.readline()
open_lake(open_home(Path(sys.argv[1]))).close()
"""


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_two_processes_that_open_it_at_once_upgrade_it_once(first: Home) -> None:
    processes = [start_python(UPGRADER, first.root) for _ in range(2)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in processes]
    assert [(process.returncode, stderr) for process, (_, stderr) in zip(processes, ends, strict=True)] == [(0, "")] * 2
    with read_lake(first) as lake:
        assert (read_version(lake), count_rows(lake)) == (VERSION, ROWS | TRIED_AGAIN)
        upgrades = lake.rows(f"SELECT snapshot_id FROM ducklake_snapshots('lake') WHERE snapshot_id > {NEWEST}")
        assert len(upgrades) <= 2 * (VERSION - 1)
        assert lake.value("SELECT count(*) FROM lake_version") == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from unittest.mock import patch
from storage.lake import migrate
from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home

share = float(sys.argv[2])
whole = migrate._read

def read_part(name):
    text = whole(name)
    return text[: text.rindex(";", 0, int(len(text) * share)) + 1]

run = Lake.execute

def run_then_die(self, sql, parameters=()):
    run(self, sql, parameters)
    if "CREATE TABLE leases" in sql:
        os.kill(os.getpid(), signal.SIGKILL)

migrate._read, Lake.execute = read_part, run_then_die
open_lake(open_home(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_an_upgrade_that_is_killed_leaves_the_lake_as_it_was_and_the_next_does_it(first: Home, share: float) -> None:
    process = start_python(KILLED, first.root, share)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    with open_raw(first) as lake:
        assert lake.snapshot == NEWEST
        assert (read_version(lake), count_rows(lake)) == (1, ROWS)
    with open_lake(first) as lake:
        assert (read_version(lake), count_rows(lake)) == (VERSION, ROWS | TRIED_AGAIN)


def test_the_lake_is_small_and_can_be_moved(first: Home) -> None:
    assert FIRST.stat().st_size < 200_000
    moved = first.root.with_name("elsewhere")
    shutil.move(first.root, moved)
    with read_lake(open_home(moved)) as lake:
        assert count_rows(lake) == ROWS | TRIED_AGAIN
        assert isinstance(lake.value("SELECT made_at FROM lake_version"), datetime)
