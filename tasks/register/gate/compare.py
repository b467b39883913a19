"""The gate: a version becomes champion when it is the first, or better than the champion on the same test rows."""

from dataclasses import dataclass

import numpy as np

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.features import filter_known
from storage.tables.trainings import Training, find_training, head_path, list_split
from tasks.encoder.layers import open_layers
from tasks.heads.answers import find_label_losses, find_mean_average_precision, gives_labels, mark_known
from tasks.heads.heads import Classifier
from tasks.heads.load import read_head, read_head_inputs


@dataclass(frozen=True)
class GateDecision:
    """Whether a version passes, and why, in words."""

    promoted: bool
    reason: str


def compare_with_champion(home: Home, lake: Lake, training: Training, champion_id: str | None) -> GateDecision:
    """Compare a training's head with the champion's on test images that neither was trained on.

    The higher accuracy wins, of heads that give labels the higher mAP; at the same one the lower log loss does. A head
    that may answer "neither" is judged by its likeliest class, as its champion is.
    """
    if champion_id == training.training_id:
        return GateDecision(promoted=True, reason="is the champion already")
    champion = find_training(lake, champion_id) if champion_id else None
    if champion_id is None:
        return GateDecision(promoted=True, reason="first")
    if champion is None or not head_path(home, champion.training_id).exists():
        return GateDecision(promoted=False, reason="the champion's head is not in this lake: compare by hand")
    heads = [read_head(home, each, open_layers) for each in (training, champion)]
    labels = [gives_labels(head) for head in heads]
    if labels[0] != labels[1]:
        return GateDecision(promoted=False, reason="one gives an image one class, the other several: compare by hand")
    rows = _shared_rows(lake, training, champion)
    if not rows:
        return GateDecision(promoted=False, reason="no test image that both have features of: measure by hand")
    name, measure = ("mAP", _measure_labels) if labels[0] else ("accuracy", _measure)
    new, old = (measure(head, lake, each, rows) for head, each in zip(heads, (training, champion), strict=True))
    images = len({image_id for image_id, _ in rows})
    words = f"{name} {new[0]:.4f} against {old[0]:.4f}, log loss {-new[1]:.4f} against {-old[1]:.4f}, {images} images"
    return GateDecision(promoted=new > old, reason=f"{'better' if new > old else 'not better'}: {words}")


def _shared_rows(lake: Lake, training: Training, champion: Training) -> list[tuple[str, str]]:
    """List the test rows that the champion was not trained on and has features of."""
    seen = {
        image_id for split in ("train", "validation") for image_id, _ in list_split(lake, champion.training_id, split)
    }
    rows = [
        (image_id, name) for image_id, name in list_split(lake, training.training_id, "test") if image_id not in seen
    ]
    known = filter_known(lake, champion.recipe_id, [image_id for image_id, _ in rows])
    return [(image_id, name) for image_id, name in rows if image_id in known]


def _measure(head: Classifier, lake: Lake, training: Training, rows: list[tuple[str, str]]) -> tuple[float, float]:
    """Give accuracy and mean log probability of the true class."""
    probabilities = head.probabilities(read_head_inputs(lake, training, [image_id for image_id, _ in rows]))
    column = {name: index for index, name in enumerate(head.classes)}
    true = np.array([column.get(name, -1) for _, name in rows])
    given = np.where(true >= 0, probabilities[np.arange(len(rows)), true], 0.0)
    return float(np.mean(probabilities.argmax(axis=1) == true)), float(np.log(np.maximum(given, 1e-15)).mean())


def _measure_labels(
    head: Classifier, lake: Lake, training: Training, rows: list[tuple[str, str]]
) -> tuple[float, float]:
    """Give mAP and mean log probability of labels and lacks; a label that the head does not know it gives to none."""
    image_ids, classes = list(dict.fromkeys(image_id for image_id, _ in rows)), sorted({name for _, name in rows})
    known = head.probabilities(read_head_inputs(lake, training, image_ids))
    columns = dict(zip(head.classes, known.T, strict=True))
    probabilities = np.stack([columns.get(name, np.zeros(len(image_ids))) for name in classes], axis=1)
    truth = mark_known(image_ids, rows, classes)
    return find_mean_average_precision(probabilities, truth), -float(find_label_losses(probabilities, truth).mean())
