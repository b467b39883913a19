"""Intervals of means over classes: what they reduce to, and how often they contain the truth."""

import numpy as np
import pytest
from scipy.stats import t as student

from tasks.statistics.classes import ClassCounts, count_classes, find_f1_interval, find_recall_interval
from tasks.statistics.shares import find_wilson_interval


def confuse(images: int, seed: int) -> tuple[ClassCounts, float, float]:
    """Count draws of four classes, of which the rarest has a tenth; return the mean recall and F1 as well."""
    random = np.random.default_rng(seed)
    recalls = np.array([0.95, 0.85, 0.7, 0.5])
    true = random.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    predicted = np.where(random.random(images) < recalls[true], true, random.integers(0, 4, images))
    counts = count_classes(true, predicted, 4)
    used, having = counts.true + counts.predicted > 0, counts.true > 0
    recall = float((counts.hits / np.maximum(counts.true, 1))[having].mean())
    f1 = float((2 * counts.hits / np.maximum(counts.true + counts.predicted, 1))[used].mean())
    return counts, recall, f1


@pytest.mark.parametrize("images", [30, 300])
def test_they_contain_the_truth_at_the_stated_rate(images: int) -> None:
    _, recall, f1 = confuse(200_000, 0)
    held = []
    for seed in range(1, 401):
        counts, *values = confuse(images, seed)
        ends = find_recall_interval(values[0], counts), find_f1_interval(values[1], counts)
        held.append([low <= truth <= high for (low, high), truth in zip(ends, (recall, f1), strict=True)])
    assert np.mean(held, axis=0) == pytest.approx(0.955, abs=0.03)


def test_of_many_images_of_equal_classes_both_are_close_to_wilsons_interval() -> None:
    random = np.random.default_rng(0)
    true = np.arange(20_000) % 2
    predicted = np.where(random.random(20_000) < 0.8, true, 1 - true)
    counts = count_classes(true, predicted, 2)
    expected = [float(end) for end in find_wilson_interval(counts.hits.sum(), 20_000)]
    share = float(counts.hits.sum()) / 20_000
    for ends in (find_recall_interval(share, counts), find_f1_interval(share, counts)):
        assert ends == pytest.approx(expected, abs=3e-4)


def test_a_class_with_few_images_widens_them() -> None:
    true = np.array([0] * 100 + [1] * 3)
    counts = count_classes(true, true, 2)
    low, high = find_recall_interval(1.0, counts)
    assert high == 1
    assert low < float(find_wilson_interval(103, 103)[0])
    assert student.ppf(0.975, 3) > 3  # three images leave about three degrees of freedom


def test_unknown_and_unpredicted_classes_are_allowed() -> None:
    counts = count_classes(np.array([-1, 0, 0, 1]), np.array([2, 0, 1, 1]), 5)
    for find in (find_recall_interval, find_f1_interval):
        low, high = find(0.5, counts)
        assert 0 <= low < 0.5 < high <= 1
    assert find_recall_interval(0.0, count_classes(np.array([-1]), np.array([0]), 2)) == (0, 1)
