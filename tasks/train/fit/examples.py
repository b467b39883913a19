"""The examples that heads are fitted to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats

ClassIndices = npt.NDArray[np.intp]
ClassNames = npt.NDArray[np.str_]
LabelledFeatures = tuple[Matrix, ClassNames]
"""Features [n, dim] and class names [n]."""


@dataclass(frozen=True)
class Examples:
    """Features [n, dim], class indices [n], and weights [n] that sum to 1; every class has an example."""

    features: Matrix
    labels: ClassIndices
    weights: Floats


def weigh_examples(labels: ClassIndices, *, balanced: bool) -> Floats:
    """Weight all examples equally or, if balanced, all classes equally; the weights [n] sum to 1."""
    counts = np.bincount(labels)
    return 1 / (len(counts) * counts[labels]) if balanced else np.full(len(labels), 1 / len(labels))
