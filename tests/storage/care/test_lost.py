"""Lost files of features are found and dropped from the catalog, so that the next run computes them again."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import duckdb
import numpy as np
import pytest

from storage.care.lost_features import drop_files
from storage.errors import LakeError
from storage.lake.attach import open_lake, read_lake
from storage.lake.ducklake_files import list_live
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.parquet_files import open_data
from storage.names import SourceName
from storage.tables.features import commit_shard, filter_known, read_features
from storage.tables.lost_files import find_lost
from storage.vectors.feature_file import Matrix, Shard, write_features

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE, OTHER = "a" * 32, "b" * 32
IDS = [f"{number:032x}" for number in range(1, 41)]
VECTORS: Matrix = np.arange(40 * 16, dtype=np.float32).reshape(40, 16)


@pytest.fixture
def lake(place: Home) -> Iterator[Lake]:
    """A lake with two files of a recipe, and one of another."""
    with open_lake(place) as opened:
        for recipe, rows in ((RECIPE, slice(25)), (RECIPE, slice(25, 40)), (OTHER, slice(5))):
            commit(opened, rows, recipe)
        yield opened


def commit(lake: Lake, rows: slice, recipe: str = RECIPE) -> int:
    file = write_features(lake.home, recipe, IDS[rows], VECTORS[rows])
    return commit_shard(lake, Shard(recipe, SourceName("photos"), file, (), 1, 1.0), NOW)


def lose(home: Home, path: str, left: int | None = None) -> None:
    """Delete a file of the lake, or all but its first bytes."""
    system, folder = open_data(home)
    if left is None:
        system.delete_file(f"{folder}/{path}")
        return
    with system.open_input_file(f"{folder}/{path}") as file:
        data = file.read(left)
    with system.open_output_stream(f"{folder}/{path}") as file:
        file.write(data)


def find_path(lake: Lake, rows: int, recipe: str = RECIPE) -> str:
    """Name the file of so many rows."""
    (path,) = [file.path for file in list_live(lake) if recipe in file.path and file.rows == rows]
    return path


def test_no_file_of_a_sound_lake_is_lost(lake: Lake) -> None:
    assert [find_lost(lake, recipe) for recipe in (RECIPE, OTHER, "c" * 32)] == [[], [], []]


@pytest.mark.parametrize("left", [None, 300])
def test_the_features_of_a_lost_file_are_missing_once_it_is_dropped_and_can_be_added_again(
    lake: Lake, left: int | None
) -> None:
    path = find_path(lake, 25)
    lose(lake.home, path, left)
    lost = find_lost(lake, RECIPE)
    assert [(file.path, file.rows) for file in lost] == [(path, 25)]
    assert find_lost(lake, OTHER) == []

    then = lake.snapshot
    assert drop_files(lake, [path]) == 1
    assert lake.snapshot == then + 1
    assert find_lost(lake, RECIPE) == []
    assert filter_known(lake, RECIPE, IDS) == {str(UUID(image_id)) for image_id in IDS[25:]}
    assert np.array_equal(read_features(lake, RECIPE, IDS[25:]), VECTORS[25:])
    assert np.array_equal(read_features(lake, OTHER, IDS[:5]), VECTORS[:5])

    assert commit(lake, slice(40)) == 25
    assert np.array_equal(read_features(lake, RECIPE, IDS), VECTORS)
    assert lake.value("SELECT count(*) FROM features WHERE recipe_id = ?", [RECIPE]) == 40


def test_a_file_is_dropped_once(lake: Lake) -> None:
    path = find_path(lake, 15)
    lose(lake.home, path)
    then = lake.snapshot
    assert [drop_files(lake, [path]), drop_files(lake, [path]), drop_files(lake, [])] == [1, 0, 0]
    assert lake.snapshot == then + 1


def test_reading_an_older_snapshot_still_reports_the_missing_file(lake: Lake) -> None:
    path, then = find_path(lake, 15), lake.snapshot
    lose(lake.home, path)
    drop_files(lake, [path])
    with read_lake(lake.home, then) as old, pytest.raises(duckdb.Error, match=path.rpartition("/")[2]):
        old.rows("SELECT sum(list_sum(vector)) FROM features")


def test_a_file_with_deleted_rows_is_dropped_with_them(lake: Lake) -> None:
    path = find_path(lake, 25)
    lake.commit(lambda: lake.execute("DELETE FROM features WHERE image_id = ?::UUID", [IDS[0]]))
    lose(lake.home, path)
    drop_files(lake, [path])
    assert lake.value("SELECT count(*) FROM features WHERE recipe_id = ?", [RECIPE]) == 15
    assert commit(lake, slice(25)) == 25


def test_a_commit_that_began_before_a_file_was_dropped_succeeds(lake: Lake) -> None:
    path = find_path(lake, 15)
    lose(lake.home, path)
    tries: list[int] = []
    with open_lake(lake.home) as other:

        def write() -> None:
            tries.append(drop_files(other, [path]))
            lake.execute("INSERT INTO tags VALUES ('then', 1, ?)", [NOW])

        lake.commit(write)
    assert tries[0] == 1
    assert lake.value("SELECT count(*) FROM tags") == 1
    assert find_lost(lake, RECIPE) == []


def test_a_lake_that_cannot_be_written_says_so(lake: Lake) -> None:
    path = find_path(lake, 15)
    with read_lake(lake.home) as reading, pytest.raises(LakeError, match="cannot be written"):
        drop_files(reading, [path])
