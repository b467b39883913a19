"""Bootstrap resamples, and the coverage of their percentiles."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from tasks.statistics.bootstrap import CELLS, RESAMPLES, bootstrap_sums, find_percentile_interval


def test_each_resample_draws_n_rows_uniformly() -> None:
    images = 50
    sums = bootstrap_sums(csr_array(np.eye(images)), seed=0)
    assert sums.shape == (RESAMPLES, images)
    assert set(sums.sum(axis=1)) == {images}
    np.testing.assert_allclose(sums.mean(axis=0), 1, atol=5 / np.sqrt(RESAMPLES))
    np.testing.assert_allclose(sums.var(axis=0), 1 - 1 / images, atol=0.3)  # a binomial's


def test_the_seed_decides_the_resamples() -> None:
    table = csr_array(np.arange(20.0)[:, None])
    assert np.array_equal(bootstrap_sums(table, 1), bootstrap_sums(table, 1))
    assert not np.array_equal(bootstrap_sums(table, 1), bootstrap_sums(table, 2))


def test_many_images_are_drawn_in_blocks() -> None:
    images = CELLS // 300  # 300 resamples a part
    sums = bootstrap_sums(csr_array(np.ones((images, 1))), seed=0)
    assert sums.shape == (RESAMPLES, 1)
    assert set(sums[:, 0]) == {images}


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_the_interval_of_an_accuracy_has_95_percent_coverage(share: float) -> None:
    random = np.random.default_rng(3)
    held = 0
    for seed in range(300):
        right = random.random((200, 1)) < share
        low, high = find_percentile_interval(bootstrap_sums(csr_array(right.astype(float)), seed)[:, 0] / 200)
        held += low <= share <= high
    assert 0.91 <= held / 300 <= 0.98
