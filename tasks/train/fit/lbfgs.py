"""L-BFGS for linear heads: all columns of the weights at once, on products of float32 matrices.

L-BFGS (Liu & Nocedal, On the limited memory BFGS method for large scale optimization, 1989) with a backtracking line
search (Armijo), preconditioned by the loss's own approximation of the inverse Hessian. Written by hand because a path
of softmax heads takes about a tenth of the time of scikit-learn's solver (``python -m benchmarks.sweep``).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.train.fit.axes import PrincipalAxes

Number = TypeVar("Number", bound=np.generic)
Columns = npt.NDArray[np.intp]
Singles = npt.NDArray[np.float32]

MEMORY = 20
MAX_HALVINGS = 30
ARMIJO = 1e-4
TOLERANCE = 1e-6
"""Stop once a step promises less than this share of the loss."""
TINY = 1e-12


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

    def evaluate(self, logits: Singles, columns: Columns) -> tuple[Floats, Singles]:
        """Return the losses of these columns [c] and their gradient with respect to the logits [n, c]."""
        ...

    def precondition(self, logits: Singles, squares: Floats, penalty: Floats) -> Preconditioner:
        """Approximate the inverse Hessian, for inputs of these mean squares [r + 1] and a penalty [r + 1, 1]."""
        ...


@dataclass(frozen=True)
class Point:
    """Weights [r + 1, columns], their logits [n, columns], and the losses without penalty [columns].

    ``errors`` [n, columns] are the gradient of the losses with respect to the logits.
    """

    weights: Floats
    logits: Singles
    losses: Floats
    errors: Singles

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
class Objective:
    """A loss over inputs [n, r + 1], the last of them 1, with mean squares [r + 1]."""

    inputs: Singles
    squares: Floats
    loss: Loss

    def evaluate(self, weights: Floats) -> Point:
        """Evaluate the loss at weights [r + 1, columns]."""
        logits = self.inputs @ weights.astype(np.float32)
        return Point(weights, logits, *self.loss.evaluate(logits, np.arange(weights.shape[1])))

    def find_gradient(self, errors: Singles) -> Floats:
        """Return the gradient of the loss with respect to the weights [r + 1, c]."""
        return cast("Floats", (self.inputs.T @ errors).astype(np.float64))

    def add_penalty(self, point: Point, penalty: Floats) -> Floats:
        """Return loss + penalty/2 ||weights||^2 [c]."""
        squares = penalty * point.weights**2
        return cast("Floats", point.losses + (squares.sum() if self.loss.coupled else squares.sum(axis=0)) / 2)

    def dot(self, one: Floats, other: Floats) -> Floats:
        """Return the inner product of each column [c]; of coupled columns, that of all together."""
        if self.loss.coupled:
            return np.full(one.shape[1], np.vdot(one, other))
        return cast("Floats", (one * other).sum(axis=0))

    # The next two differ by coupling in rounding alone, so that heads stay those of earlier releases bit for bit.

    def find_coefficient(self, one: Floats, other: Floats, product: Floats) -> Floats:
        """Return the inner product over another one [c]."""
        dots = self.dot(one, other)
        return dots / product if self.loss.coupled else dots * (1 / product)

    def find_change(self, point: Point, gradient: Floats, before: Point, earlier: Floats, penalty: Floats) -> Floats:
        """Return the change of the penalised gradient from one point to another [r + 1, columns]."""
        if self.loss.coupled:
            return gradient - earlier + penalty * (point.weights - before.weights)
        return (gradient + penalty * point.weights) - (earlier + penalty * before.weights)


def make_objective(axes: PrincipalAxes, features: Matrix, loss: Loss) -> Objective:
    """Project features [n, dim] onto their principal axes, and append a column of ones for the biases."""
    inputs = np.hstack([axes.project(features), np.ones((len(features), 1), np.float32)])
    return Objective(inputs, np.append(axes.squares, 1.0), loss)


def make_penalty(axes: PrincipalAxes, l2: float) -> Floats:
    """Return the penalty of each weight [r + 1, 1]: l2, and 0 for the bias."""
    return np.append(np.full(len(axes.squares), l2), 0.0)[:, None]


def minimise(objective: Objective, start: Point, penalty: Floats, max_steps: int) -> Point:
    """Minimise loss + penalty/2 ||weights||^2, until no column can gain more than the tolerance."""
    preconditioner = objective.loss.precondition(start.logits, objective.squares, penalty)
    point, history = start, _History(objective, preconditioner, np.ones(len(start.losses)))
    gradient, stuck = objective.find_gradient(point.errors), np.zeros(len(start.losses), np.bool_)
    for _ in range(max_steps):
        penalised = gradient + penalty * point.weights
        direction = -history.solve(penalised)
        slopes = objective.dot(direction, penalised)
        promising = -slopes / 2 > TOLERANCE * objective.add_penalty(point, penalty)
        active = np.flatnonzero(promising & ~stuck)
        if not len(active):
            break
        reached, failed = _search_line(objective, point, direction, slopes, penalty, active)
        stuck[failed] = True
        before, earlier, point, gradient = point, gradient, reached, gradient.copy()
        gradient[:, active] = objective.find_gradient(_select(point.errors, active))
        change = objective.find_change(point, gradient, before, earlier, penalty)
        history.add(point.weights - before.weights, change)
    return point


@dataclass
class _History:
    """The last steps, from which L-BFGS improves on a preconditioner.

    A pair is a step, the change of the gradient along it, and their inner product [columns], infinite for the columns
    where it is no more than a rounding error. ``scale`` [columns] fits the preconditioner to the last step.
    """

    objective: Objective
    preconditioner: Preconditioner
    scale: Floats
    pairs: deque[tuple[Floats, Floats, Floats]] = field(default_factory=lambda: deque(maxlen=MEMORY))

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
    along = objective.inputs @ _select(direction, active).astype(np.float32)
    before, reached = objective.add_penalty(start, penalty), start
    left, length = np.arange(len(active)), 1.0
    for _ in range(MAX_HALVINGS):
        columns = active[left]
        weights = _select(start.weights, columns) + length * _select(direction, columns)
        logits = _select(start.logits, columns) + np.float32(length) * _select(along, left)
        trial = Point(weights, logits, *objective.loss.evaluate(logits, columns))
        fell = objective.add_penalty(trial, penalty) <= before[columns] + ARMIJO * length * slopes[columns]
        reached = reached.update(trial, columns[fell], np.flatnonzero(fell))
        left, length = left[~fell], length / 2
        if not len(left):
            break
    return reached, active[left]


def _select(array: npt.NDArray[Number], columns: Columns) -> npt.NDArray[Number]:
    """Select columns, without a copy if they are all."""
    return array if len(columns) == array.shape[1] else array[:, columns]
