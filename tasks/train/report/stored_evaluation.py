"""Reads the evaluation that was stored with a head, and lists its numbers as table rows."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from storage.errors import TrainError
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.queries.image_facts import list_facts
from storage.tables.trainings import Training, evaluation_path, head_path
from tasks.encoder.layers import open_layers
from tasks.heads.load import read_head
from tasks.train.report.mistakes import read_test_images

SPLITS = ("train", "validation", "test")


def read_evaluation(lake: Lake, home: Home, training: Training) -> dict[str, Any]:
    """Read a training's evaluation: the fields of ``Evaluation``, and ``splits`` and ``candidates``.

    Evaluations of the first release have no intervals. They are measured again on the features still in the lake.

    Raises:
        TrainError: if the head is not stored in this home.
    """
    path = evaluation_path(home, training.training_id)
    if not (path.is_file() and head_path(home, training.training_id).is_file()):
        remedy = f"Use the home in which it was trained, or train again: frostline train --name {training.label_set}"
        raise TrainError(f"training {training.training_id}", f"has no head in {home.root}", remedy)
    evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return evaluation if "reliability" in evaluation else {**evaluation, **_measure_again(lake, home, training)}


def _measure_again(lake: Lake, home: Home, training: Training) -> dict[str, Any]:
    from tasks.train.measure.evaluate import evaluate

    image_ids, labels, features = read_test_images(lake, training)
    if not image_ids:
        raise TrainError(
            f"training {training.training_id}", "has no test image left in the lake", "Train again: frostline train"
        )
    head = read_head(home, training, open_layers)
    names = np.array([name for (name,) in labels])
    return asdict(evaluate(head, features, names, list_facts(lake, image_ids)))


def count_images(evaluation: Mapping[str, Any]) -> dict[str, int]:
    """Count the images of each split. The first release stored counts by class only."""
    if "images" in evaluation:
        return dict(evaluation["images"])
    return {split: sum(row[split] for row in evaluation["splits"].values()) for split in SPLITS}


def count_measured(evaluation: Mapping[str, Any]) -> int:
    """Count the test images that the metrics were measured on."""
    bins = evaluation["reliability"].get("after", ())  # empty for heads that give several labels
    return sum(row["images"] for row in bins) or count_images(evaluation)["test"]


def list_classes(evaluation: Mapping[str, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """List the classes as a table: column titles, and a row for each class."""
    titles = {"recall_low": "from", "recall_high": "to", "f1": "F1"}
    columns = [titles.get(key, key.replace("_", " ")) for key in evaluation["classes"][0]]
    return columns, [tuple(row.values()) for row in evaluation["classes"]]


def list_unknown(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List how often each class was accepted as another while it was left out of training, most often first.

    Empty for heads that never answer "neither".
    """
    return sorted(evaluation.get("unknown", ()), key=lambda row: (-row["false_accept"], row["class"]))
