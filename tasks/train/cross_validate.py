"""Cross-validation by group: every image is predicted by a head that was trained without its group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import TrainError
from storage.plural import pluralize
from storage.vectors.feature_file import Matrix
from tasks.heads.answers import LabelIndicators, compute_mean_average_precision
from tasks.heads.heads import Floats
from tasks.statistics.influences import find_mean_precision_influences
from tasks.statistics.shares import find_figure_interval
from tasks.train.fit.candidates import Hyperparameters, fit_heads, fix_hyperparameters
from tasks.train.fit.examples import ClassNames
from tasks.train.fit.multi_label import fit_label_heads
from tasks.train.measure.metrics import name_interval
from tasks.train.rows.splits import assign_fold
from tasks.train.settings import TrainSettings

MIN_GROUPS = 20
"""Groups from which the interval of an mAP holds (``python -m benchmarks.coverage``)."""
DEFAULT_FOLDS, ENOUGH_TESTED = 5, 100
"""With fewer test images than the second, the chosen head is cross-validated over the first by default."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Folds:
    """The number of folds, and the fold and the group of each image [n]."""

    count: int
    folds: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    def split(self) -> Iterator[tuple[Mask, Mask, Mask]]:
        """Yield for each fold which images train, which validate, and which are held out as test images [n]."""
        for number in range(self.count):
            test, validation = self.folds == number, self.folds == (number + 1) % self.count
            yield ~(test | validation), validation, test


def choose_folds(keys: Sequence[str], names: ClassNames, tested: int, settings: TrainSettings) -> Folds | None:
    """Assign images to the folds that the settings ask for; by default to five if few images are tested.

    Args:
        keys: The keys of their groups [n].
        names: A class of each [n].
        tested: The number of test images.
        settings: The number of folds, if set.

    Raises:
        TrainError: if the settings ask for folds and one is empty.
    """
    if settings.folds is not None:
        return assign_folds(keys, settings.folds, settings) if settings.folds else None
    if tested >= ENOUGH_TESTED or "tail" in settings.heads:
        return None
    try:
        folds = assign_folds(keys, DEFAULT_FOLDS, settings)
    except TrainError:  # nobody asked for folds that these images are too few for
        return None
    return folds if all(len(np.unique(names[train])) > 1 for train, _, _ in folds.split()) else None


def assign_folds(keys: Sequence[str], count: int, settings: TrainSettings) -> Folds:
    """Assign images to folds by the keys of their groups.

    Raises:
        TrainError: if a fold is empty.
    """
    groups = np.unique(np.array(keys), return_inverse=True)[1]
    folds = np.array([assign_fold(key, count, settings) for key in keys], np.int64)
    if len(np.unique(folds)) < count:
        rule = f"leave a fold empty, with {pluralize(groups.max() + 1, 'group')} in training and validation"
        raise TrainError(pluralize(count, "fold"), rule, "Reduce --train.folds, or add groups")
    return Folds(count, folds, groups)


def cross_validate(
    features: Matrix, names: ClassNames, folds: Folds, hyperparameters: Hyperparameters, settings: TrainSettings
) -> Floats:
    """Return for each image 1 if its class was predicted by a head that never saw its group, else 0 [n].

    Args:
        features: Features of the images, without views [n, dim].
        names: Their classes [n].
        folds: Their folds.
        hyperparameters: Those of the head to cross-validate.
        settings: How to train it.

    Raises:
        TrainError: if a fold leaves fewer than two classes to train on.
    """
    fixed, correct = fix_hyperparameters(settings, hyperparameters), np.zeros(len(names))
    for train, validation, test in folds.split():
        if len(np.unique(names[train])) < 2:  # noqa: PLR2004 - a choice needs two
            rule = f"leave one class to train on, {names[train][0]}" if train.any() else "leave none to train on"
            raise TrainError(pluralize(folds.count, "fold"), rule, "Raise --train.folds, or set it to 0")
        head = fit_heads((features[train], names[train]), (features[validation], names[validation]), fixed)[0].head
        predicted = np.array(head.classes)[head.probabilities(features[test]).argmax(axis=1)]
        correct[test] = predicted == names[test]
    return correct


def cross_validate_labels(
    features: Matrix, truth: LabelIndicators, folds: Folds, hyperparameters: Hyperparameters, settings: TrainSettings
) -> Floats:
    """Return the probabilities of each image's labels by heads that never saw its group [n, labels].

    A label that all or none of a fold's training images have cannot be learned: its probability is its share, 1 or 0.
    """
    fixed, probabilities = fix_hyperparameters(settings, hyperparameters), np.zeros(truth.shape)
    for train, validation, test in folds.split():
        shares = truth[train].mean(axis=0) if train.any() else np.zeros(truth.shape[1])
        learnable = np.flatnonzero((shares > 0) & (shares < 1))
        probabilities[test] = shares
        if len(learnable):
            parts = [(features[at], truth[at][:, learnable]) for at in (train, validation)]
            head = fit_label_heads(parts[0], parts[1], tuple(map(str, learnable)), fixed)[0].head
            probabilities[np.ix_(test, learnable)] = head.probabilities(features[test])
    return probabilities


def measure_folds(name: str, value: float, influences: Floats, folds: Folds) -> dict[str, float]:
    """Return a metric over all images with its 95 % interval, for which images of a group count as one.

    Args:
        name: The metric's name.
        value: Its value.
        influences: By how much each image moves it [n]; see :mod:`tasks.statistics.influences`.
        folds: The groups of the images.
    """
    by_group = np.bincount(folds.groups, influences).astype(np.float64)
    return name_interval(f"cv_{name}", value, find_figure_interval(value, by_group))


def measure_accuracy(correct: Floats, folds: Folds) -> dict[str, float]:
    """Return the cross-validated accuracy."""
    accuracy = float(correct.mean())
    return measure_folds("accuracy", accuracy, (correct - accuracy) / len(correct), folds)


def measure_mean_average_precision(probabilities: Floats, truth: LabelIndicators, folds: Folds) -> dict[str, float]:
    """Return the cross-validated mAP, without an interval if there are fewer than 20 groups: it would be too short."""
    value = compute_mean_average_precision(probabilities, truth)
    if folds.groups.max() + 1 < MIN_GROUPS:
        return {"cv_mean_average_precision": value}
    influences = find_mean_precision_influences(probabilities, truth)
    return measure_folds("mean_average_precision", value, influences, folds)
