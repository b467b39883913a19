"""Softmax heads along a path of L2 strengths, from strong to weak, each extrapolated from the last two.

The Hessian of the mean log loss is the mean of (diag p - p p') x x' over the images, where p are the probabilities of
the classes. It is approximated by the product of the two means, as Martens & Grosse (Optimizing neural networks with
Kronecker-factored approximate curvature, 2015) do: with features x along principal axes of mean squares s, and the
eigenvalues a of the small matrix over the classes, its inverse with the penalty is 1 / (s a + l2). The minimum moves
smoothly with log l2, so that the last two minima predict the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tasks.heads.heads import DenseLayer, Floats
from tasks.train.fit.axes import PrincipalAxes
from tasks.train.fit.examples import ClassIndices, Examples
from tasks.train.fit.lbfgs import (
    TINY,
    Columns,
    Objective,
    Point,
    Preconditioner,
    make_objective,
    make_penalty,
    minimise,
)


def fit_softmax(
    axes: PrincipalAxes, examples: Examples, strengths: Sequence[float], max_steps: int
) -> list[DenseLayer]:
    """Minimise mean log loss + l2/2 ||weights||^2 for each l2.

    Args:
        axes: The principal axes of the features.
        examples: What to learn.
        strengths: Values of l2, positive and descending.
        max_steps: The maximum number of steps for each of them.

    Returns:
        For each l2, the weights [dim, classes] of the standardised features, and the biases [classes].
    """
    objective = make_objective(axes, examples.features, SoftmaxLoss(examples.labels, examples.weights))
    point, path = _start(objective, examples), list[Floats]()
    for number, l2 in enumerate(strengths):
        penalty = make_penalty(axes, l2)
        if number > 1:
            ahead = np.log(strengths[number - 1] / l2) / np.log(strengths[number - 2] / strengths[number - 1])
            predicted = objective.evaluate(path[-1] + ahead * (path[-1] - path[-2]))
            point = min(predicted, point, key=lambda each: objective.add_penalty(each, penalty)[0])
        point = minimise(objective, point, penalty, max_steps)
        path.append(point.weights)
    return [(axes.directions @ weights[:-1], weights[-1]) for weights in path]


def _start(objective: Objective, examples: Examples) -> Point:
    """Return the point at which each class has its share of the examples as its probability."""
    biases = np.log(np.bincount(examples.labels, examples.weights))
    weights = np.zeros((len(objective.squares) - 1, len(biases)))
    return objective.evaluate(np.vstack([weights, biases - biases.mean()]))


@dataclass(frozen=True)
class SoftmaxLoss:
    """The log loss of a softmax for class indices ``labels`` [n], averaged with ``weights`` [n]."""

    labels: ClassIndices
    weights: Floats
    coupled: ClassVar[bool] = True

    def evaluate(self, logits: Floats, columns: Columns) -> tuple[Floats, Floats]:
        """Return the loss, repeated for each class, and its gradient with respect to the logits."""
        odds = _Odds.of(logits, self.labels)
        losses = np.where(odds.lag == 0, np.log1p(odds.sums), odds.lag + np.log(odds.totals))
        errors = odds.others * (self.weights / odds.totals)[:, None]
        errors[np.arange(len(errors)), self.labels] = -self.weights * odds.sums / odds.totals
        return np.full(len(columns), self.weights @ losses), errors

    def precondition(self, logits: Floats, squares: Floats, penalty: Floats) -> Preconditioner:
        """Invert the product of the two means, of the classes and of the features."""
        odds = _Odds.of(logits, self.labels)
        chances = odds.others / odds.totals[:, None]
        chances[np.arange(len(chances)), self.labels] = 1 - odds.sums / odds.totals
        counted = chances * self.weights[:, None]
        values, vectors = np.linalg.eigh(np.diag(counted.sum(axis=0)) - chances.T @ counted)
        curvature = np.outer(squares, np.maximum(values, 0)) + penalty
        # The loss stays the same if the biases of all classes rise together: rounding errors must not move them.
        return _ProductInverse(np.where(curvature > TINY * values[-1], curvature, np.inf), vectors)


@dataclass(frozen=True)
class _ProductInverse:
    """The inverse of a product: ``curvature`` [r + 1, classes] along the axes, by ``vectors`` of the classes."""

    curvature: Floats
    vectors: Floats

    def solve(self, gradient: Floats, scale: Floats) -> Floats:
        """Multiply a gradient."""
        solved: Floats = (gradient @ self.vectors / self.curvature) @ self.vectors.T
        return solved * scale

    def measure(self, change: Floats) -> Floats:
        """Return the quadratic form, repeated for each class."""
        return np.full(change.shape[1], np.vdot(change, self.solve(change, np.ones(1))))


@dataclass(frozen=True)
class _Odds:
    """Odds [n, classes] relative to the likeliest class, 0 for the true one, so that small losses keep their digits.

    ``sums`` [n] are those of the other classes, ``totals`` [n] those of all; ``lag`` [n] is by how much the logit of
    the true class falls short of the highest.
    """

    others: Floats
    sums: Floats
    totals: Floats
    lag: Floats

    @classmethod
    def of(cls, logits: Floats, labels: ClassIndices) -> "_Odds":
        rows, peaks = np.arange(len(logits)), logits.max(axis=1)
        others = np.exp(logits - peaks[:, None])
        others[rows, labels] = 0
        sums = others.sum(axis=1)
        lag = peaks - logits[rows, labels]
        return cls(others, sums, sums + np.exp(-lag), lag)
