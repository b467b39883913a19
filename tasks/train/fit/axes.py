"""Principal axes of the features: one decomposition serves every linear head at every strength of L2."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats

FLAT = 1e-12
"""Axes below this share of the largest mean square are rounding errors."""
FLOOR = 0.1
"""No feature is standardised by less than this share of the median standard deviation."""
ROUNDED = 1e-6
"""Standard deviations below this share of the largest are rounding errors."""
ROWS = 4096


@dataclass(frozen=True)
class PrincipalAxes:
    """The principal axes of standardised features [n, dim].

    ``mean`` and ``scale`` [dim] standardise features. Along the orthonormal ``directions`` [dim, r] they are
    uncorrelated, with mean squares ``squares`` [r], ascending. All means are weighted.
    """

    mean: Floats
    scale: Floats
    directions: Floats
    squares: Floats

    def standardise(self, features: Matrix) -> Iterator[tuple[slice, Floats]]:
        """Yield standardised float64 features, a few thousand rows at a time."""
        for part in list_parts(features):
            yield part, (features[part] - self.mean) / self.scale

    def project(self, features: Matrix) -> Matrix:
        """Return features projected on the directions [n, r], float32: computed in float64, then rounded once."""
        projected = np.empty((len(features), len(self.squares)), np.float32)
        for part, standard in self.standardise(features):
            projected[part] = standard @ self.directions
        return projected


def find_principal_axes(features: Matrix, weights: Floats) -> PrincipalAxes:
    """Decompose the smaller of the two Gram matrices, since few images span few axes.

    Args:
        features: Features [n, dim].
        weights: Weights of the images [n] that sum to 1.
    """
    mean = sum((weights[part] @ features[part].astype(np.float64) for part in list_parts(features)), np.zeros(1))
    find = _decompose_images if len(features) < len(mean) else _decompose_features
    scale, squares, directions = find(features, weights, mean)
    kept = squares > FLAT * squares[-1]
    return PrincipalAxes(mean, scale, directions[:, kept], squares[kept])


def _decompose_features(features: Matrix, weights: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
    gram = np.zeros((len(mean), len(mean)))
    for part in list_parts(features):
        centred = (features[part] - mean) * np.sqrt(weights[part])[:, None]
        gram += centred.T @ centred
    scale = _find_scale(np.diag(gram))
    return scale, *_decompose(gram / np.outer(scale, scale))


def _decompose_images(features: Matrix, weights: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
    centred = (features - mean) * np.sqrt(weights)[:, None]
    scale = _find_scale((centred**2).sum(axis=0))
    standard = centred / scale
    squares, rows = _decompose(standard @ standard.T)
    return scale, squares, standard.T @ (rows / np.sqrt(np.maximum(squares, FLAT * squares[-1])))


def _decompose(gram: Floats) -> tuple[Floats, Floats]:
    """Find eigenvalues and eigenvectors on one thread: two are no faster, and far slower on busy cores."""
    with threadpool_limits(1, "blas"):
        return np.linalg.eigh(gram)


def _find_scale(variances: Floats) -> Floats:
    """Return standard deviations, none below a share of the median: that of a feature which is almost constant.

    Such a feature varies by chance among the training images, and another image would be thousands of deviations off.
    """
    deviations = np.sqrt(np.maximum(variances, 0))
    varying = deviations[deviations > ROUNDED * deviations.max()]
    return np.maximum(deviations, FLOOR * np.median(varying)) if len(varying) else np.ones_like(deviations)


def list_parts(features: Matrix) -> list[slice]:
    """List slices of a few thousand rows."""
    return [slice(start, start + ROWS) for start in range(0, len(features), ROWS)]
