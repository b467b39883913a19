"""An evaluation, read again: what was recorded with a head, and its mistakes, which the lake's rows give."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storage.errors import TrainError
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.sources.copies import find_places
from storage.tables.features import filter_known
from storage.tables.image_facts import list_facts
from storage.tables.trainings import Training, evaluation_path, head_path, list_split
from storage.vectors.feature_file import Matrix
from tasks.encoder.layers import open_layers
from tasks.heads.answers import gives_labels, join_labels, mark_labels, name_labels
from tasks.heads.heads import Classifier, Floats
from tasks.heads.load import read_head, read_head_inputs

MOST = 24
"""Mistakes that are shown."""


@dataclass(frozen=True)
class Mistake:
    """A test image that a head takes for another class, how sure it is, and where the image lay; None where nowhere.

    Of several labels, ``label`` and ``predicted`` have all, and the head is so sure of one that is wrong.
    """

    image_id: str
    label: str
    predicted: str
    probability: float
    place: str | None


def read_evaluation(lake: Lake, home: Home, training: Training) -> dict[str, Any]:
    """Read what was recorded of a training: the fields of its ``Evaluation``, ``splits`` and ``candidates``.

    What an earlier release recorded has no intervals: it is measured again, from the features that the lake still has.

    Raises:
        TrainError: where the head does not lie in this home.
    """
    path = evaluation_path(home, training.training_id)
    if not (path.is_file() and head_path(home, training.training_id).is_file()):
        remedy = f"Look where it was trained, or train it again: frostline train --name {training.label_set}"
        raise TrainError(f"training {training.training_id}", f"has no head in {home.root}", remedy)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if "reliability" in found else {**found, **_measure(lake, home, training)}


def find_mistakes(lake: Lake, home: Home, training: Training) -> list[Mistake]:
    """Find the test images of which a head is surest in vain, surest first, as far as the lake still has them."""
    head = read_head(home, training, open_layers)
    image_ids, labels, features = _read_test(lake, training)
    if not image_ids:
        return []
    predicted, sureness = _answer(head, head.probabilities(features), labels)
    names = np.array([join_labels(each) for each in labels])
    surest = np.lexsort((np.array(image_ids), -sureness))
    wrong = surest[(predicted != names)[surest]][:MOST]
    places = find_places(lake, [image_ids[at] for at in wrong])
    return [
        Mistake(image_ids[at], str(names[at]), str(predicted[at]), float(sureness[at]), place)
        for at, place in zip(wrong, places, strict=True)
    ]


def _answer(head: Classifier, probabilities: Floats, labels: Sequence[Sequence[str]]) -> tuple[Any, Floats]:
    """Give what a head says of each image, in words, and how sure it is; of labels, of the surest that is wrong."""
    if not gives_labels(head):
        return np.array(head.classes)[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    marks = mark_labels(head, probabilities)
    truth = np.array([[name in each for name in head.classes] for each in labels])
    sureness = np.where(marks, probabilities, 1 - probabilities) * (marks != truth)
    return np.array([join_labels(names) for names in name_labels(head.classes, marks)]), sureness.max(axis=1)


def list_figures(metrics: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """List the figures that have an interval: name in words, value, both ends."""
    return [
        (_tell(name), value, metrics[f"{name}_low"], high)
        for name, value in metrics.items()
        if (high := metrics.get(f"{name}_high")) is not None
    ]


def _tell(name: str) -> str:
    words = name.replace("_before", " before scaling").replace("_", " ")
    return f"cross-validated {words.removeprefix('cv ')}" if words.startswith("cv ") else words


def list_classes(found: Mapping[str, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """List the classes as a table: columns in words, and a row each."""
    words = {"recall_low": "from", "recall_high": "to", "f1": "F1"}
    columns = [words.get(name, name.replace("_", " ")) for name in found["classes"][0]]
    return columns, [tuple(row.values()) for row in found["classes"]]


def list_unknown(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """List, for a head that answers "neither", how often each class was accepted while it was unknown, worst first."""
    rows = sorted(found.get("unknown", ()), key=lambda row: (-row["false_accept"], row["class"]))
    return [tuple(row.values()) for row in rows]


def count_images(found: Mapping[str, Any]) -> dict[str, int]:
    """Count the images of each split; earlier releases counted them by class alone."""
    splits = ("train", "validation", "test")
    return found.get("images") or {split: sum(row[split] for row in found["splits"].values()) for split in splits}


def _measure(lake: Lake, home: Home, training: Training) -> dict[str, Any]:
    from tasks.train.measure.evaluate import evaluate

    image_ids, labels, features = _read_test(lake, training)
    if not image_ids:
        raise TrainError(
            f"training {training.training_id}", "has no test image left in the lake", "Train again: frostline train"
        )
    head, seed = read_head(home, training, open_layers), training.settings["seed"]
    names = np.array([name for (name,) in labels])
    return asdict(evaluate(head, features, names, list_facts(lake, image_ids), int(str(seed))))


def _read_test(lake: Lake, training: Training) -> tuple[list[str], list[list[str]], Matrix]:
    """Read the ids, labels and features of the test images that the lake still has."""
    labels: dict[str, list[str]] = {}
    for image_id, name in sorted(list_split(lake, training.training_id, "test")):
        labels.setdefault(image_id, []).append(name)
    known = filter_known(lake, training.recipe_id, list(labels))
    image_ids = [image_id for image_id in labels if image_id in known]
    return image_ids, [labels[image_id] for image_id in image_ids], read_head_inputs(lake, training, image_ids)
