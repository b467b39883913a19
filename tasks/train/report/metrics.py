"""The metrics of an evaluation, in words."""

from collections.abc import Mapping
from typing import Any

from storage.plural import pluralize
from tasks.train.report.stored_evaluation import count_images, count_measured
from tasks.train.report.verdict import gives_several_labels
from tasks.train.report.wording import interval, percent

BEFORE = "_before"
CALIBRATION = "calibration_error"
WITHOUT_INTERVAL = (CALIBRATION, "cv_mean_average_precision")
"""Figures that have no interval; the latter has none if there are few groups."""
MEANINGS = {
    "accuracy": "share of images whose most probable class is their label",
    "top_3_accuracy": "share of images whose label is among the three most probable classes",
    "top_5_accuracy": "share of images whose label is among the five most probable classes",
    "balanced_accuracy": "mean recall of the classes: each counts the same, however many images it has",
    "macro_f1": "mean F1 of the classes",
    "log_loss": "mean negative log probability of the label, in nats; lower is better",
    CALIBRATION: "mean distance between stated probability and accuracy, less what chance adds; lower is better",
    "cv_accuracy": "share right by heads that never saw the image's group, over training and validation images",
    "false_accept": "share of images accepted as another class by a head that never saw their own",
    "refused": 'share of test images answered "neither"',
}
MEANINGS_OF_LABELS = {
    "cv_mean_average_precision": "area under precision over recall, averaged over the labels, by heads that never saw"
    " the image's group",
    "mean_average_precision": "area under precision over recall, averaged over the labels",
    "accuracy": "share of images with every label right, and no other",
    "micro_f1": "F1 over all pairs of image and label",
    "macro_f1": "mean F1 of the labels",
    "log_loss": "mean negative log probability of each label's presence or absence, in nats; lower is better",
}


def list_metrics(metrics: Mapping[str, float]) -> list[tuple[str, float, float | str, float | str]]:
    """List the metrics: name in words, value, and the ends of the interval, empty if there is none."""
    return [
        (name_metric(key), metrics[key], metrics.get(f"{key}_low", ""), metrics.get(f"{key}_high", ""))
        for key in metrics
        if _is_figure(metrics, key)
    ]


def describe_metrics(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Describe each metric of the final head: ``name``, ``meaning``, ``value`` and the interval's ``ends``."""
    metrics, images = evaluation["metrics"], count_measured(evaluation)
    meanings = MEANINGS_OF_LABELS if gives_several_labels(evaluation) else MEANINGS
    rows = []
    for key in (key for key in metrics if _is_figure(metrics, key) and not key.endswith(BEFORE)):
        value, name = metrics[key], name_metric(key)
        text = f"{value:.3f}" if "log_loss" in key else percent(value, images)
        ends = _describe_interval(metrics, key, images)
        rows.append({"name": name[0].upper() + name[1:], "meaning": meanings.get(key, ""), "value": text, "ends": ends})
    return rows


def _is_figure(metrics: Mapping[str, float], key: str) -> bool:
    """Whether a key is a figure by itself, not the end of an interval or a number of the head, such as a threshold."""
    return f"{key}_high" in metrics or key.removesuffix(BEFORE) in WITHOUT_INTERVAL


def _describe_interval(metrics: Mapping[str, float], key: str, images: int) -> str:
    if f"{key}_high" not in metrics:
        return ""
    low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
    return f"{low:.3f} to {high:.3f}" if "log_loss" in key else interval(low, high, images)


def describe_calibration(evaluation: Mapping[str, Any]) -> str:
    """Describe what the temperature did; empty for heads that give several labels, which have none."""
    metrics, images = evaluation["metrics"], count_measured(evaluation)
    temperature, error = metrics.get("temperature"), f"calibration_error{BEFORE}"
    if temperature is None or error not in metrics:
        return ""
    if temperature == 1:
        return "The temperature is 1: probabilities are as trained."
    before, after = percent(metrics[error], images), percent(metrics["calibration_error"], images)
    return (
        f"Dividing the logits by a temperature of {temperature:.2f} changed the calibration error from {before} to "
        f"{after}."
    )


def describe_rejection(metrics: Mapping[str, float]) -> str:
    """Describe when the head answers "neither"; empty if it never does."""
    if "refuse_below" not in metrics:
        return ""
    threshold = f"{metrics['refuse_below']:.4f}"
    if "refuse_nearest" not in metrics:  # a head of an earlier release
        return f"if no class has a probability of {threshold}"
    images = pluralize(int(metrics["refuse_nearest"]), "training image has", "training images have")
    return f"if fewer than {images} a cosine of at least {threshold} to the image"


def describe_prices(evaluation: Mapping[str, Any], rate: float | None) -> list[dict[str, Any]]:
    """Describe what each false accept rate costs: ``false_accept`` and ``refused`` in words, and if it is ``chosen``.

    Empty for heads that never answer "neither", and for those of earlier releases, which did not measure it.
    """
    images = count_images(evaluation)["validation"]
    return [
        {
            "false_accept": f"{100 * price['false_accept']:g} %",
            "refused": percent(price["refused"], images),
            "chosen": price["false_accept"] == rate,
        }
        for price in evaluation.get("prices", ())
    ]


def name_metric(key: str) -> str:
    """Spell out a metric's key: "cross-validated macro F1" for ``cv_macro_f1``."""
    words = key.replace(BEFORE, " before scaling").replace("_", " ").replace("f1", "F1")
    return f"cross-validated {words.removeprefix('cv ')}" if words.startswith("cv ") else words
