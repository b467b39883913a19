"""Fit heads of every requested kind, calibrate them, and compare them on validation images."""

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
from tasks.heads.heads import Classifier, DenseLayer, Head, Neighbours, Tail, count_views
from tasks.train.calibrate.temperature import calibrate
from tasks.train.fit.axes import PrincipalAxes, find_principal_axes
from tasks.train.fit.examples import Examples, LabelledFeatures, weigh_examples
from tasks.train.fit.prototypes import fit_prototypes
from tasks.train.fit.ridge import fit_ridge
from tasks.train.fit.softmax import fit_softmax
from tasks.train.measure.evaluate import log_loss
from tasks.train.settings import Kind, TrainSettings

if TYPE_CHECKING:
    from tasks.train.fit.tail import Trainable

Hyperparameters = dict[str, float | str]
"""The kind of head (under "head") and the values tuned for it."""

SETTINGS_BY_HYPERPARAMETER = {
    "l2": "l2",
    "nearest": "nearest",
    "learning_rate": "learning_rates",
    "weight_decay": "weight_decays",
}


@dataclass(frozen=True)
class Candidate:
    """A calibrated head, its hyperparameters, and its mean log loss on validation images in nats."""

    hyperparameters: Hyperparameters
    head: Classifier
    loss: float


@dataclass(frozen=True)
class TailContext:
    """What training a tail needs besides features.

    ``backbone`` is a packed backbone, ``checkpoints`` a folder. ``progress`` reports on the training, which stops early
    if it cannot finish by the ``deadline``, a time of :func:`time.monotonic`.
    """

    backbone: Path
    checkpoints: Path
    progress: Progress = silent
    deadline: float = math.inf


@dataclass(frozen=True)
class FitInputs:
    """What every kind of head is fitted to.

    ``queries`` are the validation images as heads are asked about them: with their views side by side, if predictions
    average over views.
    """

    classes: tuple[str, ...]
    train: Examples
    validation: Examples
    queries: LabelledFeatures
    settings: TrainSettings
    tail: TailContext | None = None

    @cached_property
    def axes(self) -> PrincipalAxes:
        """The principal axes of the training features."""
        return find_principal_axes(self.train.features, self.train.weights)


Fit = Callable[[FitInputs], Iterator[tuple[Hyperparameters, Classifier]]]


def fit_heads(
    train: LabelledFeatures,
    validation: LabelledFeatures,
    settings: TrainSettings,
    tail: TailContext | None = None,
) -> tuple[Candidate, ...]:
    """Fit all candidates that the settings ask for, and sort them by validation loss, lowest first.

    Args:
        train: Features [n, dim] and class names [n].
        validation: Features [m, dim] and class names [m]; [m, views * dim] if predictions average over views.
        settings: The kinds of heads, and the hyperparameters to choose from.
        tail: What the kind "tail" needs.

    Raises:
        TrainError: if the kind "tail" is requested without ``tail``, or if every candidate diverges.
        OutOfTimeError: if a tail cannot be trained by its deadline.
    """
    inputs, fits = _prepare(train, validation, settings, tail), _list_fits()
    fitted = (pair for kind in dict.fromkeys(settings.heads) for pair in fits[kind](inputs))
    candidates = [_calibrate(inputs, hyperparameters, head) for hyperparameters, head in fitted]
    if not candidates:
        rates = f"train.learning_rates {settings.learning_rates} with weight_decays {settings.weight_decays}"
        raise TrainError(rates, "make every candidate diverge", "Lower --train.learning-rates or --train.weight-decays")
    return tuple(sorted(candidates, key=lambda candidate: candidate.loss))  # ties go to the one fitted first


def fix_hyperparameters(settings: TrainSettings, hyperparameters: Hyperparameters) -> TrainSettings:
    """Return settings that train this one candidate."""
    values = {
        SETTINGS_BY_HYPERPARAMETER[name]: (value,)
        for name, value in hyperparameters.items()
        if name in SETTINGS_BY_HYPERPARAMETER
    }
    return settings.model_copy(update={"heads": (hyperparameters["head"],), **values})


def _prepare(
    train: LabelledFeatures, validation: LabelledFeatures, settings: TrainSettings, tail: TailContext | None
) -> FitInputs:
    classes, labels = np.unique(train[1], return_inverse=True)
    known = np.isin(validation[1], classes)
    queries, names = validation[0][known], validation[1][known]
    images = queries[:, : train[0].shape[1]]  # without views
    return FitInputs(
        tuple(map(str, classes)),
        Examples(train[0], labels, weigh_examples(labels, balanced=settings.class_weights)),
        Examples(images, np.searchsorted(classes, names), np.full(len(names), 1 / max(len(names), 1))),
        (queries, names),
        settings,
        tail,
    )


def _calibrate(inputs: FitInputs, hyperparameters: Hyperparameters, head: Classifier) -> Candidate:
    features, names = inputs.queries
    averaging = replace(head, views=count_views(inputs.train.features, features))
    calibrated = calibrate(averaging, features, names)
    return Candidate(hyperparameters, calibrated, log_loss(calibrated.probabilities(features), names, inputs.classes))


