"""L-BFGS for linear heads: all columns of the weights at once, to the precision of float64 by products of float32.

L-BFGS (Liu & Nocedal, On the limited memory BFGS method for large scale optimization, 1989) with a backtracking line
search (Armijo), preconditioned by the loss's own approximation of the inverse Hessian. Written by hand because a path
of softmax heads takes a fraction of the time of scikit-learn's solver (``python -m benchmarks.sweep``).

Nearly all the time goes into products with the inputs. They are float32 and only ever multiply the *difference* from an
anchor, a point whose logits and gradient were computed in float64. Once the steps are small, the anchor is moved:
rounding errors become as small as the differences, and the minimum no longer depends on the number of threads.
"""

import logging
from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from storage.plural import pluralize
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.train.fit.axes import PrincipalAxes, list_parts

Number = TypeVar("Number", bound=np.generic)
Columns = npt.NDArray[np.intp]
Singles = npt.NDArray[np.float32]

MEMORY = 20
MAX_HALVINGS = 30
ARMIJO = 1e-4
TOLERANCES = (1e-6, 1e-15)
"""Move the anchor, then stop, once a step promises less than this share of the loss.

The excess over the minimum is some ten times what the last step promised. It is quadratic in the weights: an excess of
1e-9 still leaves probabilities 1e-5 off, 1e-14 leaves less than 1e-6.
"""
ROUNDING = 1e-14
"""Losses that differ by no more than this share are equal: the gradient is what tells them apart."""
TINY = 1e-12

logger = logging.getLogger(__name__)


class Preconditioner(Protocol):
    """An approximate inverse Hessian, positive definite."""

    def solve(self, gradient: Floats, scale: Floats) -> Floats:
        """Multiply it, times a scale [columns], by a gradient [r + 1, columns]."""
        ...

    def measure(self, change: Floats) -> Floats:
        """Return the quadratic form of a change of the gradient [r + 1, columns]: one value a column."""
        ...


class Loss(Protocol):
    """A mean loss of logits [n, columns]."""

    coupled: ClassVar[bool]
    """Whether all columns share one loss, like the classes of a softmax; otherwise each is minimised on its own."""

    def evaluate(self, logits: Floats, columns: Columns) -> tuple[Floats, Floats]:
        """Return the losses of these columns [c] and their gradient with respect to the logits [n, c]."""
        ...

    def precondition(self, logits: Floats, squares: Floats, penalty: Floats) -> Preconditioner:
        """Approximate the inverse Hessian, for inputs of these mean squares [r + 1] and a penalty [r + 1, 1]."""
        ...


@dataclass(frozen=True)
class Point:
    """Weights [r + 1, columns], their logits [n, columns], and the losses without penalty [columns].

    ``errors`` [n, columns] are the gradient of the losses with respect to the logits.
    """

    weights: Floats
    logits: Floats
    losses: Floats
    errors: Floats

    def update(self, other: "Point", columns: Columns, chosen: Columns) -> "Point":
        """Replace columns by the chosen ones of another point."""
        if len(chosen) == len(self.losses):
            return other
        weights, logits = self.weights.copy(), self.logits.copy()
        losses, errors = self.losses.copy(), self.errors.copy()
        weights[:, columns], logits[:, columns] = other.weights[:, chosen], other.logits[:, chosen]
        losses[columns], errors[:, columns] = other.losses[chosen], other.errors[:, chosen]
        return Point(weights, logits, losses, errors)


@dataclass(frozen=True)
class Anchor:
    """The errors [n, columns] and the gradient [r + 1, columns] of a point, computed in float64."""

    errors: Floats
    gradient: Floats


@dataclass(frozen=True)
class Objective:
    """A loss over inputs [n, r + 1], the last of them 1, with mean squares [r + 1]."""

    inputs: Singles
    squares: Floats
    loss: Loss

    def evaluate(self, weights: Floats) -> Point:
        """Evaluate the loss at weights [r + 1, columns], in float64."""
        logits = np.concatenate([self.inputs[part].astype(np.float64) @ weights for part in list_parts(self.inputs)])
        return Point(weights, logits, *self.loss.evaluate(logits, np.arange(weights.shape[1])))

    def drop_anchor(self, point: Point) -> Anchor:
        """Compute the gradient at a point in float64."""
        gradient = np.zeros_like(point.weights)
        for part in list_parts(self.inputs):
            gradient += self.inputs[part].astype(np.float64).T @ point.errors[part]
        return Anchor(point.errors, gradient)

    def find_gradient(self, point: Point, anchor: Anchor, columns: Columns) -> Floats:
        """Return the gradient of the loss with respect to the weights [r + 1, c] of these columns."""
        change = _select(point.errors, columns) - _select(anchor.errors, columns)
        moved = (self.inputs.T @ change.astype(np.float32)).astype(np.float64)
        return _select(anchor.gradient, columns) + moved

    def add_penalty(self, point: Point, penalty: Floats) -> Floats:
        """Return loss + penalty/2 ||weights||^2 [c]."""
        squares = penalty * point.weights**2
        return cast("Floats", point.losses + (squares.sum() if self.loss.coupled else squares.sum(axis=0)) / 2)

    def dot(self, one: Floats, other: Floats) -> Floats:
        """Return the inner product of each column [c]; of coupled columns, that of all together."""
        if self.loss.coupled:
            return np.full(one.shape[1], np.vdot(one, other))
        return cast("Floats", (one * other).sum(axis=0))

    def find_coefficient(self, one: Floats, other: Floats, product: Floats) -> Floats:
        """Return the inner product over another one [c]."""
        return self.dot(one, other) / product


