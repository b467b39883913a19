"""Sigmoid heads: a logistic regression for each label, all labels at once, along a path of L2 strengths.

The labels share their inputs and nothing else, so that a step for all of them is one product of matrices, and each has
a step length and a memory of its own. The Hessian of a label's mean log loss is the mean of p (1 - p) x x' over the
images. Taken as the product of the two means, with x along the principal axes of mean squares s and c the mean of
p (1 - p), its inverse with the penalty is 1 / (s c + l2). L-BFGS (Liu & Nocedal, On the limited memory BFGS method,
1989) starts from that inverse and mends it; each strength of L2 starts where the stronger one ended.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import Marks
from tasks.heads.heads import Floats
from tasks.train.fit.axes import Axes
from tasks.train.fit.softmax import ARMIJO, HALVINGS, MEMORY, NEAR, TINY, Singles

Columns = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Rows:
    """Inputs [n, r + 1], the last of them 1, with mean squares [r + 1].

    ``signs`` [n, labels] are 1 where an image has a label, else -1; ``counts`` [n, labels], which sum to 1 for each
    label, are what an image counts for it.
    """

    inputs: Singles
    squares: Floats
    signs: Singles
    counts: Singles


@dataclass
class Point:
    """Weights [r + 1, labels], with their logits [n, labels], losses [labels] and the losses' slopes, all penalised."""

    weights: Floats
    logits: Singles
    losses: Floats
    slopes: Floats


@dataclass
class Curvature:
    """Each label's Hessian: mean squares by axis [r + 1, labels], and pairs of a step and its bend.

    A pair has the inverse of their product [labels], too: 0 where a label has no such pair. ``scale`` [labels] is what
    the last step met of the bends.
    """

    bends: Floats
    scale: Floats
    pairs: deque[tuple[Floats, Floats, Floats]] = field(default_factory=lambda: deque(maxlen=MEMORY))

    def solve(self, slopes: Floats) -> Floats:
        """Multiply by the inverses: the two loops of L-BFGS."""
        result, parts = slopes.copy(), list[Floats]()
        for moved, bent, inverse in reversed(self.pairs):
            parts.append(inverse * (moved * result).sum(axis=0))
            result -= parts[-1] * bent
        result *= self.scale / self.bends
        for (moved, bent, inverse), part in zip(self.pairs, reversed(parts), strict=True):
            result += (part - inverse * (bent * result).sum(axis=0)) * moved
        return result

    def learn(self, moved: Floats, bent: Floats) -> None:
        """Keep a step and its bend, of the labels whose bend is more than rounding."""
        product = (moved * bent).sum(axis=0)
        sound = product > TINY * (bent**2).sum(axis=0)
        inverse = np.divide(1, product, out=np.zeros_like(product), where=sound)
        met = (bent**2 / self.bends).sum(axis=0)
        self.scale = np.divide(product, met, out=self.scale.copy(), where=sound & (met > 0))
        self.pairs.append((moved, bent, inverse))


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
    inputs = np.hstack([axes.lay(features), np.ones((len(truth), 1), np.float32)])
    signs = np.where(truth, np.float32(1), np.float32(-1))
    rows = Rows(inputs, np.append(axes.squares, 1.0), signs, _count(truth, balanced=balanced))
    weights, path = _begin(rows), list[tuple[Floats, Floats]]()
    for l2 in strengths:
        ridge = np.append(np.full(len(axes.squares), l2), 0.0)[:, None]  # biases are free
        weights = _descend(rows, weights, ridge, steps)
        path.append((axes.directions @ weights[:-1], weights[-1]))
    return path


def _count(truth: Marks, *, balanced: bool) -> Singles:
    if not balanced:
        return np.broadcast_to(np.float32(1 / len(truth)), truth.shape)
    having = truth.sum(axis=0)
    counts: Singles = np.where(truth, 0.5 / having, 0.5 / (len(truth) - having)).astype(np.float32)
    return counts


def _begin(rows: Rows) -> Floats:
    """Give each label the chance of its share."""
    share = np.where(rows.signs > 0, rows.counts, 0).sum(axis=0, dtype=np.float64)
    return np.vstack([np.zeros((len(rows.squares) - 1, len(share))), np.log(share / (1 - share))])


def _descend(rows: Rows, weights: Floats, ridge: Floats, steps: int) -> Floats:
    """Follow L-BFGS to where hardly anything is left to gain for any label."""
    point = _stand(rows, weights, ridge)
    chances = expit(point.logits)
    bends = np.outer(rows.squares, (chances * (1 - chances) * rows.counts).sum(axis=0, dtype=np.float64)) + ridge
    curvature = Curvature(np.maximum(bends, TINY), np.ones(bends.shape[1]))
    done = np.zeros(bends.shape[1], np.bool_)
    for _ in range(steps):
        directions = -curvature.solve(point.slopes)
        falls = (directions * point.slopes).sum(axis=0)
        running = np.flatnonzero(~done & (-falls / 2 > NEAR * point.losses))
        if not len(running):
            break
        before = point.weights.copy(), point.slopes.copy()
        done[_search(rows, point, directions, falls, ridge, running)] = True
        curvature.learn(point.weights - before[0], point.slopes - before[1])
    return point.weights


def _search(rows: Rows, point: Point, directions: Floats, falls: Floats, ridge: Floats, columns: Columns) -> Columns:
    """Move the point: halve each label's step until its loss falls enough (Armijo).

    Gives the labels whose loss falls by less than rounding errors; they stay.
    """
    along, length, left = rows.inputs @ directions[:, columns].astype(np.float32), 1.0, np.arange(len(columns))
    for _ in range(HALVINGS):
        here = columns[left]
        weights = point.weights[:, here] + length * directions[:, here]
        logits = point.logits[:, here] + np.float32(length) * along[:, left]
        losses = _lose(rows, weights, logits, ridge, here)
        fell = losses <= point.losses[here] + ARMIJO * length * falls[here]
        moved = here[fell]
        point.weights[:, moved], point.logits[:, moved] = weights[:, fell], logits[:, fell]
        point.losses[moved] = losses[fell]
        left, length = left[~fell], length / 2
        if not len(left):
            break
    point.slopes[:, columns] = _slope(rows, point, ridge, columns)
    return columns[left]


def _stand(rows: Rows, weights: Floats, ridge: Floats) -> Point:
    logits, columns = rows.inputs @ weights.astype(np.float32), np.arange(weights.shape[1])
    point = Point(weights.copy(), logits, _lose(rows, weights, logits, ridge, columns), np.empty_like(weights))
    point.slopes[:] = _slope(rows, point, ridge, columns)
    return point


def _lose(rows: Rows, weights: Floats, logits: Singles, ridge: Floats, columns: Columns) -> Floats:
    margins = rows.signs[:, columns] * logits
    losses = np.maximum(-margins, 0) + np.log1p(np.exp(-np.abs(margins)))  # keeps the digits of small losses
    mean = (losses * rows.counts[:, columns]).sum(axis=0, dtype=np.float64)
    return cast("Floats", mean + (ridge * weights**2).sum(axis=0) / 2)


def _slope(rows: Rows, point: Point, ridge: Floats, columns: Columns) -> Floats:
    signs = rows.signs[:, columns]
    errors = -signs * expit(-signs * point.logits[:, columns]) * rows.counts[:, columns]
    return cast("Floats", (rows.inputs.T @ errors).astype(np.float64) + ridge * point.weights[:, columns])
