"""Evaluate a head on held-out images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats
from tasks.statistics.shares import find_wilson_interval
from tasks.train.fit.examples import ClassNames
from tasks.train.measure.metrics import (
    BINS,
    Indices,
    Predictions,
    assign_bins,
    compute_log_losses,
    compute_metrics,
    index_classes,
    predict,
)

MIN_IMAGES = 20
"""The minimum number of images in a slice: fewer give intervals of 0.35 and more."""

Table = tuple[dict[str, Any], ...]
Correctness = npt.NDArray[np.bool_]
"""Whether each image was predicted correctly [n]."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics with their intervals, a row for each class, and the confusion matrix, with a row for each true class.

    ``reliability`` has a row for each bin of the largest probability that has images, "before" and "after" the
    temperature; ``slices`` are sorted worst first; ``unknown`` has a row for each class held out to test rejection, and
    ``prices`` has the share of known images that each false accept rate refuses.
    """

    metrics: dict[str, float]
    classes: Table
    confusion: tuple[tuple[int, ...], ...]
    reliability: dict[str, Table]
    slices: Table
    unknown: Table = ()
    prices: Table = ()


def evaluate(head: Classifier, features: Matrix, names: ClassNames, facts: pa.Table) -> Evaluation:
    """Evaluate a head on images [n, dim] with these class names [n].

    ``metrics`` are those of :func:`tasks.train.measure.metrics.compute_metrics`, and the temperature. See
    :func:`find_slices` for ``facts``.
    """
    predictions = predict(head, features, names)
    confusion, correct = _count(predictions, len(head.classes)), predictions.correct
    before, after = (_tabulate_bins(each, correct) for each in (predictions.uncalibrated, predictions.probabilities))
    return Evaluation(
        {**compute_metrics(predictions), "temperature": head.temperature},
        tabulate_classes(head.classes, np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)),
        tuple(tuple(map(int, row)) for row in confusion),
        {"before": before, "after": after},
        find_slices(correct, names, facts),
    )


def log_loss(probabilities: Floats, names: ClassNames, classes: Sequence[str]) -> float:
    """Return the mean negative log probability of the true classes in nats; unknown classes count as 1e-15."""
    return float(compute_log_losses(probabilities, index_classes(names, classes)).mean())


def _count(predictions: Predictions, classes: int) -> Indices:
    known = predictions.true >= 0
    cells = predictions.true[known] * classes + predictions.predicted[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def tabulate_classes(
    classes: Sequence[str], hits: Indices, images: Indices, predicted: Indices, **more: Sequence[float]
) -> Table:
    """Tabulate each class: precision, recall with its 95 % interval, F1, more columns, and images; 0 if undefined.

    ``images`` [classes] have a class, ``predicted`` [classes] are predicted to, ``hits`` [classes] both.
    """
    low, high = find_wilson_interval(hits, images)
    columns = {
        "class": list(classes),
        "precision": (hits / np.maximum(predicted, 1)).tolist(),
        "recall": (hits / np.maximum(images, 1)).tolist(),
        "recall_low": low.tolist(),
        "recall_high": high.tolist(),
        "f1": (2 * hits / np.maximum(images + predicted, 1)).tolist(),
        **more,
        "images": images.tolist(),
    }
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _tabulate_bins(probabilities: Floats, correct: Correctness) -> Table:
    """Tabulate each bin: images, mean of the largest probabilities, and accuracy with its interval."""
    top = probabilities.max(axis=1)
    bins = assign_bins(top)
    images, hits, sums = (np.bincount(bins, each, BINS) for each in (None, correct, top))
    low, high = find_wilson_interval(hits, images)
    return tuple(
        {
            "above": number / BINS,
            "images": int(images[number]),
            "probability": float(sums[number] / images[number]),
            "accuracy": float(hits[number] / images[number]),
            "accuracy_low": float(low[number]),
            "accuracy_high": float(high[number]),
        }
        for number in np.flatnonzero(images).tolist()
    )


def find_slices(correct: Correctness, names: ClassNames, facts: pa.Table) -> Table:
    """Measure the accuracy of each slice; sorts by the upper end of its interval, which puts chance findings last.

    Args:
        correct: Whether each image was predicted correctly [n].
        names: The images' classes [n]; each is a slice as well.
        facts: A row for each slice of an image: ``image``, its position, and ``slice`` and ``value`` in words.

    Returns:
        ``slice``, ``value``, ``images``, ``accuracy`` and its 95 % interval, for slices of at least 20 images whose
        accuracy is below that of all images.
    """
    classes = pa.table({"image": np.arange(len(names)), "slice": ["class"] * len(names), "value": names.tolist()})
    rows = pa.concat_tables([classes, facts.select(classes.column_names).cast(classes.schema)])
    rows = rows.append_column("right", pa.array(correct[rows["image"].to_numpy()].astype(np.int64)))
    found = rows.group_by(["slice", "value"]).aggregate([("right", "count"), ("right", "sum")]).to_pylist()
    slices = [_measure_slice(row) for row in found if row["right_count"] >= MIN_IMAGES]
    worse = [row for row in slices if row["accuracy"] < correct.mean()]
    return tuple(sorted(worse, key=lambda row: (row["accuracy_high"], row["slice"], row["value"])))


def _measure_slice(row: dict[str, Any]) -> dict[str, Any]:
    images, right = row["right_count"], row["right_sum"]
    low, high = map(float, find_wilson_interval(right, images))
    accuracy = right / images
    key = {"slice": row["slice"], "value": row["value"], "images": images}
    return {**key, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