def make_objective(axes: PrincipalAxes, features: Matrix, loss: Loss) -> Objective:
    """Project features [n, dim] onto their principal axes, and append a column of ones for the biases."""
    inputs = np.hstack([axes.project(features), np.ones((len(features), 1), np.float32)])
    return Objective(inputs, np.append(axes.squares, 1.0), loss)


def make_penalty(axes: PrincipalAxes, l2: float) -> Floats:
    """Return the penalty of each weight [r + 1, 1]: l2, and 0 for the bias."""
    return np.append(np.full(len(axes.squares), l2), 0.0)[:, None]


def minimise(objective: Objective, start: Point, penalty: Floats, max_steps: int) -> Point:
    """Minimise loss + penalty/2 ||weights||^2, until no column can gain more than rounding errors.

    The relative excess is then below 1e-9, unless ``max_steps`` ends it, which is logged.
    """
    point, steps, pairs = start, 0, _make_pairs()
    for tolerance in TOLERANCES:
        point = objective.evaluate(point.weights) if steps else point
        point, taken = _descend(objective, point, penalty, pairs, tolerance, max_steps - steps)
        steps += taken
    if steps == max_steps:
        count = pluralize(steps, "step")
        logger.warning("L-BFGS stopped after %s, before the minimum: raise train.iterations", count)
    return point


def _descend(
    objective: Objective, point: Point, penalty: Floats, pairs: "Pairs", tolerance: float, max_steps: int
) -> tuple[Point, int]:
    """Take steps from an anchor until none promises more than this share of the loss; return how many were taken."""
    anchor, stuck = objective.drop_anchor(point), np.zeros(len(point.losses), np.bool_)
    preconditioner = objective.loss.precondition(point.logits, objective.squares, penalty)
    history = _History(objective, preconditioner, np.ones(len(point.losses)), pairs)
    gradient = anchor.gradient
    for step in range(max_steps):
        penalised = gradient + penalty * point.weights
        direction = -history.solve(penalised)
        slopes = objective.dot(direction, penalised)
        promising = -slopes / 2 > tolerance * objective.add_penalty(point, penalty)
        active = np.flatnonzero(promising & ~stuck)
        if not len(active):
            return point, step
        reached, failed = _search_line(objective, point, direction, slopes, penalty, active)
        stuck[failed] = True
        before, earlier, point, gradient = point.weights, gradient, reached, gradient.copy()
        gradient[:, active] = objective.find_gradient(point, anchor, active)
        step_taken = point.weights - before
        history.add(step_taken, gradient - earlier + penalty * step_taken)
    return point, max_steps


Pairs = deque[tuple[Floats, Floats, Floats]]
"""The last steps, the change of the gradient along each, and their inner product."""


def _make_pairs() -> Pairs:
    return deque(maxlen=MEMORY)


@dataclass
class _History:
    """The last steps, from which L-BFGS improves on a preconditioner.

    A pair is a step, the change of the gradient along it, and their inner product [columns], infinite for the columns
    where it is no more than a rounding error. ``scale`` [columns] fits the preconditioner to the last step.
    """

    objective: Objective
    preconditioner: Preconditioner
    scale: Floats
    pairs: Pairs

    def solve(self, gradient: Floats) -> Floats:
        """Multiply by the inverse Hessian: the two-loop recursion."""
        result, parts, find = gradient.copy(), list[Floats](), self.objective.find_coefficient
        for step, change, product in reversed(self.pairs):
            parts.append(find(step, result, product))
            result -= parts[-1] * change
        result = self.preconditioner.solve(result, self.scale)
        for (step, change, product), part in zip(self.pairs, reversed(parts), strict=True):
            result += (part - find(change, result, product)) * step
        return result

    def add(self, step: Floats, change: Floats) -> None:
        """Record a step and the change of the gradient along it."""
        product = self.objective.dot(step, change)
        usable = product > TINY * self.objective.dot(change, change)
        if usable.any():
            expected = self.preconditioner.measure(change)
            self.scale = np.divide(product, expected, out=self.scale.copy(), where=usable & (expected > 0))
            self.pairs.append((step, change, np.where(usable, product, np.inf)))


def _search_line(
    objective: Objective, start: Point, direction: Floats, slopes: Floats, penalty: Floats, active: Columns
) -> tuple[Point, Columns]:
    """Halve the step of each active column until its loss falls enough (Armijo).

    Returns:
        The point that was reached, and the columns that stay because their loss falls by less than rounding errors.
    """
    along = (objective.inputs @ _select(direction, active).astype(np.float32)).astype(np.float64)
    before, reached = objective.add_penalty(start, penalty), start
    left, length = np.arange(len(active)), 1.0
    for _ in range(MAX_HALVINGS):
        columns = active[left]
        weights = _select(start.weights, columns) + length * _select(direction, columns)
        logits = _select(start.logits, columns) + length * _select(along, left)
        trial = Point(weights, logits, *objective.loss.evaluate(logits, columns))
        bound = before[columns] * (1 + ROUNDING) + ARMIJO * length * slopes[columns]
        fell = objective.add_penalty(trial, penalty) <= bound
        reached = reached.update(trial, columns[fell], np.flatnonzero(fell))
        left, length = left[~fell], length / 2
        if not len(left):
            break
    return reached, active[left]


def _select(array: npt.NDArray[Number], columns: Columns) -> npt.NDArray[Number]:
    """Select columns, without a copy if they are all."""
    return array if len(columns) == array.shape[1] else array[:, columns]
