"""Intervals of shares: their ends and their coverage."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.statistics.shares import find_figure_interval, find_wilson_interval


@pytest.mark.parametrize(("right", "images"), [(0, 5), (5, 5), (3, 10), (180, 200)])
def test_the_wilson_interval_matches_scipy(right: int, images: int) -> None:
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert [float(end) for end in find_wilson_interval(right, images)] == pytest.approx(
        [expected.low, expected.high], abs=1e-12
    )


def test_the_interval_of_no_image_is_0_to_1() -> None:
    assert [float(end) for end in find_wilson_interval(0, 0)] == [0, 1]


def test_of_a_share_the_interval_of_a_figure_is_nearly_wilsons() -> None:
    right = np.arange(300) < 240
    low, high = find_figure_interval(0.8, (right - 0.8) / 300)
    assert (low, high) == pytest.approx([float(end) for end in find_wilson_interval(240, 300)], abs=0.003)


def test_of_a_figure_that_does_not_vary_it_depends_on_the_number_of_images() -> None:
    for value, images in ((1.0, 10), (0.0, 40), (0.7, 20)):
        expected = [float(end) for end in find_wilson_interval(value * images, images)]
        assert find_figure_interval(value, np.zeros(images)) == pytest.approx(expected)


def test_a_figure_that_few_images_decide_has_a_wider_interval() -> None:
    """Both have the same variance."""
    many, few = np.full(100, 0.01) * np.where(np.arange(100) % 2, 1, -1), np.zeros(100)
    few[:4] = 0.05
    ends = [find_figure_interval(0.7, each) for each in (many, few)]
    assert ends[1][1] - ends[1][0] > 1.1 * (ends[0][1] - ends[0][0])
