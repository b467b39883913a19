"""The interval of a difference between two heads on the same images, compared with its definition."""

import numpy as np
import pytest
from scipy.stats import norm

from tasks.statistics.paired import find_paired_interval


@pytest.mark.parametrize(("only_new", "only_old", "images"), [(12, 5, 100), (3, 0, 40), (0, 9, 30), (40, 25, 300)])
def test_it_excludes_no_difference_exactly_if_mcnemars_test_does(only_new: int, only_old: int, images: int) -> None:
    z = (only_new - only_old) / (only_new + only_old) ** 0.5
    p = 2 * norm.sf(abs(z))
    for confidence in (1 - p - 1e-6, 1 - p + 1e-6):
        low, high = find_paired_interval(only_new, only_old, images, confidence)
        assert (low < 0 < high) == (confidence > 1 - p)


def test_swapping_the_heads_mirrors_it() -> None:
    low, high = find_paired_interval(12, 5, 100)
    assert find_paired_interval(5, 12, 100) == pytest.approx((-high, -low))


@pytest.mark.parametrize("images", [15, 100])
def test_of_heads_that_never_differ_it_depends_on_the_number_of_images(images: int) -> None:
    low, high = find_paired_interval(0, 0, images)
    assert -low == pytest.approx(high) == pytest.approx(1.96**2 / (images + 1.96**2), abs=1e-4)


@pytest.mark.parametrize(("only_new", "only_old"), [(20, 0), (0, 20)])
def test_it_ends_at_1_if_one_head_is_always_right_and_the_other_never(only_new: int, only_old: int) -> None:
    low, high = find_paired_interval(only_new, only_old, 20)
    assert -1 <= low <= high <= 1
    assert max(-low, high) == pytest.approx(1)


def test_of_no_image_it_is_everything() -> None:
    assert find_paired_interval(0, 0, 0) == (-1, 1)


@pytest.mark.parametrize("images", [30, 300])
def test_it_covers_the_true_difference_at_the_stated_rate(images: int) -> None:
    random = np.random.default_rng(0)
    draws = random.multinomial(images, (0.15, 0.08, 0.77), 1000)
    ends = [find_paired_interval(int(new), int(old), images) for new, old, _ in draws]
    assert 0.93 <= np.mean([low <= 0.07 <= high for low, high in ends]) <= 0.975
