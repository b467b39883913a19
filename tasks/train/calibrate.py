"""Calibration: probabilities that are as often right as they say."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from storage.heads import Classifier, Floats, soften
from storage.vectors import Matrix

BINS = 15
WARMEST = 20.0


def calibrate(head: Classifier, features: Matrix, names: npt.NDArray[np.str_]) -> Classifier:
    """Give a head the temperature at which its log loss on validation images is lowest (Guo et al. 2017).

    The loss is convex in 1 / temperature, so that its slope has one root at most. Where there is none between 1/20 and
    20, as where no validation image is wrong, the temperature is 1.

    Args:
        head: as it was fitted.
        features: of the validation images, [n, dim].
        names: their classes; images of a class that the head does not know are left out.
    """
    column = {name: index for index, name in enumerate(head.classes)}
    known = np.array([name in column for name in names])
    true = np.array([column[name] for name in names[known]], np.int64)
    return replace(head, temperature=find_temperature(head.logits(features[known]), true))


def find_temperature(logits: Floats, true: npt.NDArray[np.int64]) -> float:
    """Find the temperature of logits [n, classes] whose true classes [n] are known, as :func:`calibrate` has it."""
    lead = logits - np.take_along_axis(logits, true[:, None], axis=1)

    def slope(coldness: float) -> float:
        return float((soften(lead, 1 / coldness) * lead).sum(axis=1).mean())

    if not len(true) or slope(1 / WARMEST) >= 0 or slope(WARMEST) <= 0:
        return 1.0
    return 1 / float(brentq(slope, 1 / WARMEST, WARMEST))


def find_bins(sureness: Floats) -> npt.NDArray[np.int64]:
    """Give the bin of each probability [n]: fifteen of equal width, each with its upper end."""
    return np.clip(np.ceil(sureness * BINS).astype(np.int64) - 1, 0, BINS - 1)
