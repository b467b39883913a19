"""Features: read back as stored, and committed exactly once."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.errors import LakeError
from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.progress import silent
from storage.tables.features import Pace, commit_shard, measure_pace, read_features
from storage.tables.missing import FIRST_ID, FeatureRequest, list_missing
from storage.tables.scans import Scan, commit_scan
from storage.vectors.feature_file import Failure, Matrix, Shard, write_features
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.lakes import list_files
from tests.pictures import write_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE, OTHER = "a" * 32, "b" * 32
DIM = 16
IDS = [f"{number:032x}" for number in range(1, 41)]


@pytest.fixture
def lake(place: Home) -> Iterator[Lake]:
    with open_lake(place) as opened:
        yield opened


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Six images, two a class."""
    return write_folder(tmp_path / "photos", per_class=2)


def make_vectors(rows: int, dim: int = DIM, seed: int = 0) -> Matrix:
    """Features' like: not negative, half of them zero, as precise as float16."""
    normal = np.random.default_rng(seed).standard_normal((rows, dim))
    return np.maximum(normal, 0).astype(np.float16).astype(np.float32)


def commit(
    lake: Lake,
    image_ids: Sequence[str],
    vectors: Matrix | None = None,
    *,
    failures: Sequence[Failure] = (),
    recipe: str = RECIPE,
    now: datetime = NOW,
    seconds: float = 1.0,
) -> int:
    given = make_vectors(len(image_ids)) if vectors is None else vectors
    file = write_features(lake.home, recipe, image_ids, given) if image_ids else None
    return commit_shard(lake, Shard(recipe, SourceName("photos"), file, tuple(failures), len(image_ids), seconds), now)


def look(lake: Lake, folder: Path) -> Scan:
    return scan(lake.home, SourceName("photos"), folder, IngestSettings(), silent)


def ingest(lake: Lake, folder: Path) -> list[tuple[str, str]]:
    """Commit a scan; give (image_id, path) of what is missing."""
    commit_scan(lake, look(lake, folder), NOW)
    return missing(lake)


def missing(lake: Lake, recipe: str = RECIPE, *, retry: bool = False) -> list[tuple[str, str]]:
    return list_pairs(lake, FeatureRequest(recipe, SourceName("photos"), retry), 100)


def list_pairs(lake: Lake, wanted: FeatureRequest, limit: int, *, after: str = FIRST_ID) -> list[tuple[str, str]]:
    """List the first missing images as (image_id, path)."""
    return [(image_id, locator.path) for image_id, locator in list_missing(lake, wanted, limit, after=after)]


def count_rows(lake: Lake, recipe: str = RECIPE) -> tuple[int, int]:
    """Count the rows of a recipe, and its distinct images."""
    sql = "SELECT count(*), count(DISTINCT image_id) FROM features WHERE recipe_id = ?"
    rows, images = lake.rows(sql, [recipe])[0]
    return rows, images


def test_vectors_are_read_bit_for_bit_in_the_requested_order(lake: Lake) -> None:
    vectors = make_vectors(len(IDS))
    commit(lake, IDS[:25], vectors[:25])
    commit(lake, IDS[25:], vectors[25:])
    order = np.random.default_rng(1).permutation(len(IDS))
    read = read_features(lake, RECIPE, [IDS[at] for at in order])
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    assert np.array_equal(read, vectors[order])


def test_vectors_are_read_from_any_row_group(lake: Lake) -> None:
    vectors = make_vectors(len(IDS), dim=1 << 16)  # two a row group
    commit(lake, IDS, vectors)
    for requested in ([0, 5, 6, 39], [38, 3, 3, 20, 2], list(range(40)), [19]):
        assert np.array_equal(read_features(lake, RECIPE, [IDS[at] for at in requested]), vectors[requested])


def test_an_image_requested_twice_is_returned_twice(lake: Lake) -> None:
    vectors = make_vectors(2)
    commit(lake, IDS[:2], vectors)
    assert np.array_equal(read_features(lake, RECIPE, [IDS[1], IDS[0], IDS[1]]), vectors[[1, 0, 1]])


def test_an_empty_request_gives_no_rows(lake: Lake) -> None:
    commit(lake, IDS[:2])
    assert len(read_features(lake, RECIPE, [])) == 0


def test_a_missing_feature_is_a_key_error(lake: Lake) -> None:
    commit(lake, IDS[:2])
    with pytest.raises(KeyError, match=f"1 image has no feature .*{RECIPE}"):
        read_features(lake, RECIPE, IDS[:3])
    with pytest.raises(KeyError):
        read_features(lake, OTHER, IDS[:1])


