"""Calibration: probabilities that are as often right as they say."""

from dataclasses import replace

import numpy as np

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats, soften
from tasks.train.fit.sample import Names
from tasks.train.measure.figures import Numbers, number_classes

WARMEST = 20.0


def calibrate(head: Classifier, features: Matrix, names: Names) -> Classifier:
    """Give a head the temperature at which its log loss on validation images is lowest (Guo et al. 2017).

    The loss is convex in 1 / temperature, so that its slope has one root at most. Where there is none between 1/20 and
    20, as where no validation image is wrong, the temperature is 1.

    Args:
        head: as it was fitted.
        features: of the validation images, [n, dim].
        names: their classes; images of a class that the head does not know are left out.
    """
    true = number_classes(names, head.classes)
    known = true >= 0
    return replace(head, temperature=find_temperature(head.logits(features[known]), true[known]))


def find_temperature(logits: Floats, true: Numbers) -> float:
    """Find the temperature of logits [n, classes] whose true classes [n] are known, as :func:`calibrate` has it."""
    from scipy.optimize import brentq  # a third of a second, which a run with nothing to do need not pay

    lead = logits - np.take_along_axis(logits, true[:, None], axis=1)

    def slope(coldness: float) -> float:
        return float((soften(lead, 1 / coldness) * lead).sum(axis=1).mean())

    if not len(true) or slope(1 / WARMEST) >= 0 or slope(WARMEST) <= 0:
        return 1.0
    return 1 / float(brentq(slope, 1 / WARMEST, WARMEST))
