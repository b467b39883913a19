"""Answers: what a head says of images, in words, and how well it ranks them by each label."""

from collections.abc import Iterable, Sequence
from typing import TypeGuard, cast

import numpy as np
import numpy.typing as npt

from tasks.heads.heads import Classifier, Floats, Head

NEITHER = "neither"
SMALLEST_PROBABILITY = 1e-15

Marks = npt.NDArray[np.bool_]


def gives_labels(head: Classifier) -> TypeGuard[Head]:
    """Tell whether a head gives an image any number of labels, and not one class."""
    return isinstance(head, Head) and bool(head.thresholds)


def name_likeliest(head: Classifier, probabilities: Floats) -> npt.NDArray[np.str_]:
    """Give the likeliest class of each row [n, classes]; ``neither`` where the head is less sure than it must be."""
    unsure = probabilities.max(axis=1) < head.refuse_below
    return np.array([*head.classes, NEITHER])[np.where(unsure, -1, probabilities.argmax(axis=1))]


def mark_labels(head: Head, probabilities: Floats) -> Marks:
    """Tell which labels each image has [n, classes]: those that are as likely as their thresholds, or more."""
    return probabilities >= np.array(head.thresholds)


def name_labels(classes: Sequence[str], marks: Marks) -> list[list[str]]:
    """Name the labels of each image, in the order of the classes."""
    return [[name for name, has in zip(classes, row, strict=True) if has] for row in marks.tolist()]


def join_labels(names: Sequence[str]) -> str:
    """Write an image's labels as one text."""
    return " + ".join(names) or "no label"


def mark_known(image_ids: Sequence[str], rows: Iterable[tuple[str, str]], classes: Sequence[str]) -> Marks:
    """Tell which of the classes each image has [n, classes], from rows of (image_id, class)."""
    images, columns = ({key: at for at, key in enumerate(keys)} for keys in (image_ids, classes))
    truth = np.zeros((len(images), len(columns)), np.bool_)
    for image_id, name in rows:
        if name in columns:
            truth[images[image_id], columns[name]] = True
    return truth


def find_label_losses(probabilities: Floats, truth: Marks) -> Floats:
    """Give each image's mean negative log probability over its labels and its lacks, nats, [n] of [n, classes]."""
    given = np.where(truth, probabilities, 1 - probabilities)
    return cast("Floats", -np.log(np.maximum(given, SMALLEST_PROBABILITY)).mean(axis=1))


def find_average_precisions(scores: Floats, truth: Marks, counts: Floats) -> Floats:
    """Give the area under precision over recall, in steps: the sum of precision times what recall grows by.

    Images of the same score come together, so that their order in a tie decides nothing.

    Args:
        scores: [n], higher for what is likelier.
        truth: whether each image has the label, [n].
        counts: how often each image counts, [n, k], for k areas at once.

    Returns:
        The areas [k]; NaN where no image that counts has the label.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    counted = counts[order]
    everything = np.cumsum(counted, axis=0)[ends]
    hits = np.cumsum(counted * truth[order, None], axis=0)[ends]
    precision = hits / np.maximum(everything, 1)
    area = (precision * np.diff(hits, axis=0, prepend=0)).sum(axis=0)
    return cast("Floats", np.divide(area, hits[-1], out=np.full(len(area), np.nan), where=hits[-1] > 0))


def find_mean_average_precision(scores: Floats, truth: Marks) -> float:
    """Average the areas [n, classes] over the labels that an image has; 0 where none has any."""
    once = np.ones((len(truth), 1))
    areas = [find_average_precisions(scores[:, at], truth[:, at], once)[0] for at in np.flatnonzero(truth.any(axis=0))]
    return float(np.mean(areas)) if areas else 0.0
