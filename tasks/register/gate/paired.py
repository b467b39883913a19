"""Paired tests: is one model better than another on the same images, and by how much?"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from tasks.heads.answers import LabelIndicators, compute_average_precisions
from tasks.heads.heads import Floats
from tasks.statistics.paired import find_paired_interval

RESAMPLES = 2000
SEED = 0

Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """How a new model compares with an old one on the same images.

    Attributes:
        new: The new model's figure: accuracy, or mAP.
        old: The old model's.
        low: Lower end of the interval of the difference, new minus old.
        high: Upper end.
        p: Probability of a difference at least this large in the new model's favour if there is none.
        images: The number of images.
    """

    new: float
    old: float
    low: float
    high: float
    p: float
    images: int

    @property
    def difference(self) -> float:
        """The new model's figure minus the old one's."""
        return self.new - self.old


def compare_accuracies(new: Correct, old: Correct, confidence: float) -> Comparison:
    """Compare the accuracies of two models on the same images.

    The test is McNemar's (1947), one-sided and exact: of the images that only one model gets right, does the new one
    get more than half? The interval is Tango's (1998), which goes with this test.

    Args:
        new: Whether the new model is right about each image [n].
        old: Whether the old model is.
        confidence: Of each end of the interval.
    """
    images, gained, lost = len(new), int((new & ~old).sum()), int((old & ~new).sum())
    p = float(bdtrc(gained - 1, gained + lost, 0.5)) if gained else 1.0  # scipy.stats takes a second to import
    low, high = find_paired_interval(gained, lost, images, 2 * confidence - 1)
    return Comparison(float(new.mean()), float(old.mean()), low, high, p, images)


def compare_mean_average_precisions(
    new: Floats, old: Floats, truth: LabelIndicators, confidence: float, seed: int = SEED
) -> Comparison:
    """Compare the mean average precisions of two multi-label models by a paired bootstrap over the images.

    Args:
        new: The new model's scores [n, labels].
        old: The old model's, for the same labels.
        truth: Which labels each image has [n, labels].
        confidence: Of each end of the interval.
        seed: Of the resamples.
    """
    images = len(truth)
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), RESAMPLES - 1).T
    weights = np.column_stack([np.ones(images), counts])  # the first column is the sample itself
    new_map, old_map = _average(new, truth, weights), _average(old, truth, weights)
    differences = new_map - old_map
    low, high = np.quantile(differences[1:], [1 - confidence, confidence])
    p = float((differences <= 0).mean())
    return Comparison(float(new_map[0]), float(old_map[0]), float(low), float(high), p, images)


def _average(scores: Floats, truth: LabelIndicators, weights: Floats) -> Floats:
    """Return the mAP of each resample, over the labels that it has; 0 if it has none."""
    areas = np.array([compute_average_precisions(*column, weights) for column in zip(scores.T, truth.T, strict=True)])
    present = ~np.isnan(areas)
    return cast("Floats", np.where(present, areas, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1))
