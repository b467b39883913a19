"""Multi-label heads: an image has any number of labels, each with a sigmoid and a threshold of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import (
    LabelIndicators,
    apply_thresholds,
    compute_average_precisions,
    compute_label_losses,
    compute_mean_average_precision,
    join_labels,
    make_indicators,
    name_labels,
)
from tasks.heads.heads import Floats, Head, count_views
from tasks.statistics.influences import (
    find_macro_f1_influences,
    find_mean_precision_influences,
    find_micro_f1_influences,
)
from tasks.statistics.shares import find_figure_interval
from tasks.train.fit.axes import find_principal_axes
from tasks.train.fit.candidates import Candidate
from tasks.train.fit.sigmoid import fit_sigmoids
from tasks.train.measure.evaluate import Evaluation, Table, find_slices, tabulate_classes
from tasks.train.measure.metrics import average_ratios, name_interval, name_mean, name_share
from tasks.train.rows.split_features import SplitFeatures
from tasks.train.rows.splits import SPLITS, Split
from tasks.train.settings import TrainSettings

DEFAULT_THRESHOLD = 0.5
"""The threshold of a label that no validation image has."""

MultiLabelFeatures = tuple[Matrix, LabelIndicators]
"""Features [n, dim] and label indicators [n, labels]."""


@dataclass(frozen=True)
class LabelCandidate(Candidate):
    """A candidate with a multi-label head."""

    head: Head


def train_labels(
    inputs: SplitFeatures, rows: Sequence[tuple[str, str, Split]], facts: pa.Table, settings: TrainSettings
) -> tuple[tuple[LabelCandidate, ...], Evaluation]:
    """Fit sigmoid heads, choose the best on validation images, and measure it on test images.

    Args:
        inputs: Features by split, with images in the order of the rows.
        rows: (image_id, class, split) for each label of an image; sorted by split, and an image's rows are adjacent.
        facts: Facts of the test images; see :func:`tasks.train.measure.evaluate.find_slices`.
        settings: The hyperparameters to choose from.
    """
    split_of = {image_id: split for image_id, _, split in rows}
    classes = tuple(sorted({name for _, name, _ in rows}))
    truth = make_indicators(list(split_of), ((image_id, name) for image_id, name, _ in rows), classes)
    splits = np.array(list(split_of.values()))
    parts = [truth[splits == split] for split in SPLITS]
    train, validation = (inputs.train, parts[0][inputs.image_rows]), (inputs.validation, parts[1])
    candidates = fit_label_heads(train, validation, classes, settings)
    return candidates, evaluate_labels(candidates[0].head, (inputs.test, parts[2]), facts)


def fit_label_heads(
    train: MultiLabelFeatures, validation: MultiLabelFeatures, classes: tuple[str, ...], settings: TrainSettings
) -> tuple[LabelCandidate, ...]:
    """Fit a head with thresholds for each strength of L2, and sort them by validation loss, lowest first."""
    features, truth = train
    axes = find_principal_axes(features, np.full(len(features), 1 / len(features)))
    strengths = sorted(set(settings.l2), reverse=True)
    fitted = fit_sigmoids(axes, features, truth, strengths, settings.iterations, balanced=settings.class_weights)
    candidates = []
    for l2, (weights, bias) in zip(strengths, fitted, strict=True):
        views = count_views(features, validation[0])
        thresholds = (DEFAULT_THRESHOLD,) * len(classes)
        head = Head(classes, axes.mean, axes.scale, weights, bias, thresholds=thresholds, views=views)
        probabilities = head.probabilities(validation[0])
        head = replace(head, thresholds=choose_thresholds(probabilities, validation[1]))
        loss = float(compute_label_losses(probabilities, validation[1]).mean())
        candidates.append(LabelCandidate({"head": "sigmoid", "l2": l2}, head, loss))
    return tuple(sorted(candidates, key=lambda candidate: candidate.loss))


def choose_thresholds(probabilities: Floats, truth: LabelIndicators) -> tuple[float, ...]:
    """Choose the threshold with the highest F1 on validation images for each label; of equals, the highest.

    A label that no validation image has gets 0.5.

    Of N(t) images with a probability of at least t, let TP(t) have the label, of P that have it in all. Precision is
    TP / N and recall TP / P, so that F1(t), their harmonic mean, is 2 TP(t) / (N(t) + P). It changes only at the
    images' own probabilities: sorted once, two cumulative sums give it at all of them. (For calibrated probabilities,
    the best threshold is half of the best F1, and never above 1/2: Lipton et al., Optimal thresholding of classifiers
    to maximize F1 measure, 2014.) All thresholds between the last image above and the first below are equivalent; the
    midpoint is the farthest from both.

    Args:
        probabilities: Probabilities [n, labels].
        truth: Whether an image has a label [n, labels].
    """
    return tuple(_choose_threshold(each, has) for each, has in zip(probabilities.T, truth.T, strict=True))


def _choose_threshold(probabilities: Floats, has: LabelIndicators) -> float:
    if not has.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    ends = np.flatnonzero(np.append(np.diff(falling) < 0, True))  # images of equal probability are treated alike
    f1 = 2 * np.cumsum(has[order])[ends] / (ends + 1 + has.sum())
    best = ends[f1.argmax()]
    below = np.append(falling, 0.0)[best + 1]
    middle = (falling[best] + below) / 2
    return float(middle if middle > below else falling[best])  # no float may lie between the two


def evaluate_labels(head: Head, test: MultiLabelFeatures, facts: pa.Table) -> Evaluation:
    """Measure a head on images and their labels; a slice's accuracy is the share of exact matches."""
    features, truth = test
    probabilities = head.probabilities(features)
    predicted = apply_thresholds(head, probabilities)
    sets = np.array([join_labels(names) for names in name_labels(head.classes, truth)])
    return Evaluation(
        measure_labels(probabilities, predicted, truth),
        _tabulate(head, probabilities, predicted, truth),
        (),
        {},
        find_slices((predicted == truth).all(axis=1), sets, facts),
    )


