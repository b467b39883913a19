"""The headline figures of a head that gives labels, each with its interval."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from storage.answers import Marks, find_average_precisions, find_label_losses
from storage.heads import Floats, Head
from tasks.train.figures import average_shares, find_ends
from tasks.train.intervals import draw, wilson


def measure_labels(chances: Floats, marks: Marks, truth: Marks, seed: int) -> dict[str, float]:
    """Give each figure under its name, and the ends of its 95 % interval under that with ``_low`` and ``_high``.

    - ``mean_average_precision`` (mAP), the area under precision over recall, in steps, averaged over the labels that an
      image has;
    - ``accuracy``, the share of images whose labels are found, all and no other;
    - ``micro_f1`` of all (image, label) together, ``macro_f1`` averaged over the labels that an image has or is given;
    - ``log_loss``, nats an image and label.

    Args:
        chances: probabilities [n, labels].
        marks: the labels that the head gives, [n, labels].
        truth: the labels that the images have, [n, labels].
        seed: of the resamples, which are as in :func:`tasks.train.figures.measure`.
    """
    exact, losses = (marks == truth).all(axis=1), find_label_losses(chances, truth)
    table = csr_array(np.hstack([np.stack([exact, losses], axis=1), marks & truth, truth, marks]))
    images = len(truth)
    found = _figure(np.ones((1, images)), table, chances, truth)
    parts = [_figure(counts, table, chances, truth) for counts in draw(images, seed)]
    metrics: dict[str, float] = {}
    for name, (value,) in found.items():
        spread = np.concatenate([part[name] for part in parts])
        low, high = find_ends(name, float(value), spread, images)
        metrics |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
    return metrics


def _figure(counts: Floats, table: csr_array, chances: Floats, truth: Marks) -> dict[str, Floats]:
    """Make the figures, [k] each, of images that count so often, [k, n]."""
    sums, labels, images = counts @ table, truth.shape[1], truth.shape[0]
    hits, true, given = np.split(sums[:, 2:], [labels, 2 * labels], axis=1)
    return {
        "mean_average_precision": average_areas(counts, chances, truth),
        "accuracy": sums[:, 0] / images,
        "micro_f1": 2 * hits.sum(axis=1) / np.maximum((true + given).sum(axis=1), 1),
        "macro_f1": average_shares(2 * hits, true + given),
        "log_loss": sums[:, 1] / images,
    }


def average_areas(counts: Floats, chances: Floats, truth: Marks) -> Floats:
    """Give the mAP [k] of images that count so often [k, n]; a label that a resample lacks is left out of it."""
    columns, total, there = np.ascontiguousarray(counts.T), np.zeros(len(counts)), np.zeros(len(counts))
    for score, has in zip(chances.T, truth.T, strict=True):
        areas = find_average_precisions(score, has, columns)
        total += np.nan_to_num(areas)
        there += np.isfinite(areas)
    return total / np.maximum(there, 1)


def tabulate_labels(head: Head, chances: Floats, marks: Marks, truth: Marks) -> tuple[dict[str, Any], ...]:
    """Give precision, recall with its 95 % interval, F1, average precision, threshold and images of each label."""
    hits, images, given = (marks & truth).sum(axis=0), truth.sum(axis=0), marks.sum(axis=0)
    low, high = wilson(hits, images)
    once = np.ones((len(truth), 1))
    areas = [find_average_precisions(score, has, once)[0] for score, has in zip(chances.T, truth.T, strict=True)]
    columns = {
        "class": list(head.classes),
        "precision": (hits / np.maximum(given, 1)).tolist(),
        "recall": (hits / np.maximum(images, 1)).tolist(),
        "recall_low": low.tolist(),
        "recall_high": high.tolist(),
        "f1": (2 * hits / np.maximum(images + given, 1)).tolist(),
        "average_precision": np.nan_to_num(areas).tolist(),
        "threshold": list(head.thresholds),
        "images": images.tolist(),
    }
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
