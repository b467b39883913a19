"""Sigmoid heads: a logistic regression for each label, all labels at once, along a path of L2 strengths.

The labels share their inputs and nothing else, so that one product of matrices serves a step of all of them. The
Hessian of a label's mean log loss is the mean of p (1 - p) x x' over the images. It is approximated by the product of
the two means: with x along principal axes of mean squares s, and c the mean of p (1 - p), its inverse with the penalty
is 1 / (s c + l2). Each strength of L2 starts where the stronger one ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from scipy.special import expit

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import Marks
from tasks.heads.heads import Floats
from tasks.train.fit.axes import Axes
from tasks.train.fit.lbfgs import (
    TINY,
    Columns,
    Objective,
    Preconditioner,
    Singles,
    make_objective,
    make_penalty,
    minimise,
)


def fit_sigmoids(
    axes: Axes, features: Matrix, truth: Marks, strengths: Sequence[float], steps: int, *, balanced: bool = False
) -> list[tuple[Floats, Floats]]:
    """Minimise, for each label by itself, mean log loss + l2/2 ||weights||^2 for each l2.

    Args:
        axes: those of the features.
        features: [n, dim].
        truth: whether an image has a label [n, labels]; each label has images, and images that lack it.
        strengths: values of l2, positive, falling.
        steps: the most steps for one of them.
        balanced: Let the images with a label count as much as those without.

    Returns:
        For each l2 the weights [dim, labels] of the standardised features, and the biases [labels].
    """
    signs = np.where(truth, np.float32(1), np.float32(-1))
    loss = SigmoidLoss(signs, _weigh(truth, balanced=balanced))
    objective = make_objective(axes, features, loss)
    weights, path = _start(objective, loss), list[tuple[Floats, Floats]]()
    for l2 in strengths:
        weights = minimise(objective, objective.evaluate(weights), make_penalty(axes, l2), steps).weights
        path.append((axes.directions @ weights[:-1], weights[-1]))
    return path


def _weigh(truth: Marks, *, balanced: bool) -> Singles:
    if not balanced:
        return np.broadcast_to(np.float32(1 / len(truth)), truth.shape)
    having = truth.sum(axis=0)
    counts: Singles = np.where(truth, 0.5 / having, 0.5 / (len(truth) - having)).astype(np.float32)
    return counts


def _start(objective: Objective, loss: "SigmoidLoss") -> Floats:
    """Start where each label has the probability of its share."""
    share = np.where(loss.signs > 0, loss.counts, 0).sum(axis=0, dtype=np.float64)
    return np.vstack([np.zeros((len(objective.squares) - 1, len(share))), np.log(share / (1 - share))])


@dataclass(frozen=True)
class SigmoidLoss:
    """The mean log loss of each label.

    ``signs`` [n, labels] are 1 if an image has a label, else -1; ``counts`` [n, labels] are the weights of the images,
    which sum to 1 for each label.
    """

    signs: Singles
    counts: Singles
    coupled: ClassVar[bool] = False

    def evaluate(self, logits: Singles, columns: Columns) -> tuple[Floats, Singles]:
        """Return the losses of some labels, and their gradient with respect to the logits."""
        signs, counts = self.signs[:, columns], self.counts[:, columns]
        margins = signs * logits
        losses = np.maximum(-margins, 0) + np.log1p(np.exp(-np.abs(margins)))  # keeps the digits of small losses
        mean = (losses * counts).sum(axis=0, dtype=np.float64)
        return cast("Floats", mean), -signs * expit(-margins) * counts

    def precondition(self, logits: Singles, squares: Floats, penalty: Floats) -> Preconditioner:
        """Invert the product of the means over the images."""
        chances = expit(logits)
        means = (chances * (1 - chances) * self.counts).sum(axis=0, dtype=np.float64)
        curvature = np.maximum(np.outer(squares, means) + penalty, TINY)
        return _DiagonalInverse(curvature)


@dataclass(frozen=True)
class _DiagonalInverse:
    """The inverse of a diagonal ``curvature`` [r + 1, labels]."""

    curvature: Floats

    def solve(self, gradient: Floats, scale: Floats) -> Floats:
        """Multiply by a gradient."""
        return gradient * (scale / self.curvature)

    def measure(self, change: Floats) -> Floats:
        """Return the quadratic form of each label."""
        return cast("Floats", (change**2 / self.curvature).sum(axis=0))
