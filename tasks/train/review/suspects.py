"""Label quality: what a person should look at. Nothing is changed here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.errors import ReviewError
from storage.progress import Advance
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.train.cross_validate import Folds
from tasks.train.fit.candidates import fit_heads
from tasks.train.fit.sample import Names
from tasks.train.rows.near_duplicates import CLOSE, Nearest, Same, find_nearest, pair_up
from tasks.train.settings import TrainSettings

Problem = Literal["label", "duplicate", "outlier", "conflict"]

FOLDS = 5
FENCE = 3.0
"""A value that many interquartile ranges above the third quartile is far out (Tukey, Exploratory Data Analysis)."""


@dataclass(frozen=True)
class Suspect:
    """An image to look at, by its number, and why.

    - ``label``: heads that never saw the image find another class, ``suggestion``; ``score`` is the label's chance.
    - ``duplicate``: nearly the same as ``other``, which has the class ``suggestion``; ``score`` is their cosine.
    - ``outlier``: unlike all others; ``score`` is the mean cosine to the ten nearest.
    """

    image: int
    problem: Problem
    suggestion: str
    score: float
    other: int | None = None


def find_suspects(
    features: Matrix, names: Names, settings: TrainSettings, same: Same, advance: Advance
) -> list[Suspect]:
    """Find wrong labels, near-duplicates of different classes, and outliers, the worst of each first.

    Args:
        features: [n, dim].
        names: the images' classes [n].
        settings: how heads are trained; of their kinds only softmax.
        same: confirms a near-duplicate.
        advance: is told how many images were compared with all others.

    Raises:
        ReviewError: where there are too few images to compare.
    """
    if len(names) <= FOLDS:
        raise ReviewError(f"{len(names)} labelled images", f"a review needs more than {FOLDS}", "Add images")
    nearest = find_nearest(features, advance)
    return [
        *suspect_labels(features, names, settings),
        *_suspect_duplicates(nearest, names, same),
        *(Suspect(image, "outlier", "", score) for image, score in find_outliers(nearest)),
    ]


def suspect_labels(features: Matrix, names: Names, settings: TrainSettings) -> list[Suspect]:
    """Find labels that are likely wrong, by confident learning (Northcutt et al. 2021) on out-of-fold chances.

    Images of a class that a fold could not learn, because it has too few images, are not judged.
    """
    from cleanlab.filter import find_label_issues

    classes, labels = np.unique(names, return_inverse=True)
    chances = predict_unseen(features, names, settings)
    judged = np.flatnonzero(chances[np.arange(len(labels)), labels] > 0)
    kept, numbers = np.unique(labels[judged], return_inverse=True)
    if len(kept) < 2:  # noqa: PLR2004 - a wrong label needs another class to be right
        return []
    shares = chances[judged][:, kept]
    shares /= shares.sum(axis=1, keepdims=True)
    worst = find_label_issues(numbers, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        Suspect(int(judged[at]), "label", str(classes[kept[shares[at].argmax()]]), float(shares[at, numbers[at]]))
        for at in worst.tolist()
        if shares[at].argmax() != numbers[at]
    ]


def predict_unseen(features: Matrix, names: Names, settings: TrainSettings) -> Floats:
    """Give each image's chances [n, classes] by heads that were trained without it; 0 for what they could not learn."""
    softmax, classes = settings.model_copy(update={"heads": ("softmax",)}), np.unique(names)
    chances = np.zeros((len(names), len(classes)))
    for training, choosing, asked in Folds(FOLDS, fold(names), np.arange(len(names))).turns():
        known = choosing & np.isin(names, names[training])
        if not known.any() or len(np.unique(names[training])) < 2:  # noqa: PLR2004 - a choice needs two
            continue
        head = fit_heads((features[training], names[training]), (features[known], names[known]), softmax)[0].head
        columns = np.searchsorted(classes, np.array(head.classes))
        chances[np.ix_(asked, columns)] = head.probabilities(features[asked])
    return chances


def fold(names: Names) -> npt.NDArray[np.int64]:
    """Deal the images of each class out to the folds in turn [n]; they come by image id, which is random."""
    _, labels = np.unique(names, return_inverse=True)
    order = np.argsort(labels, kind="stable")
    folds = np.empty(len(names), np.int64)
    folds[order] = np.arange(len(names)) % FOLDS
    return folds


def _suspect_duplicates(nearest: Nearest, names: Names, same: Same) -> Iterator[Suspect]:
    for first, second, cosine in pair_up(nearest, CLOSE):
        if names[first] != names[second] and same(first, second):
            yield Suspect(first, "duplicate", str(names[second]), cosine, second)
            yield Suspect(second, "duplicate", str(names[first]), cosine, first)


def find_outliers(nearest: Nearest) -> list[tuple[int, float]]:
    """List the images whose mean distance to their nearest is far out, farthest first: (number, mean cosine)."""
    distances: Floats = 1 - nearest.cosines.astype(np.float64).mean(axis=1)
    low, high = np.percentile(distances, [25, 75])
    far = np.flatnonzero(distances > high + FENCE * (high - low))
    return [(int(at), float(1 - distances[at])) for at in far[np.argsort(-distances[far], kind="stable")]]


def count_problems(problems: Sequence[str]) -> dict[str, int]:
    """Count how often each problem was found."""
    return {name: problems.count(name) for name in ("label", "duplicate", "outlier", "conflict")}
