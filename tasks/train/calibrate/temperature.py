"""Calibration by temperature scaling."""

from dataclasses import replace

import numpy as np

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats, tempered_softmax
from tasks.train.fit.examples import ClassNames
from tasks.train.measure.metrics import Indices, compute_log_losses, index_classes

MAX_TEMPERATURE = 20.0
PRIOR = 0.5
"""Standard deviation of log temperatures before any image is seen: most are between 0.4 and 2.7."""


def calibrate(head: Classifier, features: Matrix, names: ClassNames) -> Classifier:
    """Set the temperature that minimises the log loss on validation images (Guo et al. 2017).

    The loss is convex in 1 / temperature, so its derivative has at most one root. If there is none between 1/20 and 20,
    for example because no validation image is misclassified, the temperature is 1.

    Args:
        head: The uncalibrated head.
        features: Features of the validation images [n, dim].
        names: Their classes [n]; images of classes that the head does not know are ignored.
    """
    true = index_classes(names, head.classes)
    known = true >= 0
    return replace(head, temperature=find_temperature(head.logits(features[known]), true[known]))


def find_temperature(logits: Floats, true: Indices) -> float:
    """Return the best temperature of logits [n, classes] with these true classes [n]; see :func:`calibrate`."""
    from scipy.optimize import brentq  # late: its import takes a third of a second

    lead = logits - np.take_along_axis(logits, true[:, None], axis=1)

    def slope(coldness: float) -> float:
        return float((tempered_softmax(lead, 1 / coldness) * lead).sum(axis=1).mean())

    if not len(true) or slope(1 / MAX_TEMPERATURE) >= 0 or slope(MAX_TEMPERATURE) <= 0:
        return 1.0
    return 1 / float(brentq(slope, 1 / MAX_TEMPERATURE, MAX_TEMPERATURE))


def find_likely_temperature(logits: Floats, true: Indices) -> float:
    """Return the most probable temperature of logits [n, classes] with these true classes [n]; 1 without images.

    It minimises the sum of the log losses plus that of a normal prior for log T around 0. Few images, of which perhaps
    none is wrong, then move it little; dozens outweigh the prior.
    """
    from scipy.optimize import minimize_scalar  # late, see above

    if not len(true):
        return 1.0

    def cost(log: float) -> float:
        losses = compute_log_losses(tempered_softmax(logits, float(np.exp(log))), true)
        return float(losses.sum() + log**2 / (2 * PRIOR**2))

    ends = (-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE))
    return float(np.exp(minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-8}).x))
