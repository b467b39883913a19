"""The gate: a version becomes champion if it is the first, or if a paired test shows that it is better."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.plural import pluralize
from storage.tables.features import filter_known
from storage.tables.trainings import Training, find_training, head_path, list_classes, list_split
from tasks.encoder.layers import open_layers
from tasks.heads.answers import NEITHER, is_multi_label, make_indicators, predict_classes
from tasks.heads.heads import Classifier, Floats
from tasks.heads.load import read_head, read_head_inputs
from tasks.register.gate.paired import Comparison, compare_accuracies, compare_mean_average_precisions
from tasks.register.settings import GateSettings

BY_HAND = "compare by hand"
NAMED = 5
"""The number of missing classes that a reason names."""

Rows = list[tuple[str, str]]
"""Image ids with a class of each."""


@dataclass(frozen=True)
class GateDecision:
    """Whether a version becomes champion, the reason in words, and the images with classes that decided it."""

    promoted: bool
    reason: str
    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Contender:
    """One of the two models that are compared."""

    training: Training
    head: Classifier


def compare_with_champion(
    home: Home, lake: Lake, training: Training, champion_id: str | None, settings: GateSettings
) -> GateDecision:
    """Compare a training's head with the champion's on the test images of both that neither was trained on.

    A single-label head is compared by accuracy and McNemar's test; a refusal ("neither") counts as an error. A
    multi-label head is compared by mAP and a paired bootstrap.

    Args:
        home: The home of the heads.
        lake: The lake of both trainings.
        training: The new version's training.
        champion_id: The champion's training; None if there is no champion.
        settings: The confidence, the margin and the least number of images.
    """
    if champion_id is None:
        return _accept_first(lake, training, settings)
    if champion_id == training.training_id:
        return GateDecision(promoted=True, reason="is already the champion")
    champion = find_training(lake, champion_id) if champion_id else None
    if champion is None or not head_path(home, champion.training_id).exists():
        return _refuse(f"the champion's head is not in this lake: {BY_HAND}")
    new, old = (Contender(each, read_head(home, each, open_layers)) for each in (training, champion))
    return _find_obstacle(new, old) or _compare(lake, new, old, settings)


def _accept_first(lake: Lake, training: Training, settings: GateSettings) -> GateDecision:
    rows = list_split(lake, training.training_id, "test")
    images = len(dict(rows))
    few = "" if images >= settings.min_images else f", measured on only {pluralize(images, 'test image')}"
    return GateDecision(promoted=True, reason=f"first{few}", rows=tuple(rows))


def _refuse(reason: str) -> GateDecision:
    return GateDecision(promoted=False, reason=reason)


def _find_obstacle(new: Contender, old: Contender) -> GateDecision | None:
    """Refuse what no test can decide."""
    if is_multi_label(new.head) != is_multi_label(old.head):
        return _refuse(f"one head gives a single class, the other several labels: {BY_HAND}")
    missing = sorted(set(old.head.classes) - set(new.head.classes))
    if missing:
        names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        classes = pluralize(len(missing), "class", "classes")
        return _refuse(f"lacks {classes} of the champion ({names}): {BY_HAND}")
    return None


def _compare(lake: Lake, new: Contender, old: Contender, settings: GateSettings) -> GateDecision:
    rows = _list_rows(lake, new.training, old.training)
    if not rows:
        return _refuse(f"the two models share no test images: {BY_HAND}")
    images = len(dict(rows))
    if images < settings.min_images:
        least = pluralize(settings.min_images, "is needed", "are needed")
        reason = f"too few images: {images} that neither model was trained on, {least} ({BY_HAND})"
        return GateDecision(promoted=False, reason=reason, rows=tuple(rows))
    measure = _compare_labels if is_multi_label(new.head) else _compare_classes
    promoted, reason = measure(lake, new, old, rows, settings)
    return GateDecision(promoted, reason, tuple(rows))


def _list_rows(lake: Lake, training: Training, champion: Training) -> Rows:
    """List the test rows of both that neither was trained on, with today's classes where only the champion has them."""
    fitted, tests = set[str](), list[Rows]()
    for each in (training, champion):
        for split in ("train", "validation"):
            fitted |= {image_id for image_id, _ in list_split(lake, each.training_id, split)}
        tests.append(list_split(lake, each.training_id, "test"))
    own = {image_id for image_id, _ in tests[0]}
    others = [image_id for image_id in dict(tests[1]) if image_id not in own]
    rows = tests[0] + list_classes(lake, training.label_set, others, several=training.kind == "sigmoid")
    embedded = {image_id for image_id, _ in rows} - fitted
    for recipe_id in {training.recipe_id, *training.averaged, champion.recipe_id, *champion.averaged}:
        embedded &= filter_known(lake, recipe_id, sorted(embedded))
    return [row for row in rows if row[0] in embedded]


