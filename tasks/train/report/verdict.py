"""An evaluation in words: how good the head is, how certain that is, and what to do next."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.plural import pluralize
from tasks.train.report.stored_evaluation import count_measured
from tasks.train.report.wording import interval, percent

WIDE = 0.1
"""Width of an accuracy's interval from which more test images are worth their while."""

HALF = 0.5


@dataclass(frozen=True)
class Verdict:
    """Sentences about a head. ``weakest_class`` is empty if every class is equally good."""

    summary: str
    basis: str
    weakest_class: str
    next_steps: tuple[str, ...]


def reach_verdict(label_set: str, evaluation: Mapping[str, Any]) -> Verdict:
    """Put an evaluation into words."""
    weakest = find_weakest_class(evaluation)
    return Verdict(
        _summarise(evaluation),
        _name_basis(evaluation),
        _describe_weakest(evaluation, weakest) if weakest else "",
        tuple(_advise(label_set, evaluation, weakest)),
    )


def gives_several_labels(evaluation: Mapping[str, Any]) -> bool:
    """Return whether the evaluated head gives an image any number of labels."""
    return not evaluation["confusion"]


def count_right(evaluation: Mapping[str, Any]) -> int:
    """Count the test images that were predicted right."""
    return round(float(evaluation["metrics"]["accuracy"]) * count_measured(evaluation))


def find_weakest_class(evaluation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find the class whose recall has the lowest upper end, so that one unlucky image does not decide; None if even."""
    classes: list[Mapping[str, Any]] = [row for row in evaluation["classes"] if row["images"]]
    if len({row["recall"] for row in classes}) < 2:  # noqa: PLR2004 - none stands out
        return None
    return min(classes, key=lambda row: (row["recall_high"], row["recall"], row["class"]))


def _summarise(evaluation: Mapping[str, Any]) -> str:
    images, right, metrics = count_measured(evaluation), count_right(evaluation), evaluation["metrics"]
    what = "Every label right on" if gives_several_labels(evaluation) else "Right on"
    number = pluralize(images, "test image")
    some = f"{right:,} of {number}"
    how_many = some if images == 1 else {0: f"none of {number}", images: f"all {number}"}.get(right, some)
    ends = interval(metrics["accuracy_low"], metrics["accuracy_high"], images)
    return f"{what} {how_many} (accuracy {percent(right / images, images)}, 95 % interval {ends})."


def _name_basis(evaluation: Mapping[str, Any]) -> str:
    images, classes = count_measured(evaluation), len(evaluation["classes"])
    which = pluralize(classes, "label") if gives_several_labels(evaluation) else pluralize(classes, "class", "classes")
    return f"Measured on {pluralize(images, 'image')} of {which}. The head was not trained on any of them."


def _describe_weakest(evaluation: Mapping[str, Any], weakest: Mapping[str, Any]) -> str:
    images, share = weakest["images"], weakest["recall"]
    what = "Weakest label" if gives_several_labels(evaluation) else "Weakest class"
    ends = interval(weakest["recall_low"], weakest["recall_high"], images)
    right = f"right on {round(share * images):,} of {pluralize(images, 'image')}"
    line = f'{what}: "{weakest["class"]}", {right} (recall {percent(share, images)}, 95 % interval {ends})'
    confused = [row for row in list_confusions(evaluation) if row["label"] == weakest["class"]]
    often = f', most often mistaken for "{confused[0]["predicted"]}"' if confused else ""
    return f"{line}{often}."


def list_confusions(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the pairs of classes that were mixed up, most frequent first: ``label``, ``predicted``, ``images``, ``of``.

    ``of`` counts the test images of the class ``label``.
    """
    names = [row["class"] for row in evaluation["classes"]]
    pairs = [
        {"label": names[true], "predicted": names[predicted], "images": images, "of": sum(row)}
        for true, row in enumerate(evaluation["confusion"])
        for predicted, images in enumerate(row)
        if images and true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair["images"], pair["of"]))


def _advise(label_set: str, evaluation: Mapping[str, Any], weakest: Mapping[str, Any] | None) -> list[str]:
    metrics, steps = evaluation["metrics"], []
    if metrics["accuracy_high"] < HALF and not gives_several_labels(evaluation):
        steps.append("Try another backbone or cut: the head is wrong more often than right.")
    if (width := metrics["accuracy_high"] - metrics["accuracy_low"]) > WIDE:
        steps.append(f"Label more images: the interval is {100 * width:.0f} percentage points wide.")
    if count_right(evaluation) < count_measured(evaluation):
        step = "Look at the most confident mistakes: some of them may be wrong labels."
        command = f" `frostline review --name {shlex.quote(label_set)}` lists every label that looks wrong."
        steps.append(step if gives_several_labels(evaluation) else step + command)
    if weakest and weakest["recall_high"] < metrics["accuracy"]:
        steps.append(f'Add images of "{weakest["class"]}": it is clearly below the accuracy of all images.')
    return steps or ["Nothing stands out. Every later run measures the head again as images arrive."]
