"""Moving a lake: the same rows in every snapshot at the destination; never over another lake."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.care.move import move_lake
from storage.errors import LakeError, SettingsError
from storage.lake.attach import make_lake, open_lake, read_existing_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.tables.features import commit_shard, read_features
from storage.vectors.feature_file import Failure, Matrix, Shard, write_features

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = "d" * 32
IDS = [f"{number:032x}" for number in range(12)]
VECTORS: Matrix = np.arange(12 * 4, dtype=np.float32).reshape(12, 4)
TABLES = ("features", "shards", "failures", "canaries", "guard", "lake_version")
ELSEWHERE = pytest.mark.parametrize("place", ["postgres+folder", "postgres+s3"], indirect=True)


def fill(home: Home) -> None:
    """Make a lake with files, rows that DuckLake keeps in its catalog, and deletions."""
    with open_lake(home) as lake:
        for start in (0, 4, 8):
            ids = IDS[start : start + 4]
            file = write_features(home, RECIPE, ids, VECTORS[start : start + 4])
            failures = (Failure(f"{start + 99:032x}", "it's a path", "decode", "broken"),)
            commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, failures, 4, 0.25), NOW)
        values = "('r', 'p', '\\x00\\xFF'::BLOB, [0.1, 2], 0.1, NULL, 3, now())"
        lake.commit(lambda: lake.execute(f"INSERT INTO canaries VALUES {values}"))
        lake.commit(lambda: lake.execute("DELETE FROM failures WHERE image_id IS NOT NULL"))
        lake.commit(lambda: lake.execute(f"DELETE FROM features WHERE image_id = '{IDS[5]}'::UUID"))


def read_history(lake: Lake) -> dict[int, dict[str, Any]]:
    """Read all tables as they were in every snapshot."""
    snapshots = range(1, lake.snapshot + 1)
    return {
        at: {name: lake.rows(f"FROM {name} AT (VERSION => {at}) ORDER BY ALL") for name in TABLES} for at in snapshots
    }


@ELSEWHERE
def test_a_moved_lake_is_the_same_in_every_snapshot_and_can_be_written(place: Home) -> None:
    old = open_home(place.root)
    fill(old)
    with read_lake(old) as lake:
        before = read_history(lake)
    snapshot = move_lake(place)
    with open_lake(place) as lake:
        after = read_history(lake)
        assert {at: after[at] for at in before} == before
        assert lake.snapshot == snapshot
        assert np.array_equal(read_features(lake, RECIPE, IDS[:5]), VECTORS[:5])
        file = write_features(place, RECIPE, IDS, VECTORS)
        assert commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, (), 12, 1.0), NOW) == 1
    if place.data_url:
        with read_lake(old) as lake:
            assert lake.value("SELECT count(*) FROM features") == 11
    else:
        assert_put_aside(old)


def assert_put_aside(old: Home) -> None:
    """Its data are another catalog's now: the old one opens no more, and comes back by its name."""
    with pytest.raises(LakeError, match="has files of one"):
        open_lake(old)
    for file in old.root.glob("catalog.moved*"):
        file.rename(file.with_name(file.name.replace("moved", "sqlite")))
    with read_lake(old) as lake:
        assert lake.value("SELECT count(*) FROM features") == 11


@ELSEWHERE
def test_a_lake_is_not_moved_over_another(place: Home) -> None:
    open_lake(place).close()
    with pytest.raises(LakeError, match="no lake to move"):
        move_lake(place)
    fill(open_home(place.root))
    with pytest.raises(LakeError, match="exists already"):
        move_lake(place)


@ELSEWHERE
def test_the_empty_catalog_of_a_killed_move_is_no_lake_until_the_move_is_repeated(place: Home) -> None:
    old = open_home(place.root)
    fill(old)
    make_lake(place, filled=True).close()  # what a kill before the copy leaves
    if not place.data_url:
        for opened in (open_lake, read_lake):
            with pytest.raises(LakeError, match=r"has files of one.*frostline move"):
                opened(place)
    with pytest.raises(LakeError, match=r"has no lake|has files of one"):
        read_existing_lake(place)
    move_lake(place)
    with read_lake(place) as lake:
        assert lake.value("SELECT count(*) FROM features") == 11


def test_a_move_without_a_destination_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"lake\.catalog"):
        move_lake(open_home(tmp_path))
