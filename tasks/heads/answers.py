"""From probabilities to answers: classes or labels by name, and how well a head ranks images by each label."""

from collections.abc import Iterable, Sequence
from typing import TypeGuard, cast

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats, Head
from tasks.heads.rejection import refuse

NEITHER = "neither"
SMALLEST_PROBABILITY = 1e-15

LabelIndicators = npt.NDArray[np.bool_]


def is_multi_label(head: Classifier) -> TypeGuard[Head]:
    """Return whether a head gives an image any number of labels instead of one class."""
    return isinstance(head, Head) and bool(head.thresholds)


def predict_classes(head: Classifier, features: Matrix, probabilities: Floats) -> npt.NDArray[np.str_]:
    """Return the most probable class of each image, or "neither" if the head refuses it.

    Args:
        head: The head.
        features: What the probabilities were computed from [n, dim].
        probabilities: The head's probabilities [n, classes].
    """
    answers = probabilities.argmax(axis=1)
    return np.array([*head.classes, NEITHER])[np.where(refuse(head, features, probabilities), -1, answers)]


def apply_thresholds(head: Head, probabilities: Floats) -> LabelIndicators:
    """Return which labels each image has [n, classes]: those whose probability reaches the threshold."""
    return probabilities >= np.array(head.thresholds)


def name_labels(classes: Sequence[str], marks: LabelIndicators) -> list[list[str]]:
    """List the labels of each image by name, in the order of the classes."""
    return [[name for name, has in zip(classes, row, strict=True) if has] for row in marks.tolist()]


def join_labels(names: Sequence[str]) -> str:
    """Join an image's labels into one text."""
    return " + ".join(names) or "no label"


def make_indicators(
    image_ids: Sequence[str], rows: Iterable[tuple[str, str]], classes: Sequence[str]
) -> LabelIndicators:
    """Return which classes each image has [n, classes], from rows (image_id, class)."""
    images, columns = ({key: at for at, key in enumerate(keys)} for keys in (image_ids, classes))
    truth = np.zeros((len(images), len(columns)), np.bool_)
    for image_id, name in rows:
        if name in columns:
            truth[images[image_id], columns[name]] = True
    return truth


def compute_label_losses(probabilities: Floats, truth: LabelIndicators) -> Floats:
    """Return each image's log loss in nats, averaged over all labels [n], from probabilities [n, classes]."""
    assigned = np.where(truth, probabilities, 1 - probabilities)
    return cast("Floats", -np.log(np.maximum(assigned, SMALLEST_PROBABILITY)).mean(axis=1))


def compute_average_precisions(scores: Floats, truth: LabelIndicators, counts: Floats) -> Floats:
    """Compute the average precision: the sum of precision times the increase in recall.

    Images with equal scores are treated as one step, so that their order does not matter.

    Args:
        scores: Scores [n], higher is more probable.
        truth: Whether each image has the label [n].
        counts: How often each image counts [n, k], for k values at once.

    Returns:
        The average precisions [k]; NaN if no image that counts has the label.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    counted = counts[order]
    everything = np.cumsum(counted, axis=0)[ends]
    hits = np.cumsum(counted * truth[order, None], axis=0)[ends]
    precision = hits / np.maximum(everything, 1)
    area = (precision * np.diff(hits, axis=0, prepend=0)).sum(axis=0)
    return cast("Floats", np.divide(area, hits[-1], out=np.full(len(area), np.nan), where=hits[-1] > 0))


def compute_mean_average_precision(scores: Floats, truth: LabelIndicators) -> float:
    """Average the average precision over the labels that some image has; 0 if there is none."""
    once = np.ones((len(truth), 1))
    areas = [
        compute_average_precisions(scores[:, at], truth[:, at], once)[0] for at in np.flatnonzero(truth.any(axis=0))
    ]
    return float(np.mean(areas)) if areas else 0.0
