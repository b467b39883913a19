"""The sweep: heads of every kind that is asked for, calibrated and compared on validation."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.heads import Classifier, Floats, Head, Neighbours
from storage.vectors import Matrix
from tasks.train.axes import Axes, find_axes
from tasks.train.calibrate import calibrate
from tasks.train.evaluate import log_loss
from tasks.train.path import Labels, fit_path
from tasks.train.prototypes import fit_prototypes
from tasks.train.ridge import fit_ridge
from tasks.train.settings import Kind, TrainSettings

Names = npt.NDArray[np.str_]
Choice = dict[str, float | str]
"""What makes a candidate: its kind, and what was to choose about it."""


@dataclass(frozen=True)
class Sample:
    """Features [n, dim], class names [n], and for those that are trained on the names' numbers and shares [n]."""

    features: Matrix
    names: Names
    labels: Labels
    shares: Floats


@dataclass(frozen=True)
class Candidate:
    """A calibrated head, what makes it, and its mean log loss on validation, nats."""

    choice: Choice
    head: Classifier
    loss: float


@dataclass(frozen=True)
class Problem:
    """What all kinds are fitted to: images to train on, by which axes, and to choose on; in which classes."""

    classes: tuple[str, ...]
    axes: Axes
    train: Sample
    validation: Sample
    settings: TrainSettings


Fit = Callable[[Problem], Iterator[tuple[Choice, Classifier]]]


def fit_heads(
    train: tuple[Matrix, Names], validation: tuple[Matrix, Names], settings: TrainSettings
) -> tuple[Candidate, ...]:
    """Fit all candidates, on one decomposition of the features, and give them by their loss on validation, best first.

    Args:
        train: features [n, dim] and class names [n].
        validation: features [m, dim] and class names [m].
        settings: kinds of heads, and what there is to choose about each.
    """
    problem = _prepare(train, validation, settings)
    fits = _list_fits()
    candidates = [
        _judge(problem, choice, head) for kind in dict.fromkeys(settings.heads) for choice, head in fits[kind](problem)
    ]
    return tuple(sorted(candidates, key=lambda candidate: candidate.loss))  # in doubt the one that was fitted first


def share(labels: Labels, *, balanced: bool) -> Floats:
    """Say what each row counts [n]: the same, or, balanced, such that every class counts the same; sums to 1."""
    counts = np.bincount(labels)
    return 1 / (len(counts) * counts[labels]) if balanced else np.full(len(labels), 1 / len(labels))


def _prepare(train: tuple[Matrix, Names], validation: tuple[Matrix, Names], settings: TrainSettings) -> Problem:
    classes, labels = np.unique(train[1], return_inverse=True)
    known = np.isin(validation[1], classes)
    others = np.searchsorted(classes, validation[1][known])
    shares = share(labels, balanced=settings.class_weights)
    return Problem(
        tuple(map(str, classes)),
        find_axes(train[0], shares),
        Sample(*train, labels, shares),
        Sample(validation[0][known], validation[1][known], others, np.full(len(others), 1 / max(len(others), 1))),
        settings,
    )


def _judge(problem: Problem, choice: Choice, head: Classifier) -> Candidate:
    features, names = problem.validation.features, problem.validation.names
    calibrated = calibrate(head, features, names)
    return Candidate(choice, calibrated, log_loss(calibrated.probabilities(features), names, problem.classes))


def _list_fits() -> Mapping[Kind, Fit]:
    return {
        "softmax": _fit_softmax,
        "ridge": _fit_ridge,
        "prototypes": _fit_prototypes,
        "knn": _keep_neighbours,
        "mlp": lambda problem: _fit_mlps(problem, "mlp", (problem.settings.hidden,)),
        "mlp2": lambda problem: _fit_mlps(problem, "mlp2", (problem.settings.hidden, -(-problem.settings.hidden // 2))),
    }


def _fit_softmax(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    rows, strengths = problem.train, _fall(problem.settings)
    fitted = fit_path(problem.axes, rows.features, rows.labels, rows.shares, strengths, problem.settings.iterations)
    for l2, (weights, bias) in zip(strengths, fitted, strict=True):
        yield {"head": "softmax", "l2": l2}, Head(problem.classes, problem.axes.mean, problem.axes.scale, weights, bias)


def _fit_ridge(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    rows, strengths = problem.train, _fall(problem.settings)
    fitted = fit_ridge(problem.axes, rows.features, rows.labels, rows.shares, strengths)
    for l2, (weights, bias) in zip(strengths, fitted, strict=True):
        yield {"head": "ridge", "l2": l2}, Head(problem.classes, problem.axes.mean, problem.axes.scale, weights, bias)


def _fit_prototypes(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    weights, bias = fit_prototypes(problem.axes, problem.train.features, problem.train.labels)
    yield {"head": "prototypes"}, Head(problem.classes, problem.axes.mean, problem.axes.scale, weights, bias)


def _keep_neighbours(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    rows, axes = problem.train, problem.axes
    for nearest in problem.settings.nearest:
        voters = np.array([nearest])
        yield (
            {"head": "knn", "nearest": nearest},
            Neighbours(problem.classes, axes.mean, axes.scale, rows.features, rows.labels, voters),
        )


def _fit_mlps(problem: Problem, kind: Kind, hidden: tuple[int, ...]) -> Iterator[tuple[Choice, Classifier]]:
    from tasks.train import mlp

    settings, axes = problem.settings, problem.axes
    rates = mlp.make_rates(settings.learning_rates, settings.weight_decays)
    train, validation = (
        mlp.Sample(((rows.features - axes.mean) / axes.scale).astype(np.float32), rows.labels, rows.shares)
        for rows in (problem.train, problem.validation)
    )
    fitted = mlp.fit_mlps(train, validation, hidden, rates, settings.epochs, settings.seed)
    for rate, layers in zip(rates, fitted, strict=True):
        *before, (weights, bias) = layers
        choice: Choice = {"head": kind, "learning_rate": rate.learning_rate, "weight_decay": rate.weight_decay}
        yield choice, Head(problem.classes, axes.mean, axes.scale, weights, bias, hidden=tuple(before))


def _fall(settings: TrainSettings) -> list[float]:
    return sorted(set(settings.l2), reverse=True)
