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
from tasks.heads.answers import LabelIndicators
from tasks.heads.heads import DenseLayer, Floats
from tasks.train.fit.axes import PrincipalAxes
from tasks.train.fit.lbfgs import (
    TINY,
    Columns,
    Objective,
    Preconditioner,
    make_objective,
    make_penalty,
    minimise,
)


def fit_sigmoids(
    axes: PrincipalAxes,
    features: Matrix,
    truth: LabelIndicators,
    strengths: Sequence[float],
    max_steps: int,
    *,
    balanced: bool = False,
) -> list[DenseLayer]:
    """Minimise mean log loss + l2/2 ||weights||^2 for each label and each l2.

    Args:
        axes: The principal axes of the features.
        features: Features [n, dim].
        truth: Whether an image has a label [n, labels]; some images have each label and some lack it.
        strengths: Values of l2, positive and descending.
        max_steps: The maximum number of steps for each of them.
        balanced: Give the images with a label the same total weight as those without.

    Returns:
        For each l2, the weights [dim, labels] of the standardised features, and the biases [labels].
    """
    signs = np.where(truth, 1.0, -1.0)
    loss = SigmoidLoss(signs, _weigh(truth, balanced=balanced))
    objective = make_objective(axes, features, loss)
    weights, path = _start(objective, loss), list[DenseLayer]()
    for l2 in strengths:
        weights = minimise(objective, objective.evaluate(weights), make_penalty(axes, l2), max_steps).weights
        path.append((axes.directions @ weights[:-1], weights[-1]))
    return path


def _weigh(truth: LabelIndicators, *, balanced: bool) -> Floats:
    if not balanced:
        return np.broadcast_to(1 / len(truth), truth.shape)
    having = truth.sum(axis=0)
    return cast("Floats", np.where(truth, 0.5 / having, 0.5 / (len(truth) - having)))


def _start(objective: Objective, loss: "SigmoidLoss") -> Floats:
    """Return weights with which each label has its share of the images as its probability."""
    share = np.where(loss.signs > 0, loss.counts, 0).sum(axis=0)
    return np.vstack([np.zeros((len(objective.squares) - 1, len(share))), np.log(share / (1 - share))])


@dataclass(frozen=True)
class SigmoidLoss:
    """The weighted mean log loss of each label.

    ``signs`` [n, labels] are 1 if an image has a label, else -1; ``counts`` [n, labels] are the images' weights, which
    sum to 1 for each label.
    """

    signs: Floats
    counts: Floats
    coupled: ClassVar[bool] = False

    def evaluate(self, logits: Floats, columns: Columns) -> tuple[Floats, Floats]:
        """Return the losses of these labels, and their gradients with respect to the logits."""
        signs, counts = self.signs[:, columns], self.counts[:, columns]
        margins = signs * logits
        losses = np.maximum(-margins, 0) + np.log1p(np.exp(-np.abs(margins)))  # keeps small losses accurate
        mean = (losses * counts).sum(axis=0)
        return cast("Floats", mean), -signs * expit(-margins) * counts

    def precondition(self, logits: Floats, squares: Floats, penalty: Floats) -> Preconditioner:
        """Invert the product of the two means."""
        chances = expit(logits)
        means = (chances * (1 - chances) * self.counts).sum(axis=0)
        curvature = np.maximum(np.outer(squares, means) + penalty, TINY)
        return _DiagonalInverse(curvature)


@dataclass(frozen=True)
class _DiagonalInverse:
    """The inverse of a diagonal ``curvature`` [r + 1, labels]."""

    curvature: Floats

    def solve(self, gradient: Floats, scale: Floats) -> Floats:
        """Multiply a gradient."""
        return gradient * (scale / self.curvature)

    def measure(self, change: Floats) -> Floats:
        """Return the quadratic form of each label."""
        return cast("Floats", (change**2 / self.curvature).sum(axis=0))
