"""A head's predictions for its test images, and the mistakes among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.sources.copies import choose_copies
from storage.tables.features import filter_known
from storage.tables.trainings import Training, list_split
from storage.vectors.feature_file import Matrix
from tasks.encoder.layers import open_layers
from tasks.heads.answers import apply_thresholds, is_multi_label, join_labels, name_labels
from tasks.heads.heads import Classifier, Floats
from tasks.heads.load import read_head, read_head_inputs

MAX_MISTAKES = 24

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Mistake:
    """A test image whose predicted class is not its label.

    ``path`` is the image's file, as text; None if no source lists it any more. If a head gives several labels,
    ``label`` and ``predicted`` join them all, and ``probability`` is that of the most confident wrong one.
    """

    image_id: str
    label: str
    predicted: str
    probability: float
    path: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the mistake as ``evaluate --json`` prints it."""
        return {
            "image_id": self.image_id,
            "label": self.label,
            "predicted": self.predicted,
            "probability": self.probability,
            "place": self.path,
        }


@dataclass(frozen=True)
class Predictions:
    """A head's predictions for n test images, most confident first; ties by image id.

    ``labels`` [n] and ``predicted`` [n] are names, several of them joined; ``confidence`` [n] is a probability.
    """

    image_ids: Texts
    labels: Texts
    predicted: Texts
    confidence: Floats

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image's predicted class is its label [n]."""
        return np.equal(self.predicted, self.labels)


def predict_test_images(lake: Lake, home: Home, training: Training) -> Predictions:
    """Predict the test images whose features the lake still has."""
    head = read_head(home, training, open_layers)
    image_ids, labels, features = read_test_images(lake, training)
    if not image_ids:
        nothing = np.array([], np.str_)
        return Predictions(nothing, nothing, nothing, np.array([], np.float64))
    predicted, confidence = _predict(head, head.probabilities(features), labels)
    order = np.lexsort((np.array(image_ids), -confidence))
    names = np.array([join_labels(image_labels) for image_labels in labels])
    return Predictions(np.array(image_ids)[order], names[order], predicted[order], confidence[order])


def read_test_images(lake: Lake, training: Training) -> tuple[list[str], list[list[str]], Matrix]:
    """Read the ids, labels and features [n, dim] of the test images that the lake still has."""
    labels: dict[str, list[str]] = {}
    for image_id, name in sorted(list_split(lake, training.training_id, "test")):
        labels.setdefault(image_id, []).append(name)
    stored = filter_known(lake, training.recipe_id, list(labels))
    image_ids = [image_id for image_id in labels if image_id in stored]
    return image_ids, [labels[image_id] for image_id in image_ids], read_head_inputs(lake, training, image_ids)


def _predict(head: Classifier, probabilities: Floats, labels: Sequence[Sequence[str]]) -> tuple[Texts, Floats]:
    """Return predicted names [n] and confidence [n]; of several labels, the confidence of the worst error."""
    if not is_multi_label(head):
        return np.array(head.classes)[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    marks = apply_thresholds(head, probabilities)
    truth = np.array([[name in image_labels for name in head.classes] for image_labels in labels])
    wrong = np.where(marks, probabilities, 1 - probabilities) * (marks != truth)
    return np.array([join_labels(names) for names in name_labels(head.classes, marks)]), wrong.max(axis=1)


def find_mistakes(lake: Lake, predictions: Predictions) -> list[Mistake]:
    """Find the most confident mistakes, at most 24."""
    wrong = np.flatnonzero(~predictions.right)[:MAX_MISTAKES]
    columns = (predictions.image_ids, predictions.labels, predictions.predicted, predictions.confidence)
    image_ids, labels, predicted, confidence = (column[wrong].tolist() for column in columns)
    copies = choose_copies(lake, image_ids)
    paths = [copies[image_id].full_path if image_id in copies else None for image_id in image_ids]
    return [Mistake(*row) for row in zip(image_ids, labels, predicted, confidence, paths, strict=True)]


def find_examples(predictions: Predictions, label: str, count: int) -> list[str]:
    """Return the ids of the images with a label that were predicted right, most confident first."""
    found: list[str] = predictions.image_ids[predictions.right & (predictions.labels == label)][:count].tolist()
    return found
