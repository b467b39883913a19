"""Promise 3: `kill -9` at any moment costs at most the shard in flight."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from storage.lake.attach import read_lake
from storage.locations.home import open_home
from tests.counting import Tally

if TYPE_CHECKING:
    from flows.embed import Embedded

ROOT = Path(__file__).parents[2]
SHARD = 8


def start(photos: Path, home: Path, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Start a real run over the counting backbone, in a process group of its own."""
    flags = ["--home", str(home), "--embed.shard", str(SHARD), "--embed.batch", "4"]
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COUNTING_LOG": str(log),
        "COUNTING_SECONDS": str(seconds),
    }
    command = [sys.executable, "-m", "tests.counting", "run", str(photos), *flags]
    return subprocess.Popen(command, env=variables, start_new_session=True, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(process: subprocess.Popen[bytes], tally: Tally, images: int) -> None:
    """Wait until so many images went through the backbone, or the run is over."""
    while tally.images < images and process.poll() is None:
        time.sleep(0.01)


def test_killed_runs_cost_only_the_shards_in_flight(photos: Path, home: Path, tmp_path: Path) -> None:
    moments = random.Random(0)
    tally = Tally(tmp_path / "calls")
    kills = 0
    for images in (0, 3, 14, 29, 47):
        process = start(photos, home, tally.log, 0.05)
        wait_for(process, tally, tally.images + 1 if images else 0)
        wait_for(process, tally, images)
        time.sleep(moments.random() * (3 if images == 0 else 0.5))
        kill(process)
        kills += 1
    process = start(photos, home, tally.log, 0)
    wait_for(process, tally, 60)
    time.sleep(moments.random() + 1)  # somewhere in training and registering
    kill(process)
    assert start(photos, home, tally.log, 0).wait() == 0
    assert tally.images <= 60 + (kills + 1) * SHARD
    with read_lake(open_home(home)) as lake:
        twice = "SELECT image_id, recipe_id, count(*) FROM features GROUP BY ALL HAVING count(*) > 1"
        assert lake.rows(twice) == []
        assert lake.value("SELECT count(*) FROM features") == 60
        assert lake.rows("SELECT class, count(*) FROM labels GROUP BY ALL ORDER BY ALL") == [
            ("blue", 20),
            ("green", 20),
            ("red", 20),
        ]
        assert lake.value("SELECT count(*) FROM heads") == 1
        assert lake.rows("SELECT name, version, alias FROM models") == [("photos", 1, "champion")]
        assert lake.value("SELECT count(*) FROM latest_predictions") == 60
    store = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(store, store)
    assert len(client.search_model_versions("name='photos'")) == 1


def test_a_shard_ends_by_the_clock_whatever_pace_was_expected(
    embed_photos: Callable[..., "Embedded"], tally: Tally, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally.seconds = 0.1  # a batch
    monkeypatch.setattr("tasks.embed.step.SHARD_SECONDS", 0.25)
    done = embed_photos()
    assert (done.computed, done.failed, tally.images) == (60, 0, 60)
    with read_lake(open_home(home)) as lake:
        sizes = lake.column("SELECT images FROM shards")
    assert sum(sizes) == 60
    assert len(sizes) >= 2
    assert max(sizes) < 60  # what was decided to be one shard, as the pace was not known


def test_with_no_time_a_shard_is_one_batch(
    embed_photos: Callable[..., "Embedded"], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.embed.step.SHARD_SECONDS", 0)
    assert embed_photos(embed={"batch": 16}).computed == 60
    with read_lake(open_home(home)) as lake:
        assert sorted(lake.column("SELECT images FROM shards")) == [12, 16, 16, 16]


def test_a_size_that_a_person_chose_is_kept(
    embed_photos: Callable[..., "Embedded"], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.embed.step.SHARD_SECONDS", 0)
    assert embed_photos(embed={"shard": 25}).computed == 60
    with read_lake(open_home(home)) as lake:
        assert sorted(lake.column("SELECT images FROM shards")) == [10, 25, 25]
