"""The doctor: a lake is broken in many ways, each is found, and a repaired lake is sound."""

import os
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flows.doctor import examine
from flows.maintain import maintain
from storage.attach import open_lake, read_lake
from storage.catalog import list_live
from storage.features import commit_shard
from storage.lake import Lake
from storage.paths import Home, open_home
from storage.recipe import Recipe, Transform
from storage.recipes import save_recipe
from storage.trainings import head_path
from storage.vectors import Matrix, Shard, write_features
from tests.lakes import DIM, add_features, label, make_vectors, name

NOW = datetime.now(UTC)
TRANSFORM = Transform(8, (8, 8), squash=False, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
RECIPE = Recipe("counting", "w" * 64, "avgpool", "average", TRANSFORM, "float32", "float16", (DIM,))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = open_home(tmp_path_factory.mktemp("sound") / "home")
    with open_lake(home) as lake:
        save_recipe(lake, {"backbone": "counting"}, RECIPE, NOW)
        label(lake, range(40), "cat")
        add_features(lake, range(20), RECIPE.recipe_id)
        add_features(lake, range(20, 40), RECIPE.recipe_id)
    return home


@pytest.fixture
def place(sound: Home, tmp_path: Path) -> Home:
    return open_home(shutil.copytree(sound.root, tmp_path / "home"))


def change(sql: str, *values: object) -> Callable[[Lake], None]:
    return lambda lake: lake.commit(lambda: lake.execute(sql, values))


def feature_file(lake: Lake) -> Path:
    return lake.home.data / next(file.path for file in list_live(lake) if file.table == "features")


def lose(lake: Lake) -> None:
    feature_file(lake).unlink()


def truncate(lake: Lake) -> None:
    os.truncate(feature_file(lake), 300)


def flip(lake: Lake) -> None:
    data = bytearray((path := feature_file(lake)).read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def add_file(lake: Lake, number: int, vectors: Matrix) -> None:
    """Add a file past the guard, as a program that knows no rules would."""
    file = write_features(lake.home, RECIPE.recipe_id, [name(number)], vectors)
    lake.commit(lambda: lake.execute("CALL ducklake_add_data_files('lake', 'features', ?)", [str(file)]))


def add_image(lake: Lake, vectors: Matrix) -> None:
    label(lake, [50], "cat")
    add_file(lake, 50, vectors)


def tamper(lake: Lake) -> None:
    change("UPDATE recipes SET recipe = replace(recipe, 'bilinear', 'bicubic')")(lake)


def tamper_with_a_packed_backbone(lake: Lake) -> None:
    folder = lake.home.backbones / RECIPE.recipe_id
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(RECIPE.text)
    tamper(lake)


def pack_other_weights(lake: Lake) -> None:
    folder = lake.home.backbones / RECIPE.recipe_id
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(RECIPE.text)
    (folder / "weights.pth").write_bytes(b"other")


def leave(lake: Lake) -> None:
    path = feature_file(lake).with_name(f"{uuid.uuid4()}.parquet")
    path.write_bytes(b"half")
    os.utime(path, (0, 0))


BREAKAGES: dict[str, tuple[str, Callable[[Lake], None]]] = {
    "a lost file": ("features file", lose),
    "a truncated file": ("features file", truncate),
    "a flipped bit": ("features file", flip),
    "a dropped image": ("foreign image", change("DELETE FROM images WHERE image_id = ?::UUID", name(3))),
    "a foreign feature": ("foreign image", lambda lake: add_file(lake, 99, make_vectors([99]))),
    "a foreign label": ("foreign image", change("INSERT INTO labels VALUES ('x', uuid(), 'cat', 'x', now())")),
    "a foreign recipe": ("foreign recipe", lambda lake: add_features(lake, [1], "f" * 32)),
    "a training without head": (
        "foreign training",
        change("INSERT INTO training_sets SELECT 't', image_id, 'cat', 'test' FROM images"),
    ),
    "a duplicate": ("duplicate", lambda lake: add_file(lake, 3, make_vectors([3]))),
    "a wrong length": ("wrong length", lambda lake: add_image(lake, make_vectors([50], DIM + 1))),
    "a NaN": ("not finite", lambda lake: add_image(lake, np.full((1, DIM), np.nan, np.float32))),
    "a tampered recipe": ("tampered recipe", tamper),
    "a tampered recipe that is packed": ("tampered recipe", tamper_with_a_packed_backbone),
    "other weights": ("other weights", pack_other_weights),
    "an orphan": ("orphan", leave),
    "an expired lease": ("expired lease", change("INSERT INTO leases VALUES ('r', uuid(), uuid(), 'x', '2020-01-01')")),
    "a tag of no snapshot": ("lost snapshot", change("INSERT INTO tags VALUES ('t', 9999, now())")),
}


def test_a_sound_lake_is_sound_also_after_maintenance(place: Home) -> None:
    assert examine(place, deep=False, repair=False, now=NOW).findings == ()
    maintain(place, NOW - NOW, NOW - NOW, datetime.now(UTC))
    assert examine(place, deep=False, repair=False, now=NOW).findings == ()


@pytest.mark.parametrize("breakage", list(BREAKAGES))
def test_what_is_broken_is_found_named_and_mended(place: Home, breakage: str) -> None:
    kind, break_ = BREAKAGES[breakage]
    with open_lake(place) as lake:
        break_(lake)
    examined = examine(place, deep=False, repair=True, now=NOW)  # what was found first, is mended, and what is left
    assert kind in {finding.kind for finding in examined.mended}
    assert all(finding.subject and finding.repair for finding in examined.mended)
    assert examined.findings == ()
    with read_lake(place) as lake:
        lake.rows("SELECT sum(list_sum(vector)) FROM features")


def test_after_a_lost_file_the_rest_is_there_and_the_lost_is_missing(place: Home) -> None:
    with open_lake(place) as lake:
        lose(lake)
    examine(place, deep=False, repair=True, now=NOW)
    with open_lake(place) as lake:
        assert lake.value("SELECT count(*) FROM features") == 20
        numbers = range(40)
        file = write_features(place, RECIPE.recipe_id, [name(n) for n in numbers], make_vectors(numbers))
        assert commit_shard(lake, Shard(RECIPE.recipe_id, "photos", file, (), 40, 1.0), NOW) == 20
        assert lake.value("SELECT count(*) FROM features") == 40


def test_of_duplicates_one_stays(place: Home) -> None:
    with open_lake(place) as lake:
        add_file(lake, 3, make_vectors([3]))
    examine(place, deep=False, repair=True, now=NOW)
    with read_lake(place) as lake:
        assert (
            lake.value("SELECT count(*) FROM features")
            == lake.value("SELECT count(DISTINCT image_id) FROM features")
            == 40
        )


def test_a_model_without_its_head_is_found_but_only_training_mends_it(place: Home) -> None:
    with open_lake(place) as lake:
        change("INSERT INTO heads (training_id) VALUES ('t')")(lake)
        change("INSERT INTO models (name, version, training_id) VALUES ('m', 1, 't')")(lake)
    (found,) = examine(place, deep=False, repair=True, now=NOW).findings
    assert (found.kind, found.mend) == ("lost head", None)
    assert "frostline train" in found.repair
    head_path(place, "t").parent.mkdir(parents=True)
    head_path(place, "t").write_bytes(b"")
    assert examine(place, deep=False, repair=False, now=NOW).findings == ()
