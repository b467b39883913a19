"""Nearest images by the cosine between standardised features: near-duplicates, and images unlike all others."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from storage.heads import Floats
from storage.progress import Advance
from storage.vectors import Matrix

ROWS = 1024
NEAREST = 10
CLOSE = 0.95
"""The least cosine of near-duplicates."""
FENCE = 3.0
"""A value that many interquartile ranges above the third quartile is far out (Tukey, Exploratory Data Analysis)."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """For each of n images its k nearest others, nearest first: their numbers and cosines [n, k]."""

    numbers: Numbers
    cosines: Matrix


def find_nearest(features: Matrix, advance: Advance) -> Nearest:
    """Compare every image with every other: n^2 products of vectors, a few rows at a time.

    Args:
        features: [n, dim], n at least 2.
        advance: is told how many images are done.
    """
    points, count = _point(features), min(NEAREST, len(features) - 1)
    numbers, cosines = np.empty((len(points), count), np.int64), np.empty((len(points), count), np.float32)
    for start in range(0, len(points), ROWS):
        part = slice(start, min(start + ROWS, len(points)))
        found = points[part] @ points.T
        found[np.arange(len(found)), np.arange(part.start, part.stop)] = -np.inf  # itself
        nearest = np.argpartition(-found, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(found, nearest, axis=1), axis=1, kind="stable")
        numbers[part] = np.take_along_axis(nearest, order, axis=1)
        cosines[part] = np.take_along_axis(found, numbers[part], axis=1)
        advance(len(found))
    return Nearest(numbers, cosines)


def meet_earlier(features: Matrix, arrivals: Numbers, closest: float, advance: Advance) -> Iterator[Numbers]:
    """Give for each image in turn the numbers of the earlier ones that are at least so close.

    Features are standardised over those that had arrived by then, so that an answer stays as images are added.

    Args:
        features: [n, dim], by arrival.
        arrivals: when each arrived, rising [n].
        closest: a cosine.
        advance: is told how many images are done.
    """
    starts = np.flatnonzero(np.diff(arrivals, prepend=-1))
    for first, end in pairwise([*starts.tolist(), len(features)]):
        points = _point(features[:end])
        for start in range(first, end, ROWS):
            stop = min(start + ROWS, end)
            found = points[start:stop] @ points[:stop].T
            yield from (np.flatnonzero(row[:at] >= closest) for at, row in enumerate(found, start))
            advance(stop - start)


def pair_up(nearest: Nearest, closest: float) -> list[tuple[int, int, float]]:
    """List the pairs of images (first, second, cosine) that are at least so close, closest first."""
    rows, columns = np.nonzero(nearest.cosines >= closest)
    pairs = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        other = int(nearest.numbers[row, column])
        pairs[min(row, other), max(row, other)] = float(nearest.cosines[row, column])
    return sorted(((*pair, cosine) for pair, cosine in pairs.items()), key=lambda found: (-found[2], found[:2]))


def find_outliers(nearest: Nearest) -> list[tuple[int, float]]:
    """List the images whose mean distance to their nearest is far out, farthest first: (number, mean cosine)."""
    distances: Floats = 1 - nearest.cosines.astype(np.float64).mean(axis=1)
    low, high = np.percentile(distances, [25, 75])
    far = np.flatnonzero(distances > high + FENCE * (high - low))
    return [(int(at), float(1 - distances[at])) for at in far[np.argsort(-distances[far], kind="stable")]]


def _point(features: Matrix) -> Matrix:
    """Standardise features and give their directions [n, dim]."""
    standard = features - features.mean(axis=0)
    scale = standard.std(axis=0)
    standard /= np.where(scale > 0, scale, 1)
    lengths = np.linalg.norm(standard, axis=1, keepdims=True)
    pointed: Matrix = np.divide(standard, lengths, out=np.zeros_like(standard), where=lengths > 0)
    return pointed