def measure_labels(probabilities: Floats, predicted: LabelIndicators, truth: LabelIndicators) -> dict[str, float]:
    """Return each metric with its 95 % confidence interval, under its name with ``_low`` and ``_high``.

    - ``mean_average_precision`` (mAP): average precision, averaged over the labels that some image has;
    - ``accuracy``: the share of images whose predicted labels match exactly;
    - ``micro_f1`` over all pairs of image and label, ``macro_f1`` averaged over labels that occur or are predicted;
    - ``log_loss``: in nats, for each image and label.

    Args:
        probabilities: Probabilities [n, labels].
        predicted: Predicted labels [n, labels].
        truth: True labels [n, labels].
    """
    hits, sums = (predicted & truth).sum(axis=0), predicted.sum(axis=0) + truth.sum(axis=0)
    micro = 2 * float(hits.sum()) / max(float(sums.sum()), 1.0)
    figures = {
        "micro_f1": (micro, find_micro_f1_influences(micro, predicted, truth)),
        "macro_f1": (average_ratios(2.0 * hits, sums), find_macro_f1_influences(predicted, truth)),
    }
    precision = compute_mean_average_precision(probabilities, truth)
    ends = find_figure_interval(precision, find_mean_precision_influences(probabilities, truth))
    metrics = name_interval("mean_average_precision", precision, ends)
    metrics |= name_share("accuracy", (predicted == truth).all(axis=1))
    for name, (value, influences) in figures.items():
        metrics |= name_interval(name, value, find_figure_interval(value, influences))
    return metrics | name_mean("log_loss", compute_label_losses(probabilities, truth))


def _tabulate(head: Head, probabilities: Floats, predicted: LabelIndicators, truth: LabelIndicators) -> Table:
    """Tabulate the labels with their average precision and threshold."""
    once = np.ones((len(truth), 1))
    areas = [
        compute_average_precisions(score, has, once)[0] for score, has in zip(probabilities.T, truth.T, strict=True)
    ]
    return tabulate_classes(
        head.classes,
        (predicted & truth).sum(axis=0),
        truth.sum(axis=0),
        predicted.sum(axis=0),
        average_precision=np.nan_to_num(areas).tolist(),
        threshold=head.thresholds,
    )
