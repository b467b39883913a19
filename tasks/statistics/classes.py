"""95 % confidence intervals of means over classes, some of which may have few images.

The recall of a class with two images is 0, 0.5 or 1, which says little about its variance. So each class is given one
more image, right with the probability that all images have; the variances then come with the degrees of freedom that
the sizes of the classes leave (Satterthwaite 1946).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.statistics.shares import Floats, find_effective_interval

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassCounts:
    """By class: the images that have it and are predicted right, those that have it, those predicted to it [classes].

    ``wrong`` [n, 2] has the true and the predicted class of each wrong image, -1 for a true class that is not known.
    """

    hits: Floats
    true: Floats
    predicted: Floats
    wrong: Indices

    @property
    def pooled(self) -> float:
        """The share of images that are right, never 0 or 1."""
        return (float(self.hits.sum()) + 0.5) / (float(self.hits.sum()) + len(self.wrong) + 1)


def count_classes(true: Indices, predicted: Indices, classes: int) -> ClassCounts:
    """Count from true classes [n], -1 if not known, and predicted classes [n]."""
    right, known = true == predicted, true >= 0
    hits, having, given = (
        np.bincount(each, minlength=classes).astype(np.float64) for each in (true[right], true[known], predicted)
    )
    return ClassCounts(hits, having, given, np.stack([true[~right], predicted[~right]], axis=1))


def find_recall_interval(value: float, counts: ClassCounts) -> tuple[float, float]:
    """Return the interval of ``value``, the mean recall of the classes that have an image."""
    recalls, variances = _find_recalls(counts)
    if not len(recalls):
        return 0.0, 1.0
    mean = float(recalls.mean())
    return find_effective_interval(value, mean * (1 - mean) / float(variances.sum()), _find_freedom(counts))


def find_f1_interval(value: float, counts: ClassCounts) -> tuple[float, float]:
    """Return the interval of ``value``, the mean F1 of the classes that have an image or are predicted."""
    used = (counts.true + counts.predicted) > 0
    classes, images = int(used.sum()), float(counts.predicted.sum())
    added = (1 - counts.pooled) / max(classes - 1, 1)  # to each pair of two classes
    hits = counts.hits + counts.pooled
    sums = np.where(used, counts.true + counts.predicted + 2 * (counts.pooled + added * (classes - 1)), 1.0)
    f1 = np.where(used, 2 * hits / sums, 0.0)
    slope = np.append(f1 / sums, 0.0)  # the last is that of the true classes that are not known
    total, squares = float(slope.sum()), float((slope**2).sum())
    pairs = 2 * classes * squares + 2 * total**2 - 4 * squares  # the sum of (slope + slope)^2 over pairs of two classes
    variance = (
        float((hits[used] * ((2 - 2 * f1) / sums)[used] ** 2).sum())
        + float(((slope[counts.wrong[:, 0]] + slope[counts.wrong[:, 1]]) ** 2).sum())
        + added * pairs
    ) / classes**2
    mean, scale = float(f1[used].mean()), (images + classes) / images
    return find_effective_interval(value, mean * (1 - mean) / (variance * scale), _find_freedom(counts))


def _find_recalls(counts: ClassCounts) -> tuple[Floats, Floats]:
    """Return the recall of each class that has an image, with one image more, and what it adds to the variance."""
    having = counts.true > 0
    images = counts.true[having]
    recalls = (counts.hits[having] + counts.pooled) / (images + 1)
    return recalls, recalls * (1 - recalls) / images / len(images) ** 2


def _find_freedom(counts: ClassCounts) -> float:
    """Return the degrees of freedom of the variance of the mean recall."""
    _, variances = _find_recalls(counts)
    having = counts.true[counts.true > 0]
    return float(variances.sum() ** 2 / (variances**2 / having).sum()) if len(having) else 1.0
