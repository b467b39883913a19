"""Intervals of shares: their ends and their coverage."""

import pytest
from scipy.stats import binomtest

from tasks.statistics.shares import find_wilson_interval


@pytest.mark.parametrize(("right", "images"), [(0, 5), (5, 5), (3, 10), (180, 200)])
def test_the_wilson_interval_matches_scipy(right: int, images: int) -> None:
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert [float(end) for end in find_wilson_interval(right, images)] == pytest.approx(
        [expected.low, expected.high], abs=1e-12
    )


def test_the_interval_of_no_image_is_0_to_1() -> None:
    assert [float(end) for end in find_wilson_interval(0, 0)] == [0, 1]
