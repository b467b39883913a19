"""Softmax heads along a path of L2 strengths, from strong to weak, each from where the last ones point to.

The Hessian of the mean log loss is the mean of (diag p - p p') x x' over the images, p being the chances of the
classes. Taken as the product of the two means (as Martens & Grosse, Optimizing neural networks with Kronecker-factored
approximate curvature, 2015, do), with features x along their principal axes of mean squares s and the eigenvalues a of
the small matrix over the classes, its inverse with the penalty is 1 / (s a + l2). L-BFGS (Liu & Nocedal, On the limited
memory BFGS method, 1989) starts from that inverse and mends it. The minimum moves smoothly with log l2: the last two
tell where the next one lies.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.heads.heads import Floats
from tasks.train.fit.axes import Axes
from tasks.train.fit.sample import Labels, Sample

Singles = npt.NDArray[np.float32]

MEMORY = 20
HALVINGS = 30
ARMIJO = 1e-4
NEAR = 1e-6
"""A fit ends where it expects to gain less than this share of its loss."""
TINY = 1e-12


@dataclass(frozen=True)
class Rows:
    """Inputs [n, r + 1], the last of them 1, with mean squares [r + 1]; labels [n] and what each row counts [n]."""

    inputs: Singles
    squares: Floats
    labels: Labels
    shares: Floats


@dataclass(frozen=True)
class Odds:
    """Odds [n, classes], relative to the likeliest class and 0 for the true one; the sums of the others and of all [n].

    So a chance near 1 keeps the digits of what it lacks. ``loss`` is the log loss.
    """

    others: Singles
    sums: Floats
    totals: Floats
    loss: float


@dataclass(frozen=True)
class Point:
    """Weights [r + 1, classes], their logits and odds [n, classes], and the slope of their log loss."""

    weights: Floats
    logits: Singles
    odds: Odds
    slope: Floats


@dataclass(frozen=True)
class Curvature:
    """The Hessian: mean squares by axis times eigenvalues by class, the penalty, and pairs of a step and its bend."""

    bends: Floats
    vectors: Floats
    pairs: deque[tuple[Floats, Floats]]

    def solve(self, slope: Floats) -> Floats:
        """Multiply by the inverse: the two loops of L-BFGS."""
        result, parts = slope.copy(), list[float]()
        for moved, bent in reversed(self.pairs):
            parts.append(float(np.vdot(moved, result) / np.vdot(moved, bent)))
            result -= parts[-1] * bent
        result = self._start(result)
        for (moved, bent), part in zip(self.pairs, reversed(parts), strict=True):
            result += (part - np.vdot(bent, result) / np.vdot(moved, bent)) * moved
        return result

    def _start(self, slope: Floats) -> Floats:
        """Multiply by the product's inverse, scaled to what the last step met."""
        result = self._divide(slope)
        if self.pairs:
            moved, bent = self.pairs[-1]
            result *= np.vdot(moved, bent) / np.vdot(bent, self._divide(bent))
        return result

    def _divide(self, slope: Floats) -> Floats:
        divided: Floats = (slope @ self.vectors / self.bends) @ self.vectors.T
        return divided


def fit_softmax(axes: Axes, sample: Sample, strengths: Sequence[float], steps: int) -> list[tuple[Floats, Floats]]:
    """Minimise mean log loss + l2/2 ||weights||^2 for each l2.

    Args:
        axes: those of the sample's features.
        sample: what is learned.
        strengths: values of l2, positive, falling.
        steps: the most steps for one of them.

    Returns:
        For each l2 the weights [dim, classes] of the standardised features, and the biases [classes].
    """
    inputs = np.hstack([axes.lay(sample.features), np.ones((len(sample.labels), 1), np.float32)])
    rows = Rows(inputs, np.append(axes.squares, 1.0), sample.labels, sample.shares)
    point, path = _begin(rows), list[Floats]()
    for number, l2 in enumerate(strengths):
        ridge = np.append(np.full(len(axes.squares), l2), 0.0)[:, None]  # biases are free
        if number > 1:
            ahead = np.log(strengths[number - 1] / l2) / np.log(strengths[number - 2] / strengths[number - 1])
            point = _lower(point, _stand(rows, path[-1] + ahead * (path[-1] - path[-2])), ridge)
        point = _descend(rows, point, ridge, steps)
        path.append(point.weights)
    return [(axes.directions @ weights[:-1], weights[-1]) for weights in path]


