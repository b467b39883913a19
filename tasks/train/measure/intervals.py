"""95 % confidence intervals: bootstrap percentiles of metrics, Wilson intervals of proportions."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from tasks.heads.heads import Floats

RESAMPLES, CONFIDENCE, Z = 1000, 0.95, 1.959963984540054
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


def find_wilson_interval(right: npt.ArrayLike, images: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the 95 % score intervals of proportions (Wilson 1927); of no image, from 0 to 1."""
    right, images = np.asarray(right, np.float64), np.asarray(images, np.float64)
    spread, share = Z**2 / np.maximum(images, 1), right / np.maximum(images, 1)
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # Exactly 0 if none is right, and 1 if all are, without rounding errors.
    low, high = np.where(right > 0, middle - half, 0.0), np.where(right < images, middle + half, 1.0)
    return cast("Floats", low), cast("Floats", high)