def _compare_classes(
    lake: Lake, new: Contender, old: Contender, rows: Rows, settings: GateSettings
) -> tuple[bool, str]:
    true = np.array([name for _, name in rows])
    answers = [_predict(lake, each, rows) for each in (new, old)]
    right = [given == true for given in answers]
    comparison = compare_accuracies(right[0], right[1], settings.confidence)
    shared = np.isin(true, old.head.classes)
    on_shared = compare_accuracies(right[0][shared], right[1][shared], settings.confidence) if shared.any() else None
    promoted, verdict = _judge(comparison, on_shared, settings)
    refusals = [int((given == NEITHER).sum()) for given in answers]
    refused = f", refuses {refusals[0]} against {refusals[1]}" if any(refusals) else ""
    return promoted, f"{verdict}: {_describe('accuracy', comparison, settings)}{refused}"


def _predict(lake: Lake, contender: Contender, rows: Rows) -> npt.NDArray[np.str_]:
    inputs = read_head_inputs(lake, contender.training, [image_id for image_id, _ in rows])
    return predict_classes(contender.head, inputs, contender.head.probabilities(inputs))


def _compare_labels(lake: Lake, new: Contender, old: Contender, rows: Rows, settings: GateSettings) -> tuple[bool, str]:
    image_ids, classes = list(dict.fromkeys(image_id for image_id, _ in rows)), sorted({name for _, name in rows})
    truth = make_indicators(image_ids, rows, classes)
    scores = [_score_labels(lake, each, image_ids, classes) for each in (new, old)]
    comparison = compare_mean_average_precisions(scores[0], scores[1], truth, settings.confidence)
    shared = [at for at, name in enumerate(classes) if name in old.head.classes]
    columns = scores[0][:, shared], scores[1][:, shared], truth[:, shared]
    on_shared = compare_mean_average_precisions(*columns, settings.confidence) if shared else None
    promoted, verdict = _judge(comparison, on_shared, settings)
    return promoted, f"{verdict}: {_describe('mAP', comparison, settings)}"


def _score_labels(lake: Lake, contender: Contender, image_ids: list[str], classes: list[str]) -> Floats:
    """Return each label's probability [n, classes]; 0 for a label that the head does not know."""
    by_class = contender.head.probabilities(read_head_inputs(lake, contender.training, image_ids)).T
    columns = dict(zip(contender.head.classes, by_class, strict=True))
    return np.stack([columns.get(name, np.zeros(len(image_ids))) for name in classes], axis=1)


def _judge(comparison: Comparison, on_shared: Comparison | None, settings: GateSettings) -> tuple[bool, str]:
    """Decide whether the new model is promoted, and name the verdict.

    Better on all images is not enough if it is worse on the classes that the champion knows: a model gains by every
    class that the champion never saw.
    """
    if comparison.high < 0:
        return False, "worse"
    if on_shared and (on_shared.high < 0 or on_shared.difference < -settings.margin):
        return False, f"worse on the champion's classes ({on_shared.difference * 100:+.1f} points)"
    if comparison.p <= 1 - settings.confidence:
        return True, "better"
    if comparison.low >= -settings.margin:
        return settings.promote == "not-worse", "not worse"
    return False, "no clear difference"


def _describe(figure: str, comparison: Comparison, settings: GateSettings) -> str:
    level = round((2 * settings.confidence - 1) * 100)
    interval = f"{comparison.low * 100:+.1f} to {comparison.high * 100:+.1f}"
    return (
        f"{figure} {comparison.new:.4f} against {comparison.old:.4f} on {pluralize(comparison.images, 'image')}, "
        f"difference {comparison.difference * 100:+.1f} points ({level} % interval {interval}), p = {comparison.p:.2g}"
    )
