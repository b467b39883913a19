"""The sweep: heads of every kind that is asked for, calibrated and compared on validation."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from storage.errors import TrainError
from storage.progress import Progress, silent
from tasks.encoder.layers import open_layers
from tasks.heads.heads import Classifier, Head, Layer, Neighbours, Tail, count_views
from tasks.train.fit.axes import Axes, find_axes
from tasks.train.fit.calibrate import calibrate
from tasks.train.fit.prototypes import fit_prototypes
from tasks.train.fit.ridge import fit_ridge
from tasks.train.fit.sample import Images, Sample, share
from tasks.train.fit.softmax import fit_softmax
from tasks.train.measure.evaluate import log_loss
from tasks.train.settings import Kind, TrainSettings

if TYPE_CHECKING:
    from tasks.train.fit.tail import Trainable

Choice = dict[str, float | str]
"""What makes a candidate: its kind, and what was to choose about it."""


@dataclass(frozen=True)
class Candidate:
    """A calibrated head, what makes it, and its mean log loss on validation, nats."""

    choice: Choice
    head: Classifier
    loss: float


@dataclass(frozen=True)
class Pretrained:
    """Where the layers after the cut come from, and where the checkpoints of their training go.

    ``backbone`` is a packed one. ``progress`` follows the training of its layers, which is ended if it would not be
    done by the ``deadline``, a time of :func:`time.monotonic`.
    """

    backbone: Path
    checkpoints: Path
    progress: Progress = silent
    deadline: float = math.inf


@dataclass(frozen=True)
class Problem:
    """What all kinds are fitted to: images to train on, and to choose on; in which classes; after which layers.

    ``asked`` are the validation images as heads will be asked about them, views of each side by side, and their names.
    """

    classes: tuple[str, ...]
    train: Sample
    validation: Sample
    asked: Images
    settings: TrainSettings
    pretrained: Pretrained | None = None

    @cached_property
    def axes(self) -> Axes:
        """Those of the images to train on."""
        return find_axes(self.train.features, self.train.shares)


Fit = Callable[[Problem], Iterator[tuple[Choice, Classifier]]]


def fit_heads(
    train: Images, validation: Images, settings: TrainSettings, pretrained: Pretrained | None = None
) -> tuple[Candidate, ...]:
    """Fit all candidates, on one decomposition of the features, and give them by their loss on validation, best first.

    Args:
        train: features [n, dim] and class names [n].
        validation: features [m, dim] and class names [m]; [m, views * dim] where answers average over views.
        settings: kinds of heads, and what there is to choose about each.
        pretrained: the layers that the kind "tail" trains.

    Raises:
        TrainError: where a tail is asked for, and there is none, or no candidate comes to finite numbers.
        OutOfTimeError: where a tail would not end in time.
    """
    problem = _prepare(train, validation, settings, pretrained)
    fits = _list_fits()
    candidates = [
        _judge(problem, choice, head) for kind in dict.fromkeys(settings.heads) for choice, head in fits[kind](problem)
    ]
    if not candidates:
        rates = f"train.learning_rates {settings.learning_rates} with weight_decays {settings.weight_decays}"
        raise TrainError(
            rates, "make every candidate run away", "Lower --train.learning-rates or --train.weight-decays"
        )
    return tuple(sorted(candidates, key=lambda candidate: candidate.loss))  # in doubt the one that was fitted first


def _prepare(train: Images, validation: Images, settings: TrainSettings, pretrained: Pretrained | None) -> Problem:
    classes, labels = np.unique(train[1], return_inverse=True)
    known = np.isin(validation[1], classes)
    asked, names = validation[0][known], validation[1][known]
    own = asked[:, : train[0].shape[1]]
    return Problem(
        tuple(map(str, classes)),
        Sample(train[0], labels, share(labels, balanced=settings.class_weights)),
        Sample(own, np.searchsorted(classes, names), np.full(len(names), 1 / max(len(names), 1))),
        (asked, names),
        settings,
        pretrained,
    )


def _judge(problem: Problem, choice: Choice, head: Classifier) -> Candidate:
    features, names = problem.asked
    averaging = replace(head, views=count_views(problem.train.features, features))
    calibrated = calibrate(averaging, features, names)
    return Candidate(choice, calibrated, log_loss(calibrated.probabilities(features), names, problem.classes))


def _list_fits() -> Mapping[Kind, Fit]:
    return {
        "softmax": _fit_softmax,
        "ridge": _fit_ridge,
        "prototypes": _fit_prototypes,
        "knn": _keep_neighbours,
        "mlp": lambda problem: _fit_mlps(problem, "mlp", (problem.settings.hidden,)),
        "tail": _fit_tails,
        "mlp2": lambda problem: _fit_mlps(problem, "mlp2", (problem.settings.hidden, -(-problem.settings.hidden // 2))),
    }


def _fit_softmax(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    strengths = _list_strengths(problem.settings)
    fitted = fit_softmax(problem.axes, problem.train, strengths, problem.settings.iterations)
    for l2, layer in zip(strengths, fitted, strict=True):
        yield {"head": "softmax", "l2": l2}, _make_head(problem, layer)


def _fit_ridge(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    strengths = _list_strengths(problem.settings)
    for l2, layer in zip(strengths, fit_ridge(problem.axes, problem.train, strengths), strict=True):
        yield {"head": "ridge", "l2": l2}, _make_head(problem, layer)


def _fit_prototypes(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    yield {"head": "prototypes"}, _make_head(problem, fit_prototypes(problem.axes, problem.train))


def _make_head(problem: Problem, last: Layer, hidden: tuple[Layer, ...] = ()) -> Head:
    return Head(problem.classes, problem.axes.mean, problem.axes.scale, *last, hidden=hidden)


def _keep_neighbours(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    rows, axes = problem.train, problem.axes
    for nearest in problem.settings.nearest:
        voters = np.array([nearest])
        yield (
            {"head": "knn", "nearest": nearest},
            Neighbours(problem.classes, axes.mean, axes.scale, rows.features, rows.labels, voters),
        )


def _fit_mlps(problem: Problem, kind: Kind, hidden: tuple[int, ...]) -> Iterator[tuple[Choice, Classifier]]:
    from tasks.train.fit import mlp

    settings, axes = problem.settings, problem.axes
    train, validation = (
        replace(rows, features=((rows.features - axes.mean) / axes.scale).astype(np.float32))
        for rows in (problem.train, problem.validation)
    )
    for rate, decay in product(settings.learning_rates, settings.weight_decays):
        layers = mlp.fit_mlp(train, validation, hidden, rate, decay, settings.epochs, settings.seed)
        if layers:
            choice: Choice = {"head": kind, "learning_rate": rate, "weight_decay": decay}
            yield choice, _make_head(problem, layers[-1], hidden=layers[:-1])


def _fit_tails(problem: Problem) -> Iterator[tuple[Choice, Classifier]]:
    """Give the pretrained layers with the softmax that suits them best, then both trained at each learning rate."""
    from tasks.train.fit import tail

    settings, known = problem.settings, problem.pretrained
    if known is None:
        raise TrainError("heads tail", "needs the backbone's layers", "Train with `frostline train`")
    opened = cast("Trainable", open_layers(known.backbone))
    behind = _pass_through(problem, opened)
    start = min((_judge(behind, *each) for each in _fit_softmax(behind)), key=lambda candidate: candidate.loss)
    head, l2 = cast("Head", start.head), float(start.choice["l2"])
    yield {"head": "tail", "learning_rate": 0.0, "epoch": 0, "l2": l2}, _join(head, opened)
    rates = settings.tail.learning_rates
    with known.progress("train", len(rates) * settings.tail.epochs * len(problem.train.labels)) as advance:
        for rate in rates:
            layers = copy.deepcopy(opened)
            plan = tail.TailSchedule(settings.tail, rate, l2, settings.seed, settings.device, known.deadline)
            checkpoint = known.checkpoints / f"tail-{rate}.safetensors"
            epoch, trained = tail.fit_tail(layers, head, problem.train, problem.validation, plan, checkpoint, advance)
            choice: Choice = {"head": "tail", "learning_rate": rate, "epoch": epoch, "l2": l2}
            yield choice, _join(trained, layers)


def _pass_through(problem: Problem, layers: "Trainable") -> Problem:
    """Put what the layers give in the place of the features."""
    train, validation = (
        replace(rows, features=layers.run(rows.features)) for rows in (problem.train, problem.validation)
    )
    return replace(problem, train=train, validation=validation, asked=(validation.features, problem.asked[1]))


def _join(head: Head, layers: "Trainable") -> Tail:
    return Tail(head.classes, head.mean, head.scale, head.weights, head.bias, layers=layers)


def _list_strengths(settings: TrainSettings) -> list[float]:
    return sorted(set(settings.l2), reverse=True)
