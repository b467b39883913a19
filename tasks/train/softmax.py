"""The softmax head: standardised features, L2 chosen on validation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.heads import Floats, Head
from storage.vectors import Matrix
from tasks.train.axes import find_axes
from tasks.train.evaluate import log_loss
from tasks.train.path import fit_path
from tasks.train.settings import TrainSettings

Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Candidate:
    """A head at one strength of L2, and its mean log loss on validation."""

    l2: float
    head: Head
    loss: float


def fit_softmax(
    train: tuple[Matrix, Names], validation: tuple[Matrix, Names], settings: TrainSettings
) -> tuple[Candidate, ...]:
    """Fit a head for each strength of L2, all of them on one decomposition of the features; best first.

    Minimises mean log loss + l2/2 ||weights||^2.

    Args:
        train: features [n, dim] and class names [n].
        validation: features [m, dim] and class names [m].
        settings: the strengths of L2, class weights, and the most steps.
    """
    features, names = train
    strengths = sorted(set(settings.l2), reverse=True)
    classes, labels = np.unique(names, return_inverse=True)
    known, shares = tuple(map(str, classes)), share(labels, balanced=settings.class_weights)
    axes = find_axes(features, shares)
    fitted = fit_path(axes, features, labels, shares, strengths, settings.iterations)
    heads = [Head(known, axes.mean, axes.scale, weights, bias) for weights, bias in fitted]
    losses = [log_loss(head.probabilities(validation[0]), validation[1], known) for head in heads]
    candidates = [Candidate(*each) for each in zip(strengths, heads, losses, strict=True)]
    return tuple(sorted(candidates, key=lambda candidate: (candidate.loss, -candidate.l2)))


def share(labels: npt.NDArray[np.intp], *, balanced: bool) -> Floats:
    """Say what each row counts [n]: the same, or, balanced, such that every class counts the same; sums to 1."""
    counts = np.bincount(labels)
    return 1 / (len(counts) * counts[labels]) if balanced else np.full(len(labels), 1 / len(labels))
