"""Heads whose logits are their features, and images drawn from such logits."""

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Head

CLASSES = np.array(["a", "b", "c", "d"])


def make_head(classes: npt.NDArray[np.str_] = CLASSES, temperature: float = 1.0) -> Head:
    """Make a head whose logits are its features."""
    count = len(classes)
    return Head(tuple(map(str, classes)), np.zeros(count), np.ones(count), np.eye(count), np.zeros(count), temperature)


def draw(images: int, seed: int, classes: int = 4) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Draw logits [images, classes], and a true class for each by the softmax of its logits."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, classes)) * 1.5
    true = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits.astype(np.float32), true
