"""How sure a figure is: bootstrap intervals of figures, Wilson's of shares."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from tasks.heads.heads import Floats

RESAMPLES, CONFIDENCE, Z = 1000, 0.95, 1.959963984540054
CELLS = 1 << 20
"""Counts that are held at once."""


def draw(images: int, seed: int) -> Iterator[Floats]:
    """Draw as many images as there are, with replacement, 1,000 times (Efron 1979).

    Yields:
        how often each image was drawn, [k, images], for some of the draws at once.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, CELLS // images)
    for start in range(0, RESAMPLES, at_once):
        draws = random.integers(0, images, (min(at_once, RESAMPLES - start), images))
        cells = draws + np.arange(len(draws))[:, None] * images
        yield np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape).astype(np.float64)


def resample(table: csr_array, seed: int) -> Floats:
    """Sum the rows of the images of each draw.

    Args:
        table: what each image adds to each sum, [n, m].
        seed: of the draws.

    Returns:
        the sums, [1000, m].
    """
    return np.concatenate([counts @ table for counts in draw(table.shape[0], seed)])


def take_percentiles(figures: Floats) -> tuple[float, float]:
    """Give the ends of the middle 95 % of a figure's values over resamples."""
    low, high = np.percentile(figures, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def wilson(right: npt.ArrayLike, images: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Give the 95 % score intervals of shares (Wilson 1927); of no image, from 0 to 1."""
    right, images = np.asarray(right, np.float64), np.asarray(images, np.float64)
    spread, share = Z**2 / np.maximum(images, 1), right / np.maximum(images, 1)
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # none right, or all: the very end, which rounding would miss
    low, high = np.where(right > 0, middle - half, 0.0), np.where(right < images, middle + half, 1.0)
    return cast("Floats", low), cast("Floats", high)
