"""Features along their principal axes: one decomposition, which serves every strength of L2 and every linear head."""

from dataclasses import dataclass

import numpy as np

from storage.heads import Floats
from storage.vectors import Matrix

FLAT = 1e-12
"""Axes with less than this share of the largest mean square are rounding errors."""
ROWS = 4096


@dataclass(frozen=True)
class Axes:
    """Standardised features [n, dim], turned.

    ``mean`` and ``scale`` [dim] standardise them; ``directions`` [dim, r] turn them into ``inputs`` [n, r], float32,
    whose mean squares are ``squares`` [r] and whose mean products are 0.
    """

    mean: Floats
    scale: Floats
    directions: Floats
    squares: Floats
    inputs: Matrix


def turn(features: Matrix) -> Axes:
    """Standardise features and decompose the smaller of their Gram matrices; few images span few axes."""
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1
    few = len(features) < len(mean)
    squares, directions = _decompose_few(features, mean, scale) if few else _decompose(features, mean, scale)
    kept = squares > FLAT * squares[-1]
    directions = directions[:, kept]
    inputs = np.empty((len(features), directions.shape[1]), np.float32)
    for part in _parts(features):
        inputs[part] = (features[part] - mean) / scale @ directions
    return Axes(mean, scale, directions, squares[kept], inputs)


def _decompose(features: Matrix, mean: Floats, scale: Floats) -> tuple[Floats, Floats]:
    gram = np.zeros((len(mean), len(mean)))
    for part in _parts(features):
        standard = (features[part] - mean) / scale
        gram += standard.T @ standard
    squares, directions = np.linalg.eigh(gram / len(features))
    return squares, directions


def _decompose_few(features: Matrix, mean: Floats, scale: Floats) -> tuple[Floats, Floats]:
    standard, n = (features - mean) / scale, len(features)
    squares, rows = np.linalg.eigh(standard @ standard.T / n)
    return squares, standard.T @ (rows / np.sqrt(n * np.maximum(squares, FLAT * squares[-1])))


def _parts(features: Matrix) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, len(features), ROWS)]
