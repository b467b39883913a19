"""What a head is worth, measured on images that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.heads import Classifier, Floats
from storage.vectors import Matrix
from tasks.train.calibrate import BINS, find_bins
from tasks.train.figures import Answers, Numbers, ask, find_losses, measure, number_classes
from tasks.train.intervals import wilson
from tasks.train.slices import find_slices

Table = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Evaluation:
    """Headline figures with their intervals, a row a class, and the confusion matrix: true classes down.

    ``reliability`` has a row for each bin of the likeliest class's probability that has images, before the temperature
    and ``after`` it; ``slices`` come worst first.
    """

    metrics: dict[str, float]
    classes: Table
    confusion: tuple[tuple[int, ...], ...]
    reliability: dict[str, Table]
    slices: Table
    unknown: Table = ()


def evaluate(head: Classifier, features: Matrix, names: npt.NDArray[np.str_], facts: pa.Table, seed: int) -> Evaluation:
    """Measure a head on images [n, dim] of known classes.

    ``metrics`` are those of :func:`tasks.train.figures.measure`, and the temperature. ``facts`` are as
    :func:`tasks.train.slices.find_slices` has them, ``seed`` is that of the resamples.
    """
    answers = ask(head, features, names)
    confusion = _count(answers, len(head.classes))
    before, after = (_tabulate_bins(each, answers.right) for each in (answers.before, answers.probabilities))
    return Evaluation(
        {**measure(answers, seed), "temperature": head.temperature},
        _tabulate_classes(confusion, head.classes),
        tuple(tuple(map(int, row)) for row in confusion),
        {"before": before, "after": after},
        find_slices(answers.right, names, facts),
    )


def log_loss(probabilities: Floats, names: npt.NDArray[np.str_], classes: Sequence[str]) -> float:
    """Give the mean negative log probability of the true classes, nats; a class that is not known has 1e-15."""
    return float(find_losses(probabilities, number_classes(names, classes)).mean())


def _count(answers: Answers, classes: int) -> Numbers:
    known = answers.true >= 0
    cells = answers.true[known] * classes + answers.predicted[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _tabulate_classes(confusion: Numbers, classes: Sequence[str]) -> Table:
    """Give precision, recall with its 95 % interval, F1 and images of each class; 0 where there is none."""
    hits, images, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    low, high = wilson(hits, images)
    columns = {
        "class": list(classes),
        "precision": (hits / np.maximum(predicted, 1)).tolist(),
        "recall": (hits / np.maximum(images, 1)).tolist(),
        "recall_low": low.tolist(),
        "recall_high": high.tolist(),
        "f1": (2 * hits / np.maximum(images + predicted, 1)).tolist(),
        "images": images.tolist(),
    }
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _tabulate_bins(probabilities: Floats, right: npt.NDArray[np.bool_]) -> Table:
    """Give images, mean probability of the likeliest class and accuracy with its interval of each bin."""
    sureness = probabilities.max(axis=1)
    bins = find_bins(sureness)
    images, hits, sums = (np.bincount(bins, each, BINS) for each in (None, right, sureness))
    low, high = wilson(hits, images)
    return tuple(
        {
            "above": place / BINS,
            "images": int(images[place]),
            "probability": float(sums[place] / images[place]),
            "accuracy": float(hits[place] / images[place]),
            "accuracy_low": float(low[place]),
            "accuracy_high": float(high[place]),
        }
        for place in np.flatnonzero(images).tolist()
    )
