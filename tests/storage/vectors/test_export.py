"""Exports: plain files, complete or absent."""

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.errors import ExportError, QueryError
from storage.lake.lake import Lake
from storage.locations.locks import try_lock
from storage.names import LabelSetName
from storage.release import name_release
from storage.vectors import export
from storage.vectors.export import export_features
from storage.vectors.features_reader import find_features
from tests.storage.vectors.test_features_reader import DIM, RECIPE, all_ids, vectors_of
from tests.storage.vectors.test_features_reader import lake as lake  # noqa: PLC0414 - a fixture

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ROWS_PER_FILE", 6)
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 3)


@pytest.mark.usefixtures("small_files")
def test_plain_parquet_has_every_row_and_a_manifest_that_describes_it(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "features"
    features = find_features(lake, RECIPE.recipe_id, where="class <> 'green'")
    made = export_features(features, folder, NOW)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["snapshot"] == lake.snapshot
    assert (manifest["rows"], manifest["classes"], manifest["label_set"]) == (8, ["blue", "red"], "photos")
    assert (manifest["recipe_id"], manifest["recipe"]["shape"]) == (RECIPE.recipe_id, [DIM])
    assert manifest["where"] == "class <> 'green'"
    assert manifest["made_by"] == f"frostline {name_release()}"
    assert manifest["made_at"] == "2026-01-01T00:00:00+00:00"
    assert [file["rows"] for file in manifest["files"]] == [6, 2]
    for file in manifest["files"]:
        whole = (folder / file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(whole), hashlib.sha256(whole).hexdigest())
    table = pq.read_table(folder / "data")
    assert table.column_names == list(made.columns) == ["image_id", "first_seen", "class", "vector"]
    image_ids = table["image_id"].to_pylist()
    assert sorted(image_ids) == all_ids(lake, "class <> 'green'")
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors_of(image_ids))
    labels: dict[str, str] = dict(lake.rows("SELECT image_id::VARCHAR, class FROM labels"))
    assert table["class"].to_pylist() == [labels[image_id] for image_id in image_ids]


def test_hugging_face_loads_an_export_with_class_names(lake: Lake, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export_features(find_features(lake, RECIPE.recipe_id), tmp_path / "out", NOW, form="datasets")
    loaded = datasets.load_from_disk(str(tmp_path / "out"))
    assert loaded.features["class"].names == ["blue", "green", "red"]
    assert loaded.features["vector"].length == DIM
    assert sorted(loaded["image_id"]) == all_ids(lake)
    labels: dict[str, str] = dict(lake.rows("SELECT image_id::VARCHAR, class FROM labels"))
    for row in loaded:
        assert loaded.features["class"].int2str(row["class"]) == labels[row["image_id"]]
        assert row["vector"] == vectors_of([row["image_id"]])[0].tolist()
    plain = tmp_path / "plain" / "data"
    export_features(find_features(lake, RECIPE.recipe_id), plain.parent, NOW)
    assert len(datasets.load_dataset("parquet", data_dir=str(plain), cache_dir=str(tmp_path / "cache"))["train"]) == 12
    assert (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "scratch").exists()


def test_without_rows_the_file_is_empty(lake: Lake, tmp_path: Path) -> None:
    export_features(find_features(lake, RECIPE.recipe_id, where="false"), tmp_path / "out", NOW)
    assert pq.read_table(tmp_path / "out" / "data").num_rows == 0


def test_an_existing_folder_is_refused_and_left_unchanged(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExportError, match=r"mine.*exists already"):
        export_features(find_features(lake, RECIPE.recipe_id), tmp_path / "mine", NOW)
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(ExportError, match="cannot be written"):
        export_features(find_features(lake, RECIPE.recipe_id), Path("/proc/none/out"), NOW)


def test_a_failed_export_leaves_nothing(lake: Lake, tmp_path: Path) -> None:
    features = find_features(lake, RECIPE.recipe_id)
    Path(features.pieces[-1].file).unlink()
    with pytest.raises(Exception, match="cannot be read"):
        export_features(features, tmp_path / "new" / "out", NOW)
    assert list((tmp_path / "new").iterdir()) == []


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from storage.vectors import export
from storage.lake.attach import read_lake
from storage.locations.home import open_home
from storage.vectors.features_reader import find_features

export._describe = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # all rows are written, the manifest is not
with read_lake(open_home(Path(sys.argv[1]))) as lake:
    export.export_features(find_features(lake, sys.argv[2]), Path(sys.argv[3]), datetime.now(UTC))
"""


def test_a_killed_export_leaves_nothing_under_its_name(lake: Lake, tmp_path: Path) -> None:
    arguments = [str(lake.home.root), RECIPE.recipe_id, str(tmp_path / "new" / "out")]
    subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert [path.name[:5] for path in (tmp_path / "new").iterdir()] == [".out."]
    export_features(find_features(lake, RECIPE.recipe_id), tmp_path / "new" / "out", NOW)
    assert pq.read_table(tmp_path / "new" / "out" / "data").num_rows == 12
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_an_export_does_not_touch_the_folder_of_a_running_one(lake: Lake, tmp_path: Path) -> None:
    busy = tmp_path / ".out.0123abcd.unfinished"
    busy.mkdir()
    with try_lock(busy):
        export_features(find_features(lake, RECIPE.recipe_id), tmp_path / "out", NOW)
    assert busy.is_dir()


def test_of_several_label_sets_one_must_be_named(lake: Lake, tmp_path: Path) -> None:
    image_id = all_ids(lake)[0]
    lake.commit(lambda: lake.execute("INSERT INTO labels VALUES ('taste', ?, 'good', 'hand', ?)", [image_id, NOW]))
    features = find_features(lake, RECIPE.recipe_id)
    with pytest.raises(QueryError, match="photos, taste"):
        export_features(features, tmp_path / "out", NOW)
    assert export_features(features, tmp_path / "out", NOW, label_set=LabelSetName("taste")).classes == ("good",)
