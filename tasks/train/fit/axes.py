"""Features along their principal axes: one decomposition, which serves every strength of L2 and every linear head."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats

FLAT = 1e-12
"""Axes with less than this share of the largest mean square are rounding errors."""
ROWS = 4096


@dataclass(frozen=True)
class Axes:
    """Where standardised features [n, dim] spread.

    ``mean`` and ``scale`` [dim] standardise them. Along the ``directions`` [dim, r], which are orthonormal, their mean
    squares are ``squares`` [r], ascending, and their mean products 0. Means are weighed by what each row counts.
    """

    mean: Floats
    scale: Floats
    directions: Floats
    squares: Floats

    def standardise(self, features: Matrix) -> Iterator[tuple[slice, Floats]]:
        """Give a few thousand rows at a time, standardised, in float64."""
        for start in range(0, len(features), ROWS):
            part = slice(start, start + ROWS)
            yield part, (features[part] - self.mean) / self.scale

    def lay(self, features: Matrix) -> Matrix:
        """Give the features along the directions, [n, r], float32."""
        laid, directions = np.empty((len(features), len(self.squares)), np.float32), self.directions.astype(np.float32)
        for part, standard in self.standardise(features):
            laid[part] = standard.astype(np.float32) @ directions
        return laid


def find_axes(features: Matrix, shares: Floats) -> Axes:
    """Decompose the smaller of two Gram matrices: few images span few axes.

    Args:
        features: [n, dim].
        shares: what each row counts [n]; they sum to 1.
    """
    mean = sum((shares[part] @ features[part].astype(np.float64) for part in _parts(features)), np.zeros(1))
    find = _decompose_images if len(features) < len(mean) else _decompose_features
    scale, squares, directions = find(features, shares, mean)
    kept = squares > FLAT * squares[-1]
    return Axes(mean, scale, directions[:, kept], squares[kept])


def _decompose_features(features: Matrix, shares: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
    gram = np.zeros((len(mean), len(mean)))
    for part in _parts(features):
        centred = (features[part] - mean) * np.sqrt(shares[part])[:, None]
        gram += centred.T @ centred
    scale = _find_scale(np.diag(gram))
    return scale, *_decompose(gram / np.outer(scale, scale))


def _decompose_images(features: Matrix, shares: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
    centred = (features - mean) * np.sqrt(shares)[:, None]
    scale = _find_scale((centred**2).sum(axis=0))
    standard = centred / scale
    squares, rows = _decompose(standard @ standard.T)
    return scale, squares, standard.T @ (rows / np.sqrt(np.maximum(squares, FLAT * squares[-1])))


def _decompose(gram: Floats) -> tuple[Floats, Floats]:
    """Find eigenvalues and vectors on one thread: two are no faster, and many times slower where cores are busy."""
    with threadpool_limits(1, "blas"):
        return np.linalg.eigh(gram)


def _find_scale(variances: Floats) -> Floats:
    return np.sqrt(np.where(variances > 0, variances, 1.0))


def _parts(features: Matrix) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, len(features), ROWS)]
