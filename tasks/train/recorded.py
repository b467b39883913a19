"""An evaluation, read again: what was recorded with a head, and its mistakes, which the lake's rows give."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import TrainError
from storage.features import keep_known, read_features
from storage.files import find_copies
from storage.images import list_facts
from storage.lake import Lake
from storage.paths import Home, text_to_path
from storage.trainings import Training, evaluation_path, head_path, list_split, read_head
from storage.vectors import Matrix

MOST = 24
"""Mistakes that are shown."""


@dataclass(frozen=True)
class Mistake:
    """A test image that a head takes for another class, how sure it is, and where the image lay; None where nowhere."""

    image_id: str
    label: str
    predicted: str
    probability: float
    place: str | None


def read_evaluation(lake: Lake, home: Home, training: Training) -> dict[str, Any]:
    """Read what was recorded: the fields of :class:`tasks.train.evaluate.Evaluation`, ``splits`` and ``candidates``.

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
    head = read_head(home, training)
    image_ids, names, features = _read_test(lake, training)
    if not image_ids:
        return []
    probabilities = head.probabilities(features)
    predicted, sureness = np.array(head.classes)[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    surest = np.lexsort((image_ids, -sureness))
    wrong = surest[(predicted != names)[surest]][:MOST]
    places = [_find_place(lake, image_ids[at]) for at in wrong]
    return [
        Mistake(image_ids[at], str(names[at]), str(predicted[at]), float(sureness[at]), place)
        for at, place in zip(wrong, places, strict=True)
    ]


def list_figures(metrics: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """List the figures that have an interval: name in words, value, both ends."""
    return [
        (name.replace("_before", " before scaling").replace("_", " "), value, metrics[f"{name}_low"], high)
        for name, value in metrics.items()
        if (high := metrics.get(f"{name}_high")) is not None
    ]


def _measure(lake: Lake, home: Home, training: Training) -> dict[str, Any]:
    from tasks.train.evaluate import evaluate

    image_ids, names, features = _read_test(lake, training)
    if not image_ids:
        raise TrainError(
            f"training {training.training_id}", "has no test image left in the lake", "Train again: frostline train"
        )
    head, seed = read_head(home, training), training.settings["seed"]
    return asdict(evaluate(head, features, names, list_facts(lake, image_ids), int(str(seed))))


def _read_test(lake: Lake, training: Training) -> tuple[list[str], Any, Matrix]:
    """Read the ids, class names and features of the test images that the lake still has."""
    rows = list_split(lake, training.training_id, "test")
    known = keep_known(lake, training.recipe_id, [image_id for image_id, _ in rows])
    rows = [row for row in rows if row[0] in known]
    image_ids = [image_id for image_id, _ in rows]
    return image_ids, np.array([name for _, name in rows]), read_features(lake, training.recipe_id, image_ids)


def _find_place(lake: Lake, image_id: str) -> str | None:
    places = [f"{root}/{path}" for root, path in find_copies(lake, image_id)]
    return next((place for place in places if Path(text_to_path(place)).is_file()), next(iter(places), None))
