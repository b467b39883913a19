"""Several writers at once: each feature is committed exactly once, and no writer fails."""

import contextlib
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np

from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.tables.features import commit_shard
from storage.vectors.feature_file import Shard, write_features

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = "a" * 32
KEYS, SHARD, WRITERS = 1200, 100, 4

WRITER = """
import sys
from pathlib import Path
from storage.lake.attach import open_lake
from storage.locations.home import open_home
from tests.faults.test_races import KEYS, NOW, SHARD, commit_shard, make_shard

with open_lake(open_home(Path(sys.argv[1]), *(url or None for url in sys.argv[2:]))) as lake:
    print("ready", flush=True)
    sys.stdin.readline()
    starts = range(0, KEYS, SHARD)
    print(sum(commit_shard(lake, make_shard(lake.home, range(start, start + SHARD)), NOW) for start in starts))
"""


def make_shard(home: Home, keys: range) -> Shard:
    """Write a file of features whose numbers are their keys."""
    vectors = np.repeat(np.array(keys, np.float32)[:, None], 8, axis=1)
    file = write_features(home, RECIPE, [f"{key:032x}" for key in keys], vectors)
    return Shard(RECIPE, SourceName("photos"), file, (), len(keys), 1.0)


def count_rows(lake: Lake) -> tuple[int, int]:
    """Count the features, and the distinct images among them."""
    rows, images = lake.rows("SELECT count(*), count(DISTINCT image_id) FROM features")[0]
    return rows, images


def start_writer(home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home.root), home.catalog_url or "", home.data_url or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_four_processes_that_commit_the_same_keys_add_each_once(place: Home) -> None:
    open_lake(place).close()
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(start_writer(place)) for _ in range(WRITERS)]
        assert [writer.stdout.readline() for writer in writers if writer.stdout] == ["ready\n"] * WRITERS
        for writer in writers:
            assert writer.stdin
            writer.stdin.write("go\n")
            writer.stdin.flush()
        ends = [writer.communicate(timeout=240) for writer in writers]
    assert [(writer.returncode, stderr) for writer, (_, stderr) in zip(writers, ends, strict=True)] == [(0, "")] * 4
    with read_lake(place) as lake:
        assert count_rows(lake) == (KEYS, KEYS)
        assert lake.value("SELECT bool_and(vector[1] = ('0x' || right(image_id::VARCHAR, 4))::INT) FROM features")
        assert lake.value("SELECT n FROM guard") == WRITERS * KEYS // SHARD
    assert sum(int(stdout) for stdout, _ in ends) == KEYS  # what each says that it added


def test_a_commit_that_lost_a_race_runs_again(place: Home) -> None:
    with open_lake(place) as slow, open_lake(place) as fast:
        tries: list[int] = []

        def write() -> int:
            known = int(slow.value("SELECT count(*) FROM recipes WHERE recipe_id = 'once'"))
            if not known:
                slow.execute("INSERT INTO recipes (recipe_id) VALUES ('once')")
            if not tries:  # after the look, before the commit
                fast.commit(lambda: fast.execute("INSERT INTO recipes (recipe_id) VALUES ('once')"))
            tries.append(known)
            return known

        assert slow.commit(write) == 1
        assert tries == [0, 1]
        assert slow.value("SELECT count(*) FROM recipes") == 1


def test_a_shard_that_another_writer_committed_first_adds_nothing(place: Home) -> None:
    with open_lake(place) as first, open_lake(place) as second:
        shards = [make_shard(place, range(SHARD)) for _ in range(2)]
        assert [commit_shard(lake, shard, NOW) for lake, shard in zip((first, second), shards, strict=True)] == [100, 0]
        assert count_rows(first) == (SHARD, SHARD)


def test_the_guard_grows_by_one_with_each_commit(place: Home) -> None:
    with open_lake(place) as lake:
        assert lake.rows("SELECT n FROM guard") == [(0,)]
        for number in range(1, 4):
            commit_shard(lake, make_shard(place, range(number * SHARD)), NOW)
            assert lake.rows("SELECT n FROM guard") == [(number,)]
