"""Long operations that are killed midway: nothing is lost, and the next one finishes."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from flows.operations.maintain import maintain
from storage.care.doctor import check_lake
from storage.care.move import move_lake
from storage.lake.attach import open_lake, read_lake
from storage.lake.snapshots import tag_snapshot
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.tables.features import commit_shard, read_features
from storage.tables.recipes import save_recipe
from storage.vectors.feature_file import Shard, write_features
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tests.counting import decide_recipe
from tests.lakes import Postgres, database_of
from tests.rows import NOW, label, make_vectors, name
from tests.servers import ROOT

RECIPE = decide_recipe(EmbedSettings(), Weights(Path("none"), "0" * 64))
COUNT, HALF = 30, 15
IDS = [name(number) for number in range(COUNT)]
VECTORS = make_vectors(range(COUNT), 48)


def fill(home: Home) -> None:
    """Make a lake of many small files; half of it is tagged."""
    with open_lake(home) as lake:
        save_recipe(lake, {}, RECIPE, NOW)
        label(lake, range(COUNT), "cat")
        for at in range(0, COUNT, 3):
            file = write_features(home, RECIPE.recipe_id, IDS[at : at + 3], VECTORS[at : at + 3])
            commit_shard(lake, Shard(RECIPE.recipe_id, SourceName("photos"), file, (), 3, 1.0), NOW)
            if at + 3 == HALF:
                tag_snapshot(lake, "half", None, NOW)


def assert_whole(home: Home) -> None:
    """Each feature is there once, bit for bit, then as now, and the doctor finds nothing."""
    for at, count in (("half", HALF), (None, COUNT)):
        with read_lake(home, at) as lake:
            assert lake.value("SELECT count(*) FROM features") == count
            assert np.array_equal(read_features(lake, RECIPE.recipe_id, IDS[:count]), VECTORS[:count])
    with read_lake(home) as lake:
        assert check_lake(lake, datetime.now(UTC)) == []


def kill_when(seen: Callable[[], bool], *command: str) -> None:
    """Start a command as a process, and kill it as soon as something is seen."""
    start = [sys.executable, "-c", "from flows.start import main; main()", *command]
    process = subprocess.Popen(start, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    while process.poll() is None and not seen():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["a file is written anew", "a file is deleted"])
def test_killed_maintenance_loses_nothing_and_is_finished_by_the_next(tmp_path: Path, moment: str) -> None:
    home = open_home(tmp_path)
    fill(home)

    def list_vectors() -> set[str]:
        return {path.name for path in home.data.glob("main/features/*/*.parquet")}

    old = list_vectors()
    seen = {
        "a file is written anew": lambda: bool(list_vectors() - old),
        "a file is deleted": lambda: bool(old - list_vectors()),
    }[moment]
    kill_when(seen, "maintain", "--older-than", "0d", "--grace", "0d", "--home", str(tmp_path))
    assert_whole(home)
    for _ in range(2):
        done = maintain(home, timedelta(0), timedelta(0), datetime.now(UTC))
        assert_whole(home)
    assert (done.compacted, done.orphans) == (0, ())
    assert len(list_vectors()) == 1 + HALF // 3  # the tag keeps those of its half


@pytest.mark.parametrize("moment", ["the catalog is made", "the copy is there"])
@pytest.mark.parametrize("place", ["postgres+folder"], indirect=True)
def test_a_killed_move_loses_nothing_and_is_finished_by_the_next(place: Home, postgres: Postgres, moment: str) -> None:
    old = open_home(place.root)
    fill(old)
    question = {
        "the catalog is made": "SELECT to_regclass('ducklake_metadata') IS NOT NULL",
        "the copy is there": "SELECT count(*) > 1 FROM ducklake_snapshot",
    }[moment]

    def see() -> bool:
        try:
            return postgres.psql(database_of(place), question).strip() == "t"
        except subprocess.CalledProcessError:  # the table is not there yet
            return False

    # Whoever reads the old catalog keeps it from being renamed; beside another writer a reader blocks nothing else.
    with open_lake(old), closing(sqlite3.connect(old.catalog)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM ducklake_snapshot").fetchone()
        kill_when(see, "move", "--home", str(place.root), "--lake.catalog", str(place.catalog_url))
    assert_whole(old)
    move_lake(place)
    assert_whole(place)
    assert not old.catalog.exists()
