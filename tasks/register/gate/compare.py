"""The gate: a version becomes champion if it is the first, or better than the champion on the same test images."""

from dataclasses import dataclass

import numpy as np

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.plural import pluralize
from storage.tables.features import filter_known
from storage.tables.trainings import Training, find_training, head_path, list_split
from tasks.encoder.layers import open_layers
from tasks.heads.answers import compute_label_losses, compute_mean_average_precision, is_multi_label, make_indicators
from tasks.heads.heads import Classifier
from tasks.heads.load import read_head, read_head_inputs

Rows = list[tuple[str, str]]
"""Image ids with a class of each."""


@dataclass(frozen=True)
class GateDecision:
    """Whether a version becomes champion, and the reason in words."""

    promoted: bool
    reason: str


def compare_with_champion(home: Home, lake: Lake, training: Training, champion_id: str | None) -> GateDecision:
    """Compare a training's head with the champion's on test images that neither was trained on.

    The higher accuracy wins (mAP for multi-label heads), and if it is equal, the lower log loss. A head that may answer
    "neither" is compared by its likeliest class, like its champion.

    Args:
        home: The home of the heads.
        lake: The lake of both trainings.
        training: The new version's training.
        champion_id: The champion's training; None if there is no champion.
    """
    if champion_id is None:
        return GateDecision(promoted=True, reason="first")
    if champion_id == training.training_id:
        return GateDecision(promoted=True, reason="is already the champion")
    champion = find_training(lake, champion_id) if champion_id else None
    if champion is None or not head_path(home, champion.training_id).exists():
        return GateDecision(promoted=False, reason="the champion's head is not in this lake: compare by hand")
    return _compare_heads(home, lake, training, champion)


def _compare_heads(home: Home, lake: Lake, training: Training, champion: Training) -> GateDecision:
    new_head, old_head = (read_head(home, each, open_layers) for each in (training, champion))
    multi_label = is_multi_label(new_head)
    if multi_label != is_multi_label(old_head):
        reason = "one head gives a single class, the other several labels: compare by hand"
        return GateDecision(promoted=False, reason=reason)
    rows = _list_shared_rows(lake, training, champion)
    if not rows:
        return GateDecision(promoted=False, reason="the two models share no test images: compare by hand")
    measure = _measure_labels if multi_label else _measure_classes
    new, old = measure(new_head, lake, training, rows), measure(old_head, lake, champion, rows)
    metrics = (
        f"{'mAP' if multi_label else 'accuracy'} {new[0]:.4f} against {old[0]:.4f}, "
        f"log loss {-new[1]:.4f} against {-old[1]:.4f}, {pluralize(len(dict(rows)), 'image')}"
    )
    return GateDecision(promoted=new > old, reason=f"{'better' if new > old else 'not better'}: {metrics}")


def _list_shared_rows(lake: Lake, training: Training, champion: Training) -> Rows:
    """List the test rows that the champion was not trained on and has features for."""
    champion_id = champion.training_id
    seen = {image_id for split in ("train", "validation") for image_id, _ in list_split(lake, champion_id, split)}
    rows = [row for row in list_split(lake, training.training_id, "test") if row[0] not in seen]
    embedded = filter_known(lake, champion.recipe_id, [image_id for image_id, _ in rows])
    return [row for row in rows if row[0] in embedded]


def _measure_classes(head: Classifier, lake: Lake, training: Training, rows: Rows) -> tuple[float, float]:
    """Return the accuracy and the mean log probability of the true class."""
    probabilities = head.probabilities(read_head_inputs(lake, training, [image_id for image_id, _ in rows]))
    column = {name: index for index, name in enumerate(head.classes)}
    true = np.array([column.get(name, -1) for _, name in rows])
    of_true = np.where(true >= 0, probabilities[np.arange(len(rows)), true], 0.0)
    return float(np.mean(probabilities.argmax(axis=1) == true)), float(np.log(np.maximum(of_true, 1e-15)).mean())


def _measure_labels(head: Classifier, lake: Lake, training: Training, rows: Rows) -> tuple[float, float]:
    """Return the mAP and the mean log probability of each label's presence or absence.

    A label that the head does not know has probability 0.
    """
    image_ids, classes = list(dict.fromkeys(image_id for image_id, _ in rows)), sorted({name for _, name in rows})
    by_class = head.probabilities(read_head_inputs(lake, training, image_ids)).T
    columns = dict(zip(head.classes, by_class, strict=True))
    probabilities = np.stack([columns.get(name, np.zeros(len(image_ids))) for name in classes], axis=1)
    truth = make_indicators(image_ids, rows, classes)
    return compute_mean_average_precision(probabilities, truth), -float(
        compute_label_losses(probabilities, truth).mean()
    )
