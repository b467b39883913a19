"""Samples: what heads are fitted to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats

Labels = npt.NDArray[np.intp]
Names = npt.NDArray[np.str_]
Images = tuple[Matrix, Names]
"""Features [n, dim] and class names [n]."""


@dataclass(frozen=True)
class Sample:
    """Features [n, dim], numbers of classes [n], each of which occurs, and what each row counts [n], which sum to 1."""

    features: Matrix
    labels: Labels
    shares: Floats


def share(labels: Labels, *, balanced: bool) -> Floats:
    """Say what each row counts [n]: the same, or, balanced, such that every class counts the same; sums to 1."""
    counts = np.bincount(labels)
    return 1 / (len(counts) * counts[labels]) if balanced else np.full(len(labels), 1 / len(labels))
