"""Thresholds: from which probability on a label is an answer.

Of the images with a probability of t and more, let TP(t) have the label; P images have it in all. With N(t) images
answered, precision is TP / N and recall TP / P, so that F1(t), their harmonic mean, is 2 TP(t) / (N(t) + P). As t
falls, it changes at the images' own probabilities alone: sorted once, two running sums give it at every one of them,
and the best is found among n candidates. (For probabilities that are as often right as they say, the best threshold is
half of the best F1, and never above 1/2: Lipton et al., Optimal thresholding of classifiers to maximize F1 measure,
2014.) Any t between the last image that is answered and the first that is not gives the same; the middle is the
farthest from both.
"""

import numpy as np

from storage.answers import Marks
from storage.heads import Floats

UNSURE = 0.5


def choose_thresholds(probabilities: Floats, truth: Marks) -> tuple[float, ...]:
    """Give each label the threshold of its highest F1 on validation images, the highest of equals.

    A label that no validation image has gets 0.5.

    Args:
        probabilities: [n, labels].
        truth: whether an image has a label, [n, labels].
    """
    return tuple(_choose(each, has) for each, has in zip(probabilities.T, truth.T, strict=True))


def _choose(probabilities: Floats, has: Marks) -> float:
    if not has.any():
        return UNSURE
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    ends = np.flatnonzero(np.append(np.diff(falling) < 0, True))  # images of one probability come together
    f1 = 2 * np.cumsum(has[order])[ends] / (ends + 1 + has.sum())
    best = ends[f1.argmax()]
    below = np.append(falling, 0.0)[best + 1]
    middle = (falling[best] + below) / 2
    return float(middle if middle > below else falling[best])  # nothing may lie between the two
