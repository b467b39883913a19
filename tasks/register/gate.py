"""The gate: a version becomes champion when it is the first, or better than the champion on the same test rows."""

from dataclasses import dataclass

import numpy as np

from storage.features import keep_known, read_features
from storage.lake import Lake
from storage.paths import Home
from storage.trainings import Training, find_training, head_path, list_split, read_head


@dataclass(frozen=True)
class Verdict:
    """Whether a version passes, and why, in words."""

    promoted: bool
    reason: str


def judge(home: Home, lake: Lake, training: Training, champion_id: str | None) -> Verdict:
    """Compare a training's head with the champion's on test images that neither was trained on.

    The higher accuracy wins; at the same accuracy the lower log loss does.
    """
    if champion_id == training.training_id:
        return Verdict(promoted=True, reason="is the champion already")
    champion = find_training(lake, champion_id) if champion_id else None
    if champion_id is None:
        return Verdict(promoted=True, reason="first")
    if champion is None or not head_path(home, champion.training_id).exists():
        return Verdict(promoted=False, reason="the champion's head is not in this lake: compare by hand")
    rows = _shared_rows(lake, training, champion)
    if not rows:
        return Verdict(promoted=False, reason="no test image that both have features of: measure by hand")
    new, old = (_measure(home, lake, each, rows) for each in (training, champion))
    words = (
        f"accuracy {new[0]:.4f} against {old[0]:.4f}, log loss {-new[1]:.4f} against {-old[1]:.4f}, {len(rows)} images"
    )
    return Verdict(promoted=new > old, reason=f"{'better' if new > old else 'not better'}: {words}")


def _shared_rows(lake: Lake, training: Training, champion: Training) -> list[tuple[str, str]]:
    """List the test rows that the champion was not trained on and has features of."""
    seen = {
        image_id for split in ("train", "validation") for image_id, _ in list_split(lake, champion.training_id, split)
    }
    rows = [
        (image_id, name) for image_id, name in list_split(lake, training.training_id, "test") if image_id not in seen
    ]
    known = keep_known(lake, champion.recipe_id, [image_id for image_id, _ in rows])
    return [(image_id, name) for image_id, name in rows if image_id in known]


def _measure(home: Home, lake: Lake, training: Training, rows: list[tuple[str, str]]) -> tuple[float, float]:
    """Give accuracy and mean log probability of the true class."""
    head = read_head(home, training)
    features = read_features(lake, training.recipe_id, [image_id for image_id, _ in rows])
    probabilities = head.probabilities(features)
    column = {name: index for index, name in enumerate(head.classes)}
    true = np.array([column.get(name, -1) for _, name in rows])
    given = np.where(true >= 0, probabilities[np.arange(len(rows)), true], 0.0)
    return float(np.mean(probabilities.argmax(axis=1) == true)), float(np.log(np.maximum(given, 1e-15)).mean())
