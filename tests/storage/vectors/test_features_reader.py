"""Reading features: the same rows, bit for bit, in every format and at every snapshot."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from storage.errors import LakeError, QueryError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home
from storage.names import LabelSetName, SourceName
from storage.progress import silent
from storage.recipe import Recipe, Transform
from storage.tables.features import commit_shard
from storage.tables.recipes import save_recipe
from storage.tables.scans import commit_scan
from storage.vectors.feature_file import Matrix, Shard, write_features
from storage.vectors.features_reader import find_features
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.pictures import write_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIM = 6
TRANSFORM = Transform(8, (8, 8), squash=False, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
RECIPE = Recipe("timm/none", "0" * 64, "avgpool", "average", TRANSFORM, "float32", "float16", (DIM,))
OTHER = Recipe("timm/none", "1" * 64, "avgpool", "average", TRANSFORM, "float32", "float16", (DIM,))


def vectors_of(image_ids: list[str]) -> Matrix:
    """Make each image's vector from its id."""
    rows = [np.frombuffer(bytes.fromhex(image_id.replace("-", ""))[:DIM], np.uint8) for image_id in image_ids]
    return np.array(rows, np.float32).reshape(-1, DIM)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """Twelve images in three classes, their features in three files, none in the order of ids."""
    photos = write_folder(tmp_path / "photos", per_class=4)
    with open_lake(open_home(tmp_path / "home")) as opened:
        commit_scan(opened, scan(opened.home, SourceName("photos"), photos, IngestSettings(), silent), NOW)
        for number, recipe in enumerate((RECIPE, OTHER)):
            save_recipe(opened, {"number": number}, recipe, NOW)
        image_ids = all_ids(opened)
        shuffled = [image_ids[at] for at in np.random.default_rng(0).permutation(12)]
        for start in (0, 5, 10):
            commit(opened, shuffled[start : start + 5])
        commit(opened, shuffled[:3], OTHER)
        yield opened


def commit(lake: Lake, image_ids: list[str], recipe: Recipe = RECIPE) -> None:
    file = write_features(lake.home, recipe.recipe_id, image_ids, vectors_of(image_ids))
    commit_shard(lake, Shard(recipe.recipe_id, SourceName("photos"), file, (), len(image_ids), 1.0), NOW)


def all_ids(lake: Lake, where: str = "true") -> list[str]:
    sql = f"SELECT DISTINCT image_id::VARCHAR AS id FROM images JOIN labels USING (image_id) WHERE {where} ORDER BY id"
    return [image_id for (image_id,) in lake.rows(sql)]


def read(lake: Lake, at: int | None = None, where: str | None = None) -> tuple[list[str], Matrix]:
    image_ids, matrix = find_features(lake, RECIPE.recipe_id, at, where).to_numpy()
    return [str(image_id) for image_id in image_ids.to_pylist()], matrix


def test_numpy_arrow_pandas_and_polars_give_the_same_rows_in_the_order_of_ids(lake: Lake) -> None:
    image_ids = all_ids(lake)
    features = find_features(lake, RECIPE.recipe_id)
    assert len(features) == 12
    found, matrix = features.to_numpy()
    assert [str(image_id) for image_id in found.to_pylist()] == image_ids
    assert np.array_equal(matrix, vectors_of(image_ids))
    arrow = features.to_arrow()
    assert arrow.schema == pa.schema([("image_id", pa.uuid()), ("vector", pa.list_(pa.float32(), DIM))])
    assert np.array_equal(np.array(arrow["vector"].to_pylist(), np.float32), matrix)
    pandas = features.to_pandas()
    assert pandas["image_id"].tolist() == image_ids
    assert np.array_equal(np.stack(pandas["vector"]), matrix)
    polars = features.to_polars()
    assert polars["image_id"].to_list() == image_ids
    assert np.array_equal(polars["vector"].to_numpy(), matrix)


def test_the_matrix_is_contiguous_and_torch_shares_its_memory(lake: Lake) -> None:
    _, matrix = find_features(lake, RECIPE.recipe_id).to_numpy()
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert matrix.flags.writeable
    assert torch.from_numpy(matrix).data_ptr() == matrix.ctypes.data


@pytest.mark.parametrize("size", [1, 4, 5, 7, 12, 100])
def test_batches_have_the_size_asked_for_and_hold_every_row_once(lake: Lake, size: int) -> None:
    batches = list(find_features(lake, RECIPE.recipe_id).batches(size))
    assert [len(batch.matrix) for batch in batches] == [size] * (12 // size) + [12 % size] * (12 % size > 0)
    found = [str(image_id) for batch in batches for image_id in batch.image_ids.to_pylist()]
    assert sorted(found) == all_ids(lake)
    assert np.array_equal(np.concatenate([batch.matrix for batch in batches]), vectors_of(found))


def test_a_recipe_is_found_by_its_id_or_a_unique_prefix(lake: Lake) -> None:
    first, second = RECIPE.recipe_id, OTHER.recipe_id
    assert first[0] != second[0]
    assert find_features(lake, first[:1]).recipe == RECIPE
    assert len(find_features(lake, second[:4])) == 3
    with pytest.raises(QueryError, match="begins the ids of 2 recipes"):
        find_features(lake, "")
    with pytest.raises(QueryError, match=r"'xyz'.*begins no recipe's id.*from recipes"):
        find_features(lake, "xyz")


def test_a_condition_over_images_files_and_labels_selects_features(lake: Lake) -> None:
    for where, expected in {
        "class = 'red'": "class = 'red'",
        "path LIKE 'red/%' OR class = 'blue'": "class IN ('red', 'blue')",
        "width = 8 AND source = 'photos' -- and a remark": "true",
        "width > 8": "false",
        "label_set = 'photos' AND labelled_by = 'photos' AND file_bytes = bytes": "true",
    }.items():
        image_ids, matrix = read(lake, where=where)
        assert image_ids == all_ids(lake, expected), where
        assert np.array_equal(matrix, vectors_of(image_ids))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("clas = 'red'", "clas"),
        ("class = ", "syntax error"),
        ("width = 'wide'", "wide"),
        ("true)); DELETE FROM labels; SELECT ((true", "syntax error"),
    ],
)
def test_an_invalid_condition_is_one_clear_error_and_changes_nothing(lake: Lake, where: str, words: str) -> None:
    before = lake.snapshot
    with pytest.raises(QueryError, match=words) as caught:
        find_features(lake, RECIPE.recipe_id, where=where)
    assert "label_set" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert lake.snapshot == before


