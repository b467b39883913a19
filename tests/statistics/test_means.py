"""Intervals of means of skewed values."""

import numpy as np
import pytest
from scipy.stats import t as student

from tasks.statistics.means import find_mean_interval


@pytest.mark.parametrize("images", [30, 300])
def test_of_skewed_losses_it_contains_the_truth_at_the_stated_rate(images: int) -> None:
    random = np.random.default_rng(0)
    ends = [find_mean_interval(random.exponential(size=images)) for _ in range(1000)]
    assert np.mean([low <= 1 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.02)


def test_of_symmetric_values_it_is_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    half = student.ppf(0.975, 4) * values.std(ddof=1) / 5**0.5
    assert find_mean_interval(values) == pytest.approx((max(3 - half, 0), 3 + half))


def test_it_reaches_farther_above_a_few_large_losses() -> None:
    low, high = find_mean_interval(np.array([0.1] * 28 + [4.0, 5.0]))
    mean = (28 * 0.1 + 9) / 30
    assert low >= 0
    assert high - mean > 1.5 * (mean - low)


def test_of_one_value_or_equal_ones_it_is_a_point() -> None:
    assert find_mean_interval(np.array([0.5])) == (0.5, 0.5)
    assert find_mean_interval(np.full(4, 0.5)) == (0.5, 0.5)
