"""Splits: they depend on image ids and the seed alone, and classes with too few images are named."""

import uuid
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import TrainError
from tasks.train.cross_validate import assign_folds, cross_validate
from tasks.train.fit.candidates import Hyperparameters
from tasks.train.rows.coverage import check_coverage
from tasks.train.rows.groups import make_group_key
from tasks.train.rows.splits import SPLITS, assign_split, select_rows, select_single, split_by_time
from tasks.train.settings import TrainSettings

SETTINGS = TrainSettings()


def ids(count: int, start: int = 0) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(start, start + count)]


def ids_in(split: str, count: int) -> list[str]:
    return [image_id for image_id in ids(1000) if assign_split(image_id, SETTINGS) == split][:count]


def test_shares_are_70_15_15_within_three_sigma() -> None:
    counts = Counter(assign_split(image_id, SETTINGS) for image_id in ids(20_000))
    assert abs(counts["train"] - 14_000) < 3 * (20_000 * 0.7 * 0.3) ** 0.5
    assert abs(counts["validation"] - 3_000) < 3 * (20_000 * 0.15 * 0.85) ** 0.5
    assert abs(counts["test"] - 3_000) < 3 * (20_000 * 0.15 * 0.85) ** 0.5


def test_an_image_never_moves_between_releases() -> None:
    assert [assign_split(image_id, SETTINGS) for image_id in ids(8)] == [
        "validation",
        "train",
        "validation",
        "train",
        "train",
        "train",
        "train",
        "validation",
    ]


def test_another_seed_moves_images() -> None:
    other = TrainSettings(seed=1)
    assert any(assign_split(image_id, SETTINGS) != assign_split(image_id, other) for image_id in ids(50))


def test_images_of_several_classes_and_of_classes_to_leave_out_are_dropped() -> None:
    one, two, three = ids(3)
    labels = [(one, "a"), (two, "a"), (two, "b"), (three, "c")]
    assert select_single(labels, SETTINGS) == {one: "a", three: "c"}
    assert select_single(labels, TrainSettings(leave_out=("c",))) == {one: "a"}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, "no class"),
        (dict.fromkeys(ids(100), "only"), r"1 class \(only\)"),
        ({**dict.fromkeys(ids(100), "many"), ids_in("test", 30)[-1]: "few"}, "few with 1 images: has none to train"),
        ({**dict.fromkeys(ids(100), "many"), ids_in("train", 90)[-1]: "few"}, "few with 1 images: has none to measure"),
        ({ids_in("train", 1)[0]: "a", ids_in("train", 2)[1]: "b"}, "measure"),
    ],
)
def test_too_few_labels_are_refused(labels: dict[str, str], words: str) -> None:
    with pytest.raises(TrainError, match=words):
        check_coverage(list(labels.items()), SETTINGS)


def test_a_class_without_a_test_image_gives_a_warning() -> None:
    thin = [*ids_in("train", 103)[-3:], ids_in("validation", 40)[-1]]
    labels = {**dict.fromkeys(ids(100), "many"), **dict.fromkeys(thin, "thin")}
    coverage = check_coverage(list(labels.items()), SETTINGS)
    assert coverage.warnings == ("class thin has 4 images and none in test: add images of it",)
    assert coverage.counts["thin"] == {"train": 3, "validation": 1, "test": 0}


def test_multi_label_rows_keep_the_labels_that_are_not_left_out() -> None:
    one, two = ids(2)
    labels = [(one, "a"), (one, "b"), (two, "c"), (one, "a")]
    assert select_rows(labels, TrainSettings(multi_label=True)) == [(one, "a"), (one, "b"), (two, "c")]
    assert select_rows(labels, TrainSettings(multi_label=True, leave_out=("a", "c"))) == [(one, "b")]
    assert select_rows(labels, SETTINGS) == [(two, "c")]


@pytest.mark.parametrize("several", [False, True])
def test_leaving_out_an_unknown_class_is_refused_with_the_known_classes(several: bool) -> None:
    labels = [(image_id, f"class {at % 9}") for at, image_id in enumerate(ids(30))]
    words = "train.leave_out rose: is no class of these images. The classes are class 0, .*, class 4 and 4 more"
    with pytest.raises(TrainError, match=words):
        select_rows(labels, TrainSettings(leave_out=("class 8", "rose"), multi_label=several))


def test_an_image_counts_once_and_each_of_its_labels() -> None:
    rows = [*((image_id, "a") for image_id in ids(60)), *((image_id, "b") for image_id in ids(80, 20))]
    coverage = check_coverage(rows, TrainSettings(multi_label=True))
    assert sum(coverage.images.values()) == 100
    assert sum(sum(row.values()) for row in coverage.counts.values()) == 140


def test_a_label_that_every_image_has_is_refused() -> None:
    rows = [*((image_id, "a") for image_id in ids(100)), *((image_id, "b") for image_id in ids(100)[:60])]
    with pytest.raises(TrainError, match=r"label a: is on all \d+ training images"):
        check_coverage(rows, TrainSettings(multi_label=True))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_by_time_groups_stay_whole_and_in_order(groups: list[int]) -> None:
    keys = {image_id: make_group_key(str(group)) for image_id, group in zip(ids(len(groups)), groups, strict=True)}
    splits = split_by_time(keys, SETTINGS)
    by_group = {key: splits[image_id] for image_id, key in keys.items()}
    assert all(by_group[key] == splits[image_id] for image_id, key in keys.items())
    newest_last = list(dict.fromkeys(reversed(list(keys.values()))))[::-1]
    order = [SPLITS.index(by_group[key]) for key in newest_last]
    assert order == sorted(order)
    assert order[-1] == SPLITS.index("test")


def test_by_time_ungrouped_images_fill_the_shares() -> None:
    counts = Counter(split_by_time({image_id: image_id for image_id in ids(1000)}, SETTINGS).values())
    assert counts == {"train": 700, "validation": 150, "test": 150}


def test_no_head_is_tested_on_a_group_that_it_was_trained_or_validated_on() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 400)
    folds = assign_folds([make_group_key(str(group)) for group in groups], TrainSettings(folds=4))
    asked = np.zeros(400)
    for parts in folds.split():
        training, choosing, unseen = (set(groups[part].tolist()) for part in parts)
        assert not unseen & (training | choosing)
        assert not training & choosing
        asked += parts[2]
    assert (asked == 1).all()


def test_memorising_groups_does_not_help_in_cross_validation() -> None:
    random, chosen = np.random.default_rng(0), TrainSettings(folds=4)
    groups = np.repeat(np.arange(60), 10)
    names = random.choice(["a", "b"], 60)[groups]
    features = (random.normal(size=(60, 8))[groups] + random.normal(size=(600, 8)) / 100).astype(np.float32)
    hyperparameters: Hyperparameters = {"head": "knn", "nearest": 1}
    by_group, by_image = (
        cross_validate(features, names, assign_folds(keys, chosen), hyperparameters, chosen).mean()
        for keys in ([make_group_key(str(group)) for group in groups], ids(600))
    )
    assert by_image > 0.95
    assert by_group < 0.7


def test_too_few_groups_for_the_folds_are_refused() -> None:
    with pytest.raises(TrainError, match="4 folds: leave a fold empty, with 2 groups"):
        assign_folds([make_group_key("a"), make_group_key("b")], TrainSettings(folds=4))