def _list_fits() -> Mapping[Kind, Fit]:
    return {
        "softmax": _fit_softmax,
        "ridge": _fit_ridge,
        "prototypes": _fit_prototypes,
        "knn": _fit_neighbours,
        "mlp": lambda inputs: _fit_mlps(inputs, "mlp", (inputs.settings.hidden,)),
        "tail": _fit_tails,
        "mlp2": lambda inputs: _fit_mlps(inputs, "mlp2", (inputs.settings.hidden, -(-inputs.settings.hidden // 2))),
    }


def _fit_softmax(inputs: FitInputs) -> Iterator[tuple[Hyperparameters, Classifier]]:
    strengths = _list_strengths(inputs.settings)
    fitted = fit_softmax(inputs.axes, inputs.train, strengths, inputs.settings.iterations)
    for l2, layer in zip(strengths, fitted, strict=True):
        yield {"head": "softmax", "l2": l2}, _make_head(inputs, layer)


def _fit_ridge(inputs: FitInputs) -> Iterator[tuple[Hyperparameters, Classifier]]:
    strengths = _list_strengths(inputs.settings)
    for l2, layer in zip(strengths, fit_ridge(inputs.axes, inputs.train, strengths), strict=True):
        yield {"head": "ridge", "l2": l2}, _make_head(inputs, layer)


def _fit_prototypes(inputs: FitInputs) -> Iterator[tuple[Hyperparameters, Classifier]]:
    yield {"head": "prototypes"}, _make_head(inputs, fit_prototypes(inputs.axes, inputs.train))


def _make_head(inputs: FitInputs, last: DenseLayer, hidden: tuple[DenseLayer, ...] = ()) -> Head:
    return Head(inputs.classes, inputs.axes.mean, inputs.axes.scale, *last, hidden=hidden)


def _fit_neighbours(inputs: FitInputs) -> Iterator[tuple[Hyperparameters, Classifier]]:
    train, axes = inputs.train, inputs.axes
    for nearest in inputs.settings.nearest:
        voters = np.array([nearest])
        yield (
            {"head": "knn", "nearest": nearest},
            Neighbours(inputs.classes, axes.mean, axes.scale, train.features, train.labels, voters),
        )


def _fit_mlps(inputs: FitInputs, kind: Kind, hidden: tuple[int, ...]) -> Iterator[tuple[Hyperparameters, Classifier]]:
    from tasks.train.fit import mlp

    settings, axes = inputs.settings, inputs.axes
    train, validation = (
        replace(examples, features=((examples.features - axes.mean) / axes.scale).astype(np.float32))
        for examples in (inputs.train, inputs.validation)
    )
    for rate, decay in product(settings.learning_rates, settings.weight_decays):
        layers = mlp.fit_mlp(train, validation, hidden, rate, decay, settings.epochs, settings.seed)
        if layers:
            tuned: Hyperparameters = {"head": kind, "learning_rate": rate, "weight_decay": decay}
            yield tuned, _make_head(inputs, layers[-1], hidden=layers[:-1])


def _fit_tails(inputs: FitInputs) -> Iterator[tuple[Hyperparameters, Classifier]]:
    """Yield the pretrained layers with the best softmax on top, then both trained at each learning rate."""
    from tasks.train.fit import tail

    settings, context = inputs.settings, inputs.tail
    if context is None:
        raise TrainError("heads tail", "needs the backbone's layers", "Train with `frostline train`")
    pretrained = cast("Trainable", open_layers(context.backbone))
    outputs = _run_layers(inputs, pretrained)
    start = min((_calibrate(outputs, *each) for each in _fit_softmax(outputs)), key=lambda candidate: candidate.loss)
    head, l2 = cast("Head", start.head), float(start.hyperparameters["l2"])
    yield {"head": "tail", "learning_rate": 0.0, "epoch": 0, "l2": l2}, _join(head, pretrained)
    rates = settings.tail.learning_rates
    with context.progress("train", len(rates) * settings.tail.epochs * len(inputs.train.labels)) as advance:
        for rate in rates:
            layers = copy.deepcopy(pretrained)
            schedule = tail.TailSchedule(settings.tail, rate, l2, settings.seed, settings.device, context.deadline)
            checkpoint = context.checkpoints / f"tail-{rate}.safetensors"
            epoch, trained = tail.fit_tail(layers, head, inputs.train, inputs.validation, schedule, checkpoint, advance)
            tuned: Hyperparameters = {"head": "tail", "learning_rate": rate, "epoch": epoch, "l2": l2}
            yield tuned, _join(trained, layers)


def _run_layers(inputs: FitInputs, layers: "Trainable") -> FitInputs:
    """Replace the features by what the layers compute from them."""
    train, validation = (
        replace(examples, features=layers.run(examples.features)) for examples in (inputs.train, inputs.validation)
    )
    return replace(inputs, train=train, validation=validation, queries=(validation.features, inputs.queries[1]))


def _join(head: Head, layers: "Trainable") -> Tail:
    return Tail(head.classes, head.mean, head.scale, head.weights, head.bias, layers=layers)


def _list_strengths(settings: TrainSettings) -> list[float]:
    return sorted(set(settings.l2), reverse=True)
