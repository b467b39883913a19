"""95 % confidence intervals of shares, and of figures between 0 and 1 that are computed from many images."""

from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

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


def find_figure_interval(value: float, influences: Floats) -> tuple[float, float]:
    """Return the 95 % interval of a figure between 0 and 1, such as an F1 or a mean average precision.

    Wilson's interval at the effective number of images: as many as would give a share of this value the figure's own
    variance (Korn & Graubard 1998). The variance is the infinitesimal jackknife's (Efron 1982). As that is uncertain if
    few images decide it, Student's t replaces the normal distribution (Satterthwaite 1946).

    Args:
        value: The figure.
        influences: By how much it changes per unit of weight of each image, or group of images that vary together [n].
    """
    count, squares = len(influences), influences**2
    variance = float(squares.sum()) * count / max(count - 1, 1)
    if variance == 0 or not 0 < value < 1:
        return find_effective_interval(value, count)
    spread = float((squares**2).sum()) / float(squares.sum()) ** 2 - 1 / count
    return find_effective_interval(value, value * (1 - value) / variance, 2 / spread if spread > 0 else np.inf)


def find_effective_interval(value: float, images: float, freedom: float = np.inf) -> tuple[float, float]:
    """Return Wilson's interval of a figure between 0 and 1 that varies like a share of this many images.

    ``freedom`` are the degrees of freedom with which the number is known; infinite if it is certain.
    """
    certain = images * (Z / find_quantile(freedom)) ** 2
    low, high = find_wilson_interval(value * certain, certain)
    return float(low), float(high)


def find_quantile(freedom: float) -> float:
    """Return the quantile of Student's t distribution for a confidence of 95 %."""
    return float(stdtrit(max(freedom, 1.0), 0.975)) if np.isfinite(freedom) else Z
