"""By how much each image moves a figure that is computed from all of them, per unit of the image's weight."""

import numpy as np
import numpy.typing as npt

from tasks.statistics.shares import Floats

Marks = npt.NDArray[np.bool_]


def find_micro_f1_influences(value: float, predicted: Marks, truth: Marks) -> Floats:
    """Return the influences [n] on F1 over all pairs of image and label, from [n, labels]."""
    counts = predicted.sum(axis=1) + truth.sum(axis=1)
    moved: Floats = (2 * (predicted & truth).sum(axis=1) - value * counts) / max(float(counts.sum()), 1.0)
    return moved


def find_macro_f1_influences(predicted: Marks, truth: Marks) -> Floats:
    """Return the influences [n] on the mean F1 of the labels that occur or are predicted, from [n, labels]."""
    counts = predicted.astype(np.float64) + truth
    sums, hits = counts.sum(axis=0), predicted & truth
    used = sums > 0
    f1 = 2 * hits.sum(axis=0) / np.maximum(sums, 1)
    moved: Floats = ((2 * hits - f1 * counts) / np.maximum(sums, 1))[:, used].sum(axis=1) / max(int(used.sum()), 1)
    return moved


def find_mean_precision_influences(scores: Floats, truth: Marks) -> Floats:
    """Return the influences [n] on the mean average precision of the labels that an image has, from [n, labels]."""
    having = np.flatnonzero(truth.any(axis=0))
    moved = [find_precision_influences(scores[:, label], truth[:, label]) for label in having]
    return np.mean(moved, axis=0) if moved else np.zeros(len(truth))


def find_precision_influences(scores: Floats, truth: Marks) -> Floats:
    """Return the influences [n] on the average precision of one label, that some image has.

    The precision at an image with the label is hits / images, counted over all with at least its score. Another image
    changes both counts if its score is as high, by 1 / images and hits / images^2 at each such precision.
    """
    order = np.argsort(-scores, kind="stable")
    has, falling = truth[order].astype(np.float64), scores[order]
    first = np.searchsorted(-falling, -falling, side="left")  # images of equal scores are one step
    last = np.searchsorted(-falling, -falling, side="right") - 1
    images, hits = last + 1.0, np.cumsum(has)[last]
    precision, total = hits / images, has.sum()
    gained, lost = (_sum_from(has / images, first), _sum_from(has * hits / images**2, first))
    moved = np.empty(len(scores))
    moved[order] = (has * (precision - has @ precision / total) + has * gained - lost) / total
    return moved


def _sum_from(values: Floats, first: npt.NDArray[np.intp]) -> Floats:
    """Sum the values from each position to the end."""
    sums: Floats = np.cumsum(values[::-1])[::-1][first]
    return sums