def test_an_earlier_snapshot_has_its_own_features_and_labels(lake: Lake) -> None:
    image_ids = all_ids(lake)
    before = lake.snapshot
    lake.commit(lambda: lake.execute("DELETE FROM features WHERE image_id = ?::UUID", [image_ids[3]]))
    lake.commit(lambda: lake.execute("UPDATE labels SET class = 'azure' WHERE class = 'blue'"))
    assert read(lake)[0] == image_ids[:3] + image_ids[4:]
    assert read(lake, at=before)[0] == image_ids
    assert len(read(lake, at=before, where="class = 'blue'")[0]) == 4
    assert len(read(lake, at=before, where="class = 'azure'")[0]) == 0
    with read_lake(lake.home, before) as then:
        assert read(then)[0] == image_ids
    with pytest.raises(LakeError, match="snapshot 9999"):
        find_features(lake, RECIPE.recipe_id, at=9999)


def test_a_recipe_without_features_gives_no_rows(tmp_path: Path) -> None:
    with open_lake(open_home(tmp_path / "home")) as lake:
        save_recipe(lake, {}, RECIPE, NOW)
        assert find_features(lake, RECIPE.recipe_id).to_numpy().matrix.shape == (0, RECIPE.dim)


def test_rows_that_were_deleted_moved_or_put_into_the_catalog_are_read_as_sql_reads_them(lake: Lake) -> None:
    image_ids = all_ids(lake)
    lake.commit(lambda: lake.execute("DELETE FROM features WHERE image_id = ?::UUID", [image_ids[0]]))
    few = "INSERT INTO features SELECT ?, ?::UUID, ?::FLOAT[]"
    vector = vectors_of([image_ids[0]])[0].tolist()
    lake.commit(lambda: lake.execute(few, [RECIPE.recipe_id, image_ids[0], vector]))
    assert lake.value("SELECT count(*) FROM features WHERE filename LIKE 'ducklake_inlined%'") == 1
    check_whole(lake)
    lake.execute("CALL ducklake_flush_inlined_data('lake')")
    lake.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0)")
    lake.execute("CALL ducklake_merge_adjacent_files('lake')")
    assert lake.value("SELECT count(DISTINCT filename) FROM features WHERE recipe_id = ?", [RECIPE.recipe_id]) == 1
    check_whole(lake)


def check_whole(lake: Lake) -> None:
    image_ids, matrix = read(lake)
    assert image_ids == all_ids(lake)
    assert np.array_equal(matrix, vectors_of(image_ids))
    assert sum(len(batch.matrix) for batch in find_features(lake, RECIPE.recipe_id).batches(5)) == 12


def test_without_rows_the_matrix_is_empty(lake: Lake) -> None:
    features = find_features(lake, RECIPE.recipe_id, where="false")
    assert features.to_numpy().matrix.shape == (0, DIM)
    assert features.to_arrow().num_rows == len(features.to_pandas()) == len(features.to_polars()) == 0
    assert list(features.batches(5)) == []


def test_classes_come_in_the_order_of_the_ids(lake: Lake) -> None:
    features = find_features(lake, RECIPE.recipe_id, where="class <> 'green'")
    labels: dict[object, str] = dict(lake.rows("SELECT image_id, class FROM labels"))
    assert features.classes().to_pylist() == [labels[image_id] for image_id in features.image_ids.to_pylist()]
    twice = features.image_ids[0].as_py()
    lake.commit(lambda: lake.execute("INSERT INTO labels VALUES ('photos', ?, 'pink', 'hand', ?)", [twice, NOW]))
    assert features.classes(LabelSetName("photos")).to_pylist()[0] is None
    lake.commit(lambda: lake.execute("INSERT INTO labels VALUES ('taste', ?, 'good', 'hand', ?)", [twice, NOW]))
    assert features.classes(LabelSetName("taste")).to_pylist() == ["good"] + [None] * 7
    with pytest.raises(QueryError, match="photos, taste"):
        features.classes()


def test_the_error_names_a_missing_or_broken_file(lake: Lake) -> None:
    features = find_features(lake, RECIPE.recipe_id)
    file = Path(features.pieces[0].file)
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    with pytest.raises(LakeError, match=file.name):
        features.to_numpy()
    file.unlink()
    with pytest.raises(LakeError, match=rf"{file.name}.*doctor"):
        features.to_numpy()
