"""Rows and their coverage: classes with too few images are named, and folds keep groups whole."""

import uuid
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import TrainError
from tasks.train.cross_validate import assign_folds, cross_validate
from tasks.train.fit.candidates import Hyperparameters
from tasks.train.rows.assign import SplitAssignment as Splits
from tasks.train.rows.coverage import check_classes, check_coverage
from tasks.train.rows.groups import make_group_key
from tasks.train.rows.splits import SPLITS, Split, select_rows, select_single, split_by_time
from tasks.train.settings import TrainSettings

SETTINGS = TrainSettings()


def ids(count: int, start: int = 0) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(start, start + count)]


def test_images_of_several_classes_and_of_classes_to_leave_out_are_dropped() -> None:
    one, two, three = ids(3)
    labels = [(one, "a"), (two, "a"), (two, "b"), (three, "c")]
    assert select_single(labels, SETTINGS) == {one: "a", three: "c"}
    assert select_single(labels, TrainSettings(leave_out=("c",))) == {one: "a"}


def assign(rows: list[tuple[str, str]], splits: dict[str, Split], left_out: dict[str, int] | None = None) -> Splits:
    """An assignment of images to splits, each a group of its own."""
    return Splits(tuple(rows), splits, {image_id: image_id for image_id in splits}, 0, left_out or {})


def cycle(images: list[str], *splits: Split) -> dict[str, Split]:
    return {image_id: splits[at % len(splits)] for at, image_id in enumerate(images)}


def test_labels_of_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(TrainError, match="0 labelled images of no class"):
        check_classes([], SETTINGS)
    with pytest.raises(TrainError, match=r"100 labelled images of 1 class \(only\)"):
        check_classes([(image_id, "only") for image_id in ids(100)], SETTINGS)


def test_if_too_few_classes_are_left_the_others_are_named() -> None:
    rows = [(image_id, "many") for image_id in ids(30)]
    splits = cycle(ids(30), *SPLITS)
    with pytest.raises(TrainError, match=r"1 class \(many\): .* and few \(2\), one \(1\) have too few images"):
        check_coverage(assign(rows, splits, {"one": 1, "few": 2}), SETTINGS)


def test_an_empty_split_is_refused() -> None:
    rows = [(image_id, "ab"[at % 2]) for at, image_id in enumerate(ids(20))]
    with pytest.raises(TrainError, match="20 labelled images: leave none in test"):
        check_coverage(assign(rows, cycle(ids(20), "train", "train", "validation", "validation")), SETTINGS)


def test_one_warning_names_all_classes_with_few_images_to_measure_on() -> None:
    classes = {"many": ids(30), "thin": ids(6, 100), "thinner": ids(4, 200)}
    rows = [(image_id, name) for name, images in classes.items() for image_id in images]
    splits = cycle(ids(30), *SPLITS) | cycle(ids(6, 100), *SPLITS) | cycle(ids(4, 200), "train", "train", "test")
    coverage = check_coverage(assign(rows, splits, {"one": 1, "two": 2}), SETTINGS)
    few = "fewer than 3 images in validation or test, so that their own figures say little"
    assert coverage.warnings == (
        "2 classes were left out, with too few images to train and measure on: one (1), two (2)",
        f"2 classes have {few}: thin (6), thinner (4)",
    )
    assert coverage.counts["thinner"] == {"train": 3, "validation": 0, "test": 1}


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
    coverage = check_coverage(assign(rows, cycle(ids(100), *SPLITS)), TrainSettings(multi_label=True))
    assert sum(coverage.images.values()) == 100
    assert sum(sum(row.values()) for row in coverage.counts.values()) == 140


def test_a_label_that_every_image_has_is_refused() -> None:
    rows = [*((image_id, "a") for image_id in ids(100)), *((image_id, "b") for image_id in ids(100)[:60])]
    with pytest.raises(TrainError, match=r"label a: is on all \d+ training images"):
        check_coverage(assign(rows, cycle(ids(100), *SPLITS)), TrainSettings(multi_label=True))


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
    folds = assign_folds([make_group_key(str(group)) for group in groups], 4, SETTINGS)
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
        cross_validate(features, names, assign_folds(keys, 4, chosen), hyperparameters, chosen).mean()
        for keys in ([make_group_key(str(group)) for group in groups], ids(600))
    )
    assert by_image > 0.95
    assert by_group < 0.7


def test_too_few_groups_for_the_folds_are_refused() -> None:
    with pytest.raises(TrainError, match="4 folds: leave a fold empty, with 2 groups"):
        assign_folds([make_group_key("a"), make_group_key("b")], 4, SETTINGS)
