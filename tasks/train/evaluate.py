"""What a head is worth, measured on images that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from storage.heads import Floats

SMALLEST_PROBABILITY = 1e-15


@dataclass(frozen=True)
class Evaluation:
    """Headline figures, a row a class, and the confusion matrix: rows are true classes, columns predicted ones."""

    metrics: dict[str, float]
    classes: tuple[dict[str, object], ...]
    confusion: tuple[tuple[int, ...], ...]


def evaluate(probabilities: Floats, names: npt.NDArray[np.str_], classes: Sequence[str]) -> Evaluation:
    """Measure probabilities [n, classes] against true class names [n].

    ``balanced_accuracy`` is the mean recall over the classes that have a test image; ``log_loss`` is in nats an image.
    """
    predicted = np.array(classes)[probabilities.argmax(axis=1)]
    columns = precision_recall_fscore_support(names, predicted, labels=list(classes), zero_division=0)
    table = [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
        for name, p, r, f, n in zip(classes, *columns, strict=True)
    ]
    recalls = [row["recall"] for row in table if row["images"]]
    metrics = {
        "accuracy": float(accuracy_score(names, predicted)),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": log_loss(probabilities, names, classes),
    }
    confusion = confusion_matrix(names, predicted, labels=list(classes))
    return Evaluation(metrics, tuple(table), tuple(tuple(map(int, row)) for row in confusion))


def log_loss(probabilities: Floats, names: npt.NDArray[np.str_], classes: Sequence[str]) -> float:
    """Give the mean negative log probability of the true classes, nats; a class that is not known has 1e-15."""
    column = {name: index for index, name in enumerate(classes)}
    true = [probabilities[row, column[name]] if name in column else 0.0 for row, name in enumerate(map(str, names))]
    return float(-np.log(np.maximum(true, SMALLEST_PROBABILITY)).mean())