def _begin(rows: Rows) -> Point:
    """Give each class the chance of its share."""
    biases = np.log(np.bincount(rows.labels, rows.shares))
    return _stand(rows, np.vstack([np.zeros((len(rows.squares) - 1, len(biases))), biases - biases.mean()]))


def _lower(one: Point, other: Point, ridge: Floats) -> Point:
    return one if _measure(one.weights, one.odds, ridge) < _measure(other.weights, other.odds, ridge) else other


def _descend(rows: Rows, point: Point, ridge: Floats, steps: int) -> Point:
    """Follow L-BFGS to where hardly anything is left to gain."""
    curvature = _bend(rows, point, ridge)
    for _ in range(steps):
        slope = point.slope + ridge * point.weights
        direction = -curvature.solve(slope)
        fall = float(np.vdot(direction, slope))
        found = None
        if -fall / 2 > NEAR * _measure(point.weights, point.odds, ridge):
            found = _search(rows, point, direction, fall, ridge)
        if found is None:
            break
        moved = found.weights - point.weights
        bent = found.slope - point.slope + ridge * moved
        if np.vdot(moved, bent) > TINY * np.vdot(bent, bent):  # less is rounding
            curvature.pairs.append((moved, bent))
        point = found
    return point


def _search(rows: Rows, point: Point, direction: Floats, fall: float, ridge: Floats) -> Point | None:
    """Halve a step until the loss falls enough (Armijo); None where it falls by less than rounding errors."""
    along, loss, length = _multiply(rows, direction), _measure(point.weights, point.odds, ridge), 1.0
    for _ in range(HALVINGS):
        weights, logits = point.weights + length * direction, point.logits + np.float32(length) * along
        odds = _weigh(rows, logits)
        if _measure(weights, odds, ridge) <= loss + ARMIJO * length * fall:
            return Point(weights, logits, odds, _slope(rows, odds))
        length /= 2
    return None


def _stand(rows: Rows, weights: Floats) -> Point:
    logits = _multiply(rows, weights)
    odds = _weigh(rows, logits)
    return Point(weights, logits, odds, _slope(rows, odds))


def _multiply(rows: Rows, weights: Floats) -> Singles:
    return rows.inputs @ weights.astype(np.float32)


def _weigh(rows: Rows, logits: Singles) -> Odds:
    true = logits[np.arange(len(logits)), rows.labels]
    peaks = logits.max(axis=1)
    others = np.exp(logits - peaks[:, None])
    others[np.arange(len(logits)), rows.labels] = 0
    sums = others.sum(axis=1).astype(np.float64)
    lag = (peaks - true).astype(np.float64)  # 0 where the true class is the likeliest
    totals = sums + np.exp(-lag)
    losses = np.where(lag == 0, np.log1p(sums), lag + np.log(totals))
    return Odds(others, sums, totals, float(rows.shares @ losses))


def _measure(weights: Floats, odds: Odds, ridge: Floats) -> float:
    return odds.loss + float((ridge * weights**2).sum()) / 2


def _slope(rows: Rows, odds: Odds) -> Floats:
    errors = odds.others * (rows.shares / odds.totals).astype(np.float32)[:, None]
    errors[np.arange(len(errors)), rows.labels] = -rows.shares * odds.sums / odds.totals
    slope: Floats = (rows.inputs.T @ errors).astype(np.float64)
    return slope


def _bend(rows: Rows, point: Point, ridge: Floats) -> Curvature:
    odds = point.odds
    chances = odds.others / odds.totals.astype(np.float32)[:, None]
    chances[np.arange(len(chances)), rows.labels] = 1 - odds.sums / odds.totals
    counted = chances * rows.shares.astype(np.float32)[:, None]
    values, vectors = np.linalg.eigh(np.diag(counted.sum(axis=0, dtype=np.float64)) - chances.T @ counted)
    bends = np.outer(rows.squares, np.maximum(values, 0)) + ridge
    return Curvature(np.maximum(bends, TINY), vectors, deque(maxlen=MEMORY))
