"""Maintenance: fewer files and snapshots, no leftovers, nothing lost."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.operations.maintain import maintain, plan_maintenance
from storage.lake.attach import open_lake, read_lake
from storage.lake.ducklake_files import delete_files, list_live, list_stored_files
from storage.lake.lake import Lake
from storage.lake.snapshots import tag_snapshot
from storage.locations.home import Home, open_home
from storage.tables.features import read_features
from tests.rows import LABELLED, RECIPE, add_features, label, make_vectors, name

DAY = timedelta(days=1)
NEVER = timedelta(days=365)

WRITER = """
import sys
from pathlib import Path
from storage.lake.attach import open_lake
from storage.locations.home import open_home
from tests.rows import add_features
start = int(sys.argv[2])
for number in range(start, start + 15, 3):
    with open_lake(open_home(Path(sys.argv[1]))) as lake:
        add_features(lake, range(number, number + 3))
"""


@pytest.fixture
def here(tmp_path: Path) -> Home:
    """A home that holds its lake: its files are looked at one by one."""
    return open_home(tmp_path / "home")


def later(days: int) -> datetime:
    return datetime.now(UTC) + days * DAY


def feature_files(lake: Lake) -> list[str]:
    return [file.path for file in list_live(lake) if file.table == "features"]


def assert_whole(home: Home, numbers: range) -> None:
    with read_lake(home) as lake:
        assert lake.value("SELECT count(*) FROM features") == len(numbers)
        vectors = read_features(lake, RECIPE, [name(number) for number in numbers])
    assert np.array_equal(vectors, make_vectors(numbers))


def test_small_files_are_merged_without_growing_and_get_a_checksum(here: Home) -> None:
    with open_lake(here) as lake:
        for start in range(0, 30, 5):
            add_features(lake, range(start, start + 5))
            label(lake, range(start, start + 5), "cat")
    assert plan_maintenance(here, NEVER, DAY, later(0)).compacted == 6
    assert maintain(here, NEVER, DAY, later(0)).compacted == 6
    assert_whole(here, range(30))
    with read_lake(here) as lake:
        (path,) = feature_files(lake)
        assert lake.rows("SELECT path FROM checksums") == [(path,)]
        assert lake.value("SELECT count(*) FROM labels") == 30
    column = pq.read_metadata(here.data / path).row_group(0).column(1)
    assert (column.compression, "BYTE_STREAM_SPLIT" in column.encodings) == ("ZSTD", True)
    assert maintain(here, NEVER, DAY, later(0)).compacted == 0


def test_deleted_rows_are_removed_from_their_file(here: Home) -> None:
    with open_lake(here) as lake:
        add_features(lake, range(20))
        lake.commit(lambda: lake.execute(f"DELETE FROM features WHERE {LABELLED} >= 12"))
    maintain(here, NEVER, DAY, later(0))
    assert_whole(here, range(12))
    with read_lake(here) as lake:
        (path,) = feature_files(lake)
    assert pq.read_metadata(here.data / path).num_rows == 12


def test_old_snapshots_expire_but_the_tagged_and_those_of_registered_models(place: Home) -> None:
    with open_lake(place) as lake:
        add_features(lake, range(4))
        tagged = tag_snapshot(lake, "v1", None, datetime.now(UTC))
        add_features(lake, range(4, 8))
        modelled = lake.snapshot
        heads = "INSERT INTO heads (training_id, snapshot) VALUES ('t', ?), ('unregistered', ?)"
        lake.commit(lambda: lake.execute(heads, [modelled, modelled + 1]))
        lake.commit(lambda: lake.execute("INSERT INTO models (name, version, training_id) VALUES ('m', 1, 't')"))
        add_features(lake, range(8, 12))
        newest = lake.snapshot
    maintain(place, 30 * DAY, DAY, later(31))
    with read_lake(place) as lake:
        left = [snapshot for (snapshot,) in lake.rows("SELECT snapshot_id FROM ducklake_snapshots('lake')")]
        assert left[:2] == [tagged, modelled]
        assert min(left[2:]) > newest
        for snapshot, count in ((tagged, 4), (modelled, 8)):
            with read_lake(lake.home, snapshot) as then:
                assert then.value("SELECT count(*) FROM features") == count
    assert_whole(place, range(12))


def test_files_of_no_snapshot_are_deleted_after_a_day(here: Home) -> None:
    with open_lake(here) as lake:
        for start in (0, 5):
            add_features(lake, range(start, start + 5))
        old = feature_files(lake)
    maintain(here, timedelta(0), DAY, later(0))
    assert all((here.data / path).exists() for path in old)
    assert len(maintain(here, timedelta(0), DAY, later(2)).unread) >= 2
    assert not any((here.data / path).exists() for path in old)
    assert_whole(here, range(10))


def test_leftovers_of_killed_runs_are_deleted_after_a_day(here: Home) -> None:
    folder = here.data / "main" / "features" / f"recipe_id={RECIPE}"
    with open_lake(here) as lake:
        add_features(lake, range(5))
    old, young = folder / "old.parquet", folder / "young.unfinished"
    for path in (old, folder / "old.unfinished", young):
        path.write_bytes(b"half")
    for path in (old, folder / "old.unfinished"):
        os.utime(path, (0, 0))
    planned = plan_maintenance(here, NEVER, DAY, later(0)).orphans
    assert old.exists()
    assert {Path(path).name for path in planned} == {"old.parquet", "old.unfinished"}
    assert set(maintain(here, NEVER, DAY, later(0)).orphans) == set(planned)
    assert (old.exists(), young.exists()) == (False, True)
    assert_whole(here, range(5))


def test_a_dry_run_writes_nothing(place: Home) -> None:
    with open_lake(place) as lake:
        for start in (0, 5):
            add_features(lake, range(start, start + 5))
        before = lake.snapshot, list_stored_files(lake)
    plan = plan_maintenance(place, timedelta(0), DAY, later(2))
    assert (plan.compacted, len(plan.expired)) == (2, before[0])
    with open_lake(place) as lake:
        assert (lake.snapshot, list_stored_files(lake)) == before


def test_nothing_is_lost_and_no_writer_fails_while_it_maintains(here: Home) -> None:
    open_lake(here).close()
    command = [sys.executable, "-c", WRITER, str(here.root)]
    writers = [subprocess.Popen([*command, str(15 * k)], stderr=subprocess.PIPE, text=True) for k in range(2)]
    while any(writer.poll() is None for writer in writers):
        maintain(here, timedelta(0), DAY, later(0))
    ends = [(writer.communicate()[1], writer.returncode) for writer in writers]
    assert ends == [("", 0)] * 2
    maintain(here, timedelta(0), DAY, later(2))
    assert_whole(here, range(30))
    with read_lake(here) as lake:
        assert len(feature_files(lake)) == 1


def test_an_orphan_that_another_maintenance_has_deleted_is_no_error(place: Home) -> None:
    with open_lake(place) as lake:
        add_features(lake, range(5))
        delete_files(lake, [f"main/features/recipe_id={RECIPE}/gone.parquet"])
    assert_whole(place, range(5))
