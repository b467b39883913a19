"""Dealing: each class has its share of each split, and nothing that is placed moves."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.rows.deal import Placements, deal
from tasks.train.rows.groups import make_group_key
from tasks.train.rows.splits import SPLITS, Split
from tasks.train.settings import TrainSettings

SETTINGS = TrainSettings()


def ids(count: int, start: int = 0) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(start, start + count)]


def deal_images(
    classes: Mapping[str, Sequence[str]], placed: Mapping[str, Split] | None = None, seed: int = 0
) -> dict[str, Split]:
    """Deal ungrouped images; those in ``placed`` were in a training already."""
    sizes = {name: dict.fromkeys(images, 1) for name, images in classes.items()}
    placed = placed or {}
    return dict(deal(sizes, Placements(placed, placed), TrainSettings(seed=seed)).splits)


def count(splits: Mapping[str, Split], images: Sequence[str]) -> tuple[int, ...]:
    counts = Counter(splits[image_id] for image_id in images)
    return tuple(counts[split] for split in SPLITS)


@given(st.lists(st.integers(3, 40), min_size=1, max_size=12), st.integers(0, 5))
def test_each_class_of_three_images_has_one_in_each_split_and_nearly_its_shares(sizes: list[int], seed: int) -> None:
    classes = {f"class {at}": ids(size, 1000 * at) for at, size in enumerate(sizes)}
    splits = deal_images(classes, seed=seed)
    for images in classes.values():
        counts = count(splits, images)
        assert min(counts) >= 1
        for images_there, share in zip(counts, (0.7, 0.15, 0.15), strict=True):
            assert abs(images_there - share * len(images)) < 2


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 3))
def test_no_image_moves_as_a_class_grows_and_none_of_its_splits_stays_empty(batches: list[int], seed: int) -> None:
    splits: dict[str, Split] = {}
    for at in range(len(batches)):
        images = ids(sum(batches[: at + 1]))
        grown = deal_images({"rose": images, "other": ids(30, 9000)}, splits, seed)
        assert splits.items() <= grown.items()
        splits = grown
        assert len(images) < 3 or min(count(splits, images)) >= 1


def test_many_classes_of_ten_keep_the_shares_in_all() -> None:
    classes = {f"class {at}": ids(10, 100 * at) for at in range(150)}
    splits = deal_images(classes)
    counts = Counter(splits.values())
    assert counts["train"] == 7 * 150
    assert abs(counts["validation"] - counts["test"]) < 3 * 150**0.5


def test_a_class_of_two_images_is_left_alone_unless_a_training_had_them() -> None:
    pair = ids(2)
    sizes = {"rose": dict.fromkeys(pair, 1)}
    assert deal(sizes, Placements({}, ()), SETTINGS).too_small == {"rose"}
    placed: dict[str, Split] = {pair[0]: "train", pair[1]: "test"}
    known = deal(sizes, Placements(placed, placed), SETTINGS)
    assert (known.splits, known.too_small) == (placed, frozenset())


def test_the_first_by_hash_are_for_testing_so_that_another_seed_deals_others() -> None:
    images = ids(40)
    tested = [
        {image_id for image_id, split in deal_images({"rose": images}, seed=seed).items() if split == "test"}
        for seed in range(4)
    ]
    assert len(set(map(frozenset, tested))) == 4
    assert all(len(each) == 6 for each in tested)


def test_an_image_of_a_rare_and_a_common_label_is_dealt_for_the_rare_one() -> None:
    rare, common = ids(5), ids(100)
    splits = deal_images({"rare": rare, "common": common})
    assert count(splits, rare) == (3, 1, 1)
    assert count(splits, common) == (70, 15, 15)


@given(st.lists(st.integers(1, 30), min_size=3, max_size=20), st.integers(0, 3))
def test_groups_stay_whole_and_fill_every_split(sizes: list[int], seed: int) -> None:
    groups = {make_group_key(str(at)): size for at, size in enumerate(sizes)}
    splits = deal({"rose": groups}, Placements({}, ()), TrainSettings(seed=seed)).splits
    assert splits.keys() == groups.keys()
    assert set(splits.values()) == set(SPLITS)


@pytest.mark.parametrize(("groups", "split"), [(1, {"train"}), (2, {"train", "test"})])
def test_fewer_groups_than_splits_train_and_test_first(groups: int, split: set[str]) -> None:
    sizes = {make_group_key(str(at)): 50 for at in range(groups)}
    assert set(deal({"rose": sizes}, Placements({}, ()), SETTINGS).splits.values()) == split
