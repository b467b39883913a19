"""Erasure: nothing of an image is left, and nothing else is gone."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.attach import open_lake, read_lake
from storage.erase import erase, find_images, foresee
from storage.errors import LakeError, QueryError
from storage.features import read_features
from storage.lake import Lake
from storage.paths import Home, open_home
from storage.snapshots import tag_snapshot
from storage.vectors import write_features
from tests.lakes import RECIPE, add_features, label, make_vectors

NOW = datetime.now(UTC)
GONE = range(5)
KEPT = range(5, 40)


def draw_id(number: int) -> str:
    """Draw an id whose bytes occur nowhere by chance."""
    return str(uuid.UUID(bytes=np.random.default_rng(number).bytes(16)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("tests.lakes.name", draw_id)
    return open_home(tmp_path / "home")


def fill(lake: Lake) -> None:
    """Fill every table that can name an image, with inlined rows and with files, in several snapshots."""
    for numbers in (range(3), range(3, 15), range(15, 40)):
        label(lake, numbers, "cat")
        add_features(lake, numbers)
    first = draw_id(0)

    def write() -> None:
        lake.execute(
            "INSERT INTO canaries (recipe_id, probe, vector) VALUES (?, ?, ?)",
            [RECIPE, first, make_vectors([0])[0].tolist()],
        )
        lake.execute("INSERT INTO heads (training_id, label_set, snapshot) VALUES ('t', 'photos', 3)")
        lake.execute("INSERT INTO training_sets SELECT 't', image_id, 'cat', 'train' FROM images")
        lake.execute("INSERT INTO models (name, version, training_id) VALUES ('m', 1, 't'), ('other', 1, 'u')")
        lake.execute("INSERT INTO predictions SELECT 'm', 1, image_id, 'cat', 0.5, now() FROM images")
        lake.execute(
            "INSERT INTO failures SELECT source, path, image_id, NULL, 'read', 'torn', now() FROM files LIMIT 3"
        )
        lake.execute("INSERT INTO leases VALUES (?, ?, ?, 'run', now())", [RECIPE, first, draw_id(9)])

    lake.commit(write)
    tag_snapshot(lake, "v1", None, NOW)
    write_features(lake.home, RECIPE, [first], make_vectors([0]))  # of a run that was killed


def traces(home: Home) -> set[str]:
    """Find what is left of the images to erase, in the columns of each file and the bytes of the catalog."""
    ids = [uuid.UUID(draw_id(number)) for number in GONE]
    texts = {str(image) for image in ids}
    raw = {image.bytes for image in ids} | {image.bytes_le for image in ids} | {text.encode() for text in texts}
    raw |= {image.hex.encode() for image in ids}
    vectors = {vector.tobytes() for vector in make_vectors(GONE)}
    found = {
        f"{path.name} {needle!r}"
        for path in home.root.glob("catalog.sqlite*")
        for needle in raw | vectors
        if needle in path.read_bytes()
    }
    for path in home.data.rglob("*.parquet"):
        for name, column in zip((table := pq.read_table(path)).column_names, table.columns, strict=True):
            for cell in column.to_pylist():
                text = np.array(cell, np.float32).tobytes() if isinstance(cell, list) else str(cell)
                if text in vectors or any(gone in str(text) for gone in texts):
                    found.add(f"{path.relative_to(home.root)} {name}")
    return found


def test_of_an_erased_image_nothing_is_left_and_of_the_others_everything(place: Home) -> None:
    with open_lake(place) as lake:
        fill(lake)
        assert len(traces(place)) > 10
        taken = erase(lake, [draw_id(number) for number in GONE], "images", NOW)
    assert traces(place) == set()
    assert taken.rows == {
        "canaries": 1,
        "failures": taken.rows["failures"],
        "features": 5,
        "files": 5,
        "images": 5,
        "labels": 5,
        "leases": 1,
        "predictions": 5,
        "training_sets": 5,
    }
    assert [(model.name, model.version, model.label_set) for model in taken.models] == [("m", 1, "photos")]
    assert [tag for tag, _ in taken.tags] == ["v1"]
    with read_lake(place) as lake:
        assert np.array_equal(read_features(lake, RECIPE, [draw_id(number) for number in KEPT]), make_vectors(KEPT))
        for table in ("images", "files", "labels", "features", "training_sets", "predictions"):
            assert lake.value(f"SELECT count(*) FROM {table}") == len(KEPT)
        (audit,) = lake.rows("SELECT asked, images, models FROM erasures")
        assert (audit[0], audit[1], json.loads(audit[2])) == ("images", 5, [["m", 1]])
        assert lake.rows("FROM tags") == []
        assert lake.value("SELECT count(*) FROM ducklake_snapshots('lake') WHERE snapshot_id < 10") == 0
    with open_lake(place) as lake:
        add_features(lake, range(50, 60))
        assert lake.value("SELECT count(*) FROM features") == len(KEPT) + 10


def test_images_are_found_by_id_source_and_condition(place: Home) -> None:
    with open_lake(place) as lake:
        label(lake, range(4), "cat")
        label(lake, range(4, 6), "dog")
        before = lake.snapshot
        first = draw_id(0)
        assert find_images(lake, [first.replace("-", "")], None, None) == [first]
        assert len(find_images(lake, [], "photos", None)) == 6
        assert set(find_images(lake, [], None, "class = 'dog'")) == {draw_id(4), draw_id(5)}
        assert find_images(lake, [], None, f"path LIKE 'cat/{first}'") == [first]
        assert foresee(lake, [first]).rows == {"files": 1, "images": 1, "labels": 1}
        assert lake.snapshot == before
        with pytest.raises(LakeError, match="no image_id"):
            find_images(lake, ["cat.jpg"], None, None)
        with pytest.raises(LakeError, match="needs to know what"):
            find_images(lake, [], None, None)
        with pytest.raises(QueryError):
            find_images(lake, [], None, "nonsense (")
