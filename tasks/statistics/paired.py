"""Confidence intervals of differences between two heads that were measured on the same images."""

import math
from collections.abc import Callable
from statistics import NormalDist

HALVINGS = 50


def find_paired_interval(only_new: int, only_old: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a difference in accuracy on the same images.

    The score interval of Tango (Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, 1998): the differences that a two-sided test of these images does not reject. Unlike a
    bootstrap it holds for few images, and if the heads never differ. With no difference as the null hypothesis, its
    test is McNemar's.

    Args:
        only_new: The number of images on which the new head alone is right.
        only_old: The number on which the old head alone is right.
        images: The number of images that both were measured on.
        confidence: The interval's confidence.

    Returns:
        The ends of the interval of the new head's accuracy less the old head's; -1 and 1 without images.
    """
    if not images:
        return -1.0, 1.0
    z, observed = NormalDist().inv_cdf((1 + confidence) / 2), (only_new - only_old) / images
    low = _find_root(lambda gain: _score(gain, only_new, only_old, images) - z, -1.0, observed)
    high = _find_root(lambda gain: _score(gain, only_new, only_old, images) + z, observed, 1.0)
    return low, high


def _score(gain: float, only_new: int, only_old: int, images: int) -> float:
    """Return by how many standard deviations the images contradict a gain; falls as the gain rises."""
    # The likeliest share of images on which only the old head is right, if the gain is true.
    slope = (2 * images - only_new + only_old) * gain - only_new - only_old
    root = math.sqrt(max(slope**2 + 8 * images * only_old * gain * (1 - gain), 0.0))
    share = (root - slope) / (4 * images)
    variance = images * (2 * share + gain * (1 - gain))
    distance = only_new - only_old - images * gain
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def _find_root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Find where a falling function crosses 0, by bisection: its value may be infinite at the ends."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