def test_committing_a_shard_twice_adds_it_once(lake: Lake) -> None:
    file = write_features(lake.home, RECIPE, IDS, make_vectors(len(IDS)))
    shard = Shard(RECIPE, SourceName("photos"), file, (), len(IDS), 1.0)
    assert [commit_shard(lake, shard, NOW) for _ in range(3)] == [len(IDS), 0, 0]
    assert count_rows(lake) == (len(IDS), len(IDS))


def test_an_overlapping_shard_adds_only_the_rest(lake: Lake) -> None:
    first, second = make_vectors(10, seed=1), make_vectors(10, seed=2)
    assert commit(lake, IDS[:10], first) == 10
    assert commit(lake, IDS[5:15], second) == 5
    assert count_rows(lake) == (15, 15)
    assert np.array_equal(read_features(lake, RECIPE, IDS[:15]), np.concatenate([first, second[5:]]))


def test_features_of_two_recipes_coexist(lake: Lake) -> None:
    mine, others = make_vectors(5, seed=1), make_vectors(5, dim=3, seed=2)
    assert commit(lake, IDS[:5], mine) == 5
    assert commit(lake, IDS[:5], others, recipe=OTHER) == 5
    assert np.array_equal(read_features(lake, RECIPE, IDS[:5]), mine)
    assert np.array_equal(read_features(lake, OTHER, IDS[:5]), others)


def test_an_uncommitted_file_adds_no_feature(lake: Lake) -> None:
    write_features(lake.home, RECIPE, IDS, make_vectors(len(IDS)))
    assert count_rows(lake) == (0, 0)
    assert commit(lake, IDS) == len(IDS)


def test_a_failed_write_leaves_no_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fill_disk)
    with pytest.raises(LakeError, match="No space left"):
        write_features(lake.home, RECIPE, IDS, make_vectors(len(IDS)))
    assert list_files(lake.home) == {}


def test_a_vector_takes_at_most_half_of_its_raw_size(lake: Lake) -> None:
    rows, dim = 2000, 512
    image_ids = [f"{number:032x}" for number in range(rows)]
    write_features(lake.home, RECIPE, image_ids, make_vectors(rows, dim))
    assert [size / rows <= 0.5 * 4 * dim for size in list_files(lake.home).values()] == [True]


def test_a_success_removes_the_recorded_failure(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    commit(lake, [], failures=[Failure(*item, "decode", "broken") for item in found[:2]])
    commit(lake, [], failures=[Failure(*found[0], "decode", "broken")], recipe=OTHER)
    commit(lake, [found[0][0]])
    failed = lake.rows("SELECT image_id::VARCHAR, recipe_id FROM failures ORDER BY recipe_id")
    assert failed == [(found[1][0], RECIPE), (found[0][0], OTHER)]
    assert missing(lake, retry=True) == found[1:]


def test_a_repeated_failure_is_recorded_once_with_its_newest_reason(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    for reason in ("first", "second"):
        commit(lake, [], failures=[Failure(*found[0], "decode", reason)])
    assert lake.rows("SELECT path, stage, reason FROM failures") == [(found[0][1], "decode", "second")]


def test_a_shard_commits_its_features_and_failures_in_one_snapshot(lake: Lake, few: Path) -> None:
    found = ingest(lake, few)
    before = lake.snapshot
    commit(lake, [found[0][0]], failures=[Failure(*found[1], "decode", "broken")])
    assert lake.snapshot == before + 1


def test_the_pace_is_that_of_the_recipes_last_shards(lake: Lake) -> None:
    assert measure_pace(lake, RECIPE) is None
    for number in range(25):  # the first five are forgotten
        seconds = 1000.0 if number < 5 else 0.5
        commit(lake, [IDS[number]], now=NOW + timedelta(minutes=number), seconds=seconds)
    pace = measure_pace(lake, RECIPE)
    assert pace
    assert pace.images_per_second == pytest.approx(2.0)
    sizes = [row for (row,) in lake.rows("SELECT bytes FROM shards ORDER BY committed_at DESC LIMIT 20")]
    assert pace == Pace(pace.images_per_second, sum(sizes) / 20)


def test_a_new_recipe_takes_the_pace_of_any_recipe(lake: Lake) -> None:
    commit(lake, IDS[:10], seconds=1.0)
    foreign = measure_pace(lake, OTHER)
    assert foreign
    assert foreign.images_per_second == pytest.approx(10)
    commit(lake, IDS[:3], recipe=OTHER, seconds=6.0)
    own = measure_pace(lake, OTHER)
    assert own
    assert own.images_per_second == pytest.approx(0.5)
