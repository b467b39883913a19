"""Bootstrap: resamples of images, and intervals of the values that they give."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from tasks.statistics.shares import Floats

RESAMPLES, CONFIDENCE = 1000, 0.95
CELLS = 1 << 20
"""The number of counts in memory at once."""


def draw_bootstrap_counts(images: int, seed: int) -> Iterator[Floats]:
    """Resample the images with replacement 1,000 times (Efron 1979).

    Yields:
        How often each image was drawn [k, images], for a block of resamples.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, CELLS // images)
    for start in range(0, RESAMPLES, at_once):
        draws = random.integers(0, images, (min(at_once, RESAMPLES - start), images))
        cells = draws + np.arange(len(draws))[:, None] * images
        yield np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape).astype(np.float64)


def bootstrap_sums(table: csr_array, seed: int) -> Floats:
    """Sum the rows of each bootstrap resample.

    Args:
        table: What each image adds to each sum [n, m].
        seed: Seed of the bootstrap.

    Returns:
        The sums [1000, m].
    """
    return np.concatenate([counts @ table for counts in draw_bootstrap_counts(table.shape[0], seed)])


def find_percentile_interval(values: Floats) -> tuple[float, float]:
    """Return the ends of the central 95 % of a metric's bootstrap values."""
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)
