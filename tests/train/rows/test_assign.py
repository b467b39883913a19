"""Splits of a lake's images: recorded when first placed, kept as the lake grows, and read from given folders."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from storage.errors import TrainError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.names import LabelSetName
from storage.recipe import Recipe
from storage.tables.recipes import save_recipe
from storage.tables.splits import NewSplit, save_splits
from storage.tables.trainings import head_path
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.train.rows.assign import SplitIdentity
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, TrainingData, identify, train_head
from tests.counting import decide_recipe
from tests.rows import NOW, add_features, label_all, name

PHOTOS = LabelSetName("photos")
RECIPE: Recipe = decide_recipe(EmbedSettings(), Weights(Path(), "0" * 64))
SETTINGS = TrainSettings(l2=(0.1,))
SKIPPING = TrainSettings(l2=(0.1,), folds=0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def lake(home: Home) -> Iterator[Lake]:
    with open_lake(home) as opened:
        save_recipe(opened, {}, RECIPE, NOW)
        yield opened


def fill(lake: Lake, classes: Mapping[str, range]) -> None:
    """Give a lake labelled images of some classes, by number, with features."""
    label_all(lake, classes)
    add_features(lake, [number for numbers in classes.values() for number in numbers], RECIPE.recipe_id)


def train(home: Home, at: int | None = None, settings: TrainSettings = SETTINGS) -> Trained:
    return train_head(home, TrainingData(PHOTOS, RECIPE.recipe_id, at=at), settings, NOW + timedelta(days=1))


def read_splits(home: Home, trained: Trained) -> dict[str, str]:
    """Read the split of each image that a training used."""
    sql = "SELECT image_id::VARCHAR, split FROM training_sets WHERE training_id = ?"
    with read_lake(home) as lake:
        return dict(lake.rows(sql, [trained.training.training_id]))


def give(lake: Lake, splits: Mapping[str, range]) -> None:
    """Let the folders of the source give splits."""
    for split, numbers in splits.items():
        sql = "UPDATE files SET given_split = ? WHERE image_id IN (SELECT unnest(?::UUID[]))"
        row = [split, [name(number) for number in numbers]]
        lake.commit(lambda sql=sql, row=row: lake.execute(sql, row))  # type: ignore[misc]


def test_many_small_classes_train_and_one_warning_names_all_that_are_too_small(home: Home, lake: Lake) -> None:
    classes = {f"class {at:03}": range(100 * at, 100 * at + 10) for at in range(150)}
    fill(lake, {**classes, "one": range(20_000, 20_001), "two": range(20_100, 20_102)})
    trained = train(home)
    assert trained.new
    left_out, thin = trained.warnings
    assert left_out == "2 classes were left out, with too few images to train and measure on: one (1), two (2)"
    assert thin.startswith("150 classes have fewer than 3 images in validation or test")
    splits = read_splits(home, trained)
    for numbers in classes.values():
        assert {splits[name(number)] for number in numbers} == {"train", "validation", "test"}
    assert not {name(20_000), name(20_100), name(20_101)} & splits.keys()
    again = train(home)
    assert (again.new, again.warnings) == (False, trained.warnings)


def test_an_image_of_a_class_that_is_too_small_trains_nothing_again(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 120)})
    first = train(home)
    fill(lake, {"rare": range(200, 202)})
    second = train(home)
    assert (second.new, second.training.training_id) == (False, first.training.training_id)
    fill(lake, {"rare": range(202, 203)})
    assert set(read_splits(home, train(home)).keys()) >= {name(200), name(201), name(202)}


def test_if_all_classes_are_too_small_they_are_named(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 102), "c": range(200, 201)})
    with pytest.raises(TrainError, match=r"1 class \(a\): .* and b \(2\), c \(1\) have too few images"):
        train(home)


def test_images_stay_in_their_splits_as_a_lake_grows(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 107)})
    splits = read_splits(home, train(home))
    for start in (300, 310, 320):
        fill(lake, {"a": range(start, start + 3), "b": range(start + 500, start + 501)})
        grown = read_splits(home, train(home))
        assert splits.items() <= grown.items()
        splits = grown
    class_a = [*range(20), *range(300, 303), *range(310, 313), *range(320, 323)]
    counts = Counter(splits[name(number)] for number in class_a)
    assert counts["train"] == 20
    assert {counts["validation"], counts["test"]} == {4, 5}


def test_an_earlier_training_comes_back_after_the_lake_grew(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 120), "rare": range(200, 202)})
    snapshot = lake.snapshot
    first = train(home, snapshot)
    fill(lake, {"a": range(20, 30), "rare": range(202, 210)})
    assert train(home).training.training_id != first.training.training_id
    splits = read_splits(home, first)
    head = head_path(home, first.training.training_id)
    data = head.read_bytes()
    head.unlink()
    again = train(home, snapshot)
    assert again.training.training_id == first.training.training_id
    assert again.training.metrics == first.training.metrics
    assert head.read_bytes() == data
    assert read_splits(home, again) == splits


def test_a_training_on_an_earlier_snapshot_moves_no_image_that_a_later_one_placed(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(10), "b": range(100, 110)})
    snapshot = lake.snapshot
    fill(lake, {"a": range(10, 40), "b": range(110, 140)})
    later, earlier = train(home), train(home, snapshot)
    assert read_splits(home, earlier).items() <= read_splits(home, later).items()


def test_images_that_were_placed_by_hash_stay_and_give_the_training_the_same_id(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 120)})
    numbers = [*range(20), *range(100, 120)]
    parts = ("train", "train", "validation", "test")
    rows = [NewSplit(name(number), parts[at % 4], "hash") for at, number in enumerate(numbers)]
    assert save_splits(lake, PHOTOS, SETTINGS.scheme, rows, lake.snapshot, NOW)
    trained = train(home)
    assert read_splits(home, trained) == {image_id: split for image_id, split, _ in rows}
    data = TrainingData(PHOTOS, RECIPE.recipe_id)
    assert trained.training.training_id == identify(lake, data, SETTINGS, SplitIdentity())
    fill(lake, {"a": range(20, 21)})
    grown = train(home)
    assert grown.training.training_id != identify(lake, data, SETTINGS, SplitIdentity())
    assert read_splits(home, trained).items() <= read_splits(home, grown).items()


def test_of_two_trainings_that_place_an_image_the_second_does_not(lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 120)})
    assert save_splits(lake, PHOTOS, "{}", [NewSplit(name(1), "test", "dealt")], 1, NOW)
    pair = [NewSplit(name(1), "train", "dealt"), NewSplit(name(2), "train", "dealt")]
    assert not save_splits(lake, PHOTOS, "{}", pair, 1, NOW)
    assert lake.rows("SELECT image_id::VARCHAR, split FROM splits") == [(name(1), "test")]


def test_given_splits_are_used_and_recorded(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 120)})
    give(lake, {"train": range(200), "validation": range(3), "test": range(110, 120)})
    give(lake, {"validation": range(100, 103), "test": range(3, 6)})
    splits = read_splits(home, train(home))
    assert {number for number in range(200) if splits.get(name(number)) == "validation"} == {0, 1, 2, 100, 101, 102}
    assert {number for number in range(200) if splits.get(name(number)) == "test"} == {3, 4, 5, *range(110, 120)}
    assert lake.rows("SELECT DISTINCT origin FROM splits") == [("given",)]
    give(lake, {"test": range(110, 112), "train": range(112, 120)})
    moved = train(home)
    assert moved.new
    assert read_splits(home, moved)[name(115)] == "train"


def test_a_split_that_folders_do_not_give_is_dealt_from_the_training_images(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(40), "b": range(100, 140)})
    given = {*range(10), *range(100, 110)}
    give(lake, {"train": range(200)})
    give(lake, {"validation": range(10)})
    give(lake, {"validation": range(100, 110)})
    splits = read_splits(home, train(home))
    assert {number for number in range(200) if splits.get(name(number)) == "validation"} == given
    assert Counter(splits.values()) == {"train": 50, "validation": 20, "test": 10}


def test_an_image_in_several_given_splits_is_left_out_with_a_warning(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(20), "b": range(100, 120)})
    give(lake, {"train": range(200), "validation": range(3), "test": range(3, 6)})
    give(lake, {"validation": range(100, 103), "test": range(103, 106)})
    copy = "INSERT INTO files (source, path, image_id, given_split) VALUES ('photos', 'copy', ?, 'train')"
    lake.commit(lambda: lake.execute(copy, [name(0)]))
    trained = train(home)
    assert name(0) not in read_splits(home, trained)
    assert any("1 image" in warning and "several splits" in warning for warning in trained.warnings)


def test_with_few_test_images_the_head_is_cross_validated_unless_told_not_to(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(30), "b": range(100, 130)})
    validated, skipped = train(home), train(home, settings=SKIPPING)
    assert "cv_accuracy" in validated.training.metrics
    assert "cv_accuracy" not in skipped.training.metrics
    assert skipped.training.training_id != validated.training.training_id
    again = train(home), train(home, settings=SKIPPING)
    assert [each.new for each in again] == [False, False]
    assert [each.training.training_id for each in again] == [each.training.training_id for each in (validated, skipped)]


def test_no_folds_are_the_default_with_many_test_images_and_then_the_same_training(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(400), "b": range(1000, 1400)})
    trained = train(home)
    assert "cv_accuracy" not in trained.training.metrics
    again = train(home, settings=SKIPPING)
    assert (again.new, again.training.training_id) == (False, trained.training.training_id)
    assert not train(home).new


def test_a_training_of_a_release_whose_default_was_no_folds_is_found_by_no_folds(home: Home, lake: Lake) -> None:
    fill(lake, {"a": range(30), "b": range(100, 130)})
    snapshot = lake.snapshot
    trained = train(home).training
    metrics = json.dumps({name: value for name, value in trained.metrics.items() if not name.startswith("cv_")})
    lake.commit(lambda: lake.execute("UPDATE heads SET metrics = ?", [metrics]))
    again = train(home, settings=SKIPPING)
    assert (again.new, again.training.training_id) == (False, trained.training_id)
    head_path(home, trained.training_id).unlink()
    repaired = train(home, snapshot, SKIPPING)
    assert (repaired.new, repaired.training.training_id) == (True, trained.training_id)
