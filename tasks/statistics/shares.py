"""95 % confidence intervals of shares, and of figures between 0 and 1 that are computed from many images."""

from typing import cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z = 1.959963984540054
"""The normal distribution's quantile for a confidence of 95 %."""


def find_wilson_interval(right: npt.ArrayLike, images: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the 95 % score intervals of proportions (Wilson 1927); of no image, from 0 to 1."""
    right, images = np.asarray(right, np.float64), np.asarray(images, np.float64)
    spread, share = Z**2 / np.maximum(images, 1), right / np.maximum(images, 1)
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # Exactly 0 if none is right, and 1 if all are, without rounding errors.
    low, high = np.where(right > 0, middle - half, 0.0), np.where(right < images, middle + half, 1.0)
    return cast("Floats", low), cast("Floats", high)
