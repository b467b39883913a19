"""What a head is worth, measured on images that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats
from tasks.train.fit.sample import Names
from tasks.train.measure.figures import BINS, Answers, Numbers, ask, find_bins, find_losses, measure, number_classes
from tasks.train.measure.intervals import wilson

FEWEST = 20
"""Images of a slice: fewer say nothing, at an interval of 0.35 and more."""

Table = tuple[dict[str, Any], ...]
Verdicts = npt.NDArray[np.bool_]
"""Whether a head is right about each image."""


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


def evaluate(head: Classifier, features: Matrix, names: Names, facts: pa.Table, seed: int) -> Evaluation:
    """Measure a head on images [n, dim] of known classes.

    ``metrics`` are those of :func:`tasks.train.measure.figures.measure`, and the temperature. ``facts`` are as
    :func:`find_slices` has them, ``seed`` is that of the resamples.
    """
    answers = ask(head, features, names)
    confusion = _count(answers, len(head.classes))
    before, after = (_tabulate_bins(each, answers.right) for each in (answers.before, answers.probabilities))
    return Evaluation(
        {**measure(answers, seed), "temperature": head.temperature},
        tabulate_classes(head.classes, np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)),
        tuple(tuple(map(int, row)) for row in confusion),
        {"before": before, "after": after},
        find_slices(answers.right, names, facts),
    )


def log_loss(probabilities: Floats, names: Names, classes: Sequence[str]) -> float:
    """Give the mean negative log probability of the true classes, nats; a class that is not known has 1e-15."""
    return float(find_losses(probabilities, number_classes(names, classes)).mean())


def _count(answers: Answers, classes: int) -> Numbers:
    known = answers.true >= 0
    cells = answers.true[known] * classes + answers.predicted[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def tabulate_classes(
    classes: Sequence[str], hits: Numbers, images: Numbers, given: Numbers, **more: Sequence[float]
) -> Table:
    """Give precision, recall with its 95 % interval, F1, what more is known, and images of each class; 0 where none is.

    ``images`` [classes] have a class, ``given`` [classes] are given it, ``hits`` [classes] both.
    """
    low, high = wilson(hits, images)
    columns = {
        "class": list(classes),
        "precision": (hits / np.maximum(given, 1)).tolist(),
        "recall": (hits / np.maximum(images, 1)).tolist(),
        "recall_low": low.tolist(),
        "recall_high": high.tolist(),
        "f1": (2 * hits / np.maximum(images + given, 1)).tolist(),
        **more,
        "images": images.tolist(),
    }
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _tabulate_bins(probabilities: Floats, right: Verdicts) -> Table:
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


def find_slices(right: Verdicts, names: Names, facts: pa.Table) -> Table:
    """Measure the accuracy of each slice, worst first: by the upper end of its interval, so that chance comes later.

    Args:
        right: whether each image's class was found, [n].
        names: the images' classes, [n]: each is a slice, too.
        facts: a row for each slice that an image is in: ``image``, its place, and ``slice`` and ``value`` in words.

    Returns:
        ``slice``, ``value``, ``images``, ``accuracy`` and its 95 % interval, for slices of 20 images and more whose
        accuracy is below that of all images.
    """
    classes = pa.table({"image": np.arange(len(names)), "slice": ["class"] * len(names), "value": names.tolist()})
    rows = pa.concat_tables([classes, facts.select(classes.column_names).cast(classes.schema)])
    rows = rows.append_column("right", pa.array(right[rows["image"].to_numpy()].astype(np.int64)))
    found = rows.group_by(["slice", "value"]).aggregate([("right", "count"), ("right", "sum")]).to_pylist()
    slices = [_measure_slice(row) for row in found if row["right_count"] >= FEWEST]
    worse = [row for row in slices if row["accuracy"] < right.mean()]
    return tuple(sorted(worse, key=lambda row: (row["accuracy_high"], row["slice"], row["value"])))


def _measure_slice(row: dict[str, Any]) -> dict[str, Any]:
    images, right = row["right_count"], row["right_sum"]
    low, high = map(float, wilson(right, images))
    accuracy = right / images
    place = {"slice": row["slice"], "value": row["value"], "images": images}
    return {**place, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
