"""When a head answers "neither": the image is not near enough to the training images.

An image's nearness is the cosine between its feature and that of its fifth nearest training image (Sun et al.,
Out-of-distribution detection with deep nearest neighbors, 2022). It separates images of held-out classes better than
the largest probability does, because a softmax can be certain about any image: see ``python -m benchmarks.neither``.
"""

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats, KnownImages

NEAREST = 5
MOST_VALUES = 1 << 24
"""The number of values that a head keeps of its training images: 32 MB. Of more images, an even selection is kept."""
ROWS = 1024

Mask = npt.NDArray[np.bool_]


def choose_known(features: Matrix, names: npt.NDArray[np.str_], most: int = MOST_VALUES) -> KnownImages:
    """Choose the training images that a head keeps, the same share of each class.

    Args:
        features: Features [n, dim] of training images.
        names: Their class names [n].
        most: The number of values to keep, at most.

    Returns:
        Their features, and how many images they were chosen from.
    """
    count = min(len(features), max(NEAREST, most // features.shape[1]))
    order = np.argsort(names, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return KnownImages(_normalise(features[np.sort(chosen)]).astype(np.float16), len(features))


def measure_nearness(features: Matrix, known: KnownImages) -> Floats:
    """Return the cosine of each feature [n, dim] and its fifth nearest among the known images: [n]."""
    nearest = min(NEAREST, len(known.vectors))
    others = known.vectors.astype(np.float32).T
    parts = [_normalise(features[at : at + ROWS]) @ others for at in range(0, len(features), ROWS)]
    kth = [np.partition(cosines, -nearest, axis=1)[:, -nearest] for cosines in parts]
    return np.concatenate(kth).astype(np.float64) if kth else np.empty(0)


def refuse(head: Classifier, features: Matrix, probabilities: Floats) -> Mask:
    """Return for which images [n] a head answers "neither"; heads of earlier releases go by the largest probability."""
    scores = probabilities.max(axis=1) if head.known is None else measure_nearness(features, head.known)
    return scores < head.refuse_below


def _normalise(features: Matrix) -> Matrix:
    values = features.astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    units: Matrix = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return units
