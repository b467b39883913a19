"""Finds label issues: images whose labels a person should check. Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.errors import ReviewError
from storage.plural import pluralize
from storage.progress import Advance
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.train.cross_validate import Folds
from tasks.train.fit.candidates import fit_heads
from tasks.train.fit.examples import ClassNames
from tasks.train.rows.near_duplicates import MIN_COSINE, LooksSame, Nearest, find_nearest, list_close_pairs
from tasks.train.settings import TrainSettings

Problem = Literal["label", "duplicate", "outlier", "conflict"]

FOLDS = 5
FENCE = 3.0
"""Interquartile ranges above the third quartile from which a value is far out (Tukey, Exploratory Data Analysis)."""


@dataclass(frozen=True)
class Issue:
    """An image to check, by its row number, and why.

    - ``label``: heads trained without the image predict ``suggestion``; ``score`` is their probability for its label.
    - ``duplicate``: nearly the same as ``other``, whose class is ``suggestion``; ``score`` is their cosine similarity.
    - ``outlier``: unlike all others; ``score`` is the mean cosine similarity to its ten nearest images.
    """

    image: int
    problem: Problem
    suggestion: str
    score: float
    other: int | None = None


def find_issues(
    features: Matrix, names: ClassNames, settings: TrainSettings, same: LooksSame, advance: Advance
) -> list[Issue]:
    """Find wrong labels, near-duplicates with different labels, and outliers; the worst of each first.

    Args:
        features: [n, dim].
        names: each image's class [n].
        settings: how to train heads; only softmax heads are used.
        same: returns whether two images, by row number, look the same.
        advance: called with the number of images that were compared with all others.

    Raises:
        ReviewError: if there are too few images.
    """
    if len(names) <= FOLDS:
        raise ReviewError(pluralize(len(names), "labelled image"), f"a review needs more than {FOLDS}", "Add images")
    nearest = find_nearest(features, advance)
    return [
        *find_wrong_labels(features, names, settings),
        *_find_duplicates(nearest, names, same),
        *(Issue(image, "outlier", "", score) for image, score in find_outliers(nearest)),
    ]


def find_wrong_labels(features: Matrix, names: ClassNames, settings: TrainSettings) -> list[Issue]:
    """Find labels that are likely wrong, by confident learning (Northcutt et al. 2021) on out-of-fold probabilities.

    An image is skipped if its class has too few images for the fold's head to learn it.
    """
    from cleanlab.filter import find_label_issues

    classes, labels = np.unique(names, return_inverse=True)
    probabilities = predict_out_of_fold(features, names, settings)
    judged = np.flatnonzero(probabilities[np.arange(len(labels)), labels] > 0)
    judged_classes, numbers = np.unique(labels[judged], return_inverse=True)
    if len(judged_classes) < 2:  # noqa: PLR2004 - a label is only wrong if another class could be right
        return []
    scores = probabilities[judged][:, judged_classes]
    scores /= scores.sum(axis=1, keepdims=True)
    ranked = find_label_issues(numbers, scores, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        Issue(int(judged[row]), "label", str(classes[judged_classes[scores[row].argmax()]]), float(scores[row, own]))
        for row in ranked.tolist()
        if scores[row].argmax() != (own := numbers[row])
    ]


def predict_out_of_fold(features: Matrix, names: ClassNames, settings: TrainSettings) -> Floats:
    """Predict each image by a head that was trained without it.

    Returns:
        Probabilities [n, classes]; 0 for classes that the head could not learn.
    """
    softmax, classes = settings.model_copy(update={"heads": ("softmax",)}), np.unique(names)
    probabilities = np.zeros((len(names), len(classes)))
    for training, validation, test in Folds(FOLDS, assign_folds(names), np.arange(len(names))).split():
        usable = validation & np.isin(names, names[training])
        if not usable.any() or len(np.unique(names[training])) < 2:  # noqa: PLR2004 - a head needs two classes
            continue
        head = fit_heads((features[training], names[training]), (features[usable], names[usable]), softmax)[0].head
        columns = np.searchsorted(classes, np.array(head.classes))
        probabilities[np.ix_(test, columns)] = head.probabilities(features[test])
    return probabilities


def assign_folds(names: ClassNames) -> npt.NDArray[np.int64]:
    """Assign each class's images to the folds in turn [n]. Rows are ordered by image id, which is random."""
    _, labels = np.unique(names, return_inverse=True)
    order = np.argsort(labels, kind="stable")
    folds = np.empty(len(names), np.int64)
    folds[order] = np.arange(len(names)) % FOLDS
    return folds


def _find_duplicates(nearest: Nearest, names: ClassNames, same: LooksSame) -> Iterator[Issue]:
    for first, second, cosine in list_close_pairs(nearest, MIN_COSINE):
        if names[first] != names[second] and same(first, second):
            yield Issue(first, "duplicate", str(names[second]), cosine, second)
            yield Issue(second, "duplicate", str(names[first]), cosine, first)


def find_outliers(nearest: Nearest) -> list[tuple[int, float]]:
    """List the images whose mean distance to their nearest is far out, farthest first: (row number, mean cosine)."""
    distances: Floats = 1 - nearest.cosines.astype(np.float64).mean(axis=1)
    low, high = np.percentile(distances, [25, 75])
    far = np.flatnonzero(distances > high + FENCE * (high - low))
    return [(int(row), float(1 - distances[row])) for row in far[np.argsort(-distances[far], kind="stable")]]
