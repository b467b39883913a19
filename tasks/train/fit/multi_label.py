"""Multi-label: an image has any number of labels, each told by a sigmoid of its own, from a threshold of its own on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import (
    Marks,
    find_average_precisions,
    find_label_losses,
    join_labels,
    mark_known,
    mark_labels,
    name_labels,
)
from tasks.heads.heads import Floats, Head, count_views
from tasks.train.fit.axes import find_axes
from tasks.train.fit.candidates import Candidate
from tasks.train.fit.sigmoid import fit_sigmoids
from tasks.train.measure.evaluate import Evaluation, Table, find_slices, tabulate_classes
from tasks.train.measure.figures import average_shares, bound
from tasks.train.measure.intervals import draw
from tasks.train.rows.inputs import Inputs
from tasks.train.rows.splits import SPLITS, Split
from tasks.train.settings import TrainSettings

UNSURE = 0.5
"""The threshold of a label that no validation image has."""

Images = tuple[Matrix, Marks]


@dataclass(frozen=True)
class LabelCandidate(Candidate):
    """A candidate whose head gives labels."""

    head: Head


def train_labels(
    inputs: Inputs, rows: Sequence[tuple[str, str, Split]], facts: pa.Table, settings: TrainSettings
) -> tuple[tuple[LabelCandidate, ...], Evaluation]:
    """Fit sigmoid heads, choose among them on validation, and measure the best on test.

    Args:
        inputs: features by split, their images in the order of the rows.
        rows: (image_id, class, split), one for each label of an image, which are together, by split.
        facts: of the test images, as :func:`tasks.train.measure.evaluate.find_slices` has them.
        settings: what there is to choose from.
    """
    places = {image_id: split for image_id, _, split in rows}
    classes = tuple(sorted({name for _, name, _ in rows}))
    truth = mark_known(list(places), ((image_id, name) for image_id, name, _ in rows), classes)
    splits = np.array(list(places.values()))
    marks = [truth[splits == split] for split in SPLITS]
    train, validation = (inputs.train, marks[0][inputs.numbers]), (inputs.validation, marks[1])
    candidates = fit_label_heads(train, validation, classes, settings)
    return candidates, evaluate_labels(candidates[0].head, (inputs.test, marks[2]), facts, settings.seed)


def fit_label_heads(
    train: Images, validation: Images, classes: tuple[str, ...], settings: TrainSettings
) -> tuple[LabelCandidate, ...]:
    """Fit a head for each strength of L2, with thresholds, and give them by their loss on validation, best first."""
    features, truth = train
    axes = find_axes(features, np.full(len(features), 1 / len(features)))
    strengths = sorted(set(settings.l2), reverse=True)
    fitted = fit_sigmoids(axes, features, truth, strengths, settings.iterations, balanced=settings.class_weights)
    candidates = []
    for l2, (weights, bias) in zip(strengths, fitted, strict=True):
        views = count_views(features, validation[0])
        head = Head(classes, axes.mean, axes.scale, weights, bias, thresholds=(UNSURE,) * len(classes), views=views)
        chances = head.probabilities(validation[0])
        head = replace(head, thresholds=choose_thresholds(chances, validation[1]))
        loss = float(find_label_losses(chances, validation[1]).mean())
        candidates.append(LabelCandidate({"head": "sigmoid", "l2": l2}, head, loss))
    return tuple(sorted(candidates, key=lambda candidate: candidate.loss))


def choose_thresholds(probabilities: Floats, truth: Marks) -> tuple[float, ...]:
    """Give each label the threshold of its highest F1 on validation images, the highest of equals.

    A label that no validation image has gets 0.5.

    Of the images with a probability of t and more, let TP(t) have the label; P images have it in all. With N(t) images
    answered, precision is TP / N and recall TP / P, so that F1(t), their harmonic mean, is 2 TP(t) / (N(t) + P). As t
    falls, it changes at the images' own probabilities alone: sorted once, two running sums give it at every one of
    them, and the best is found among n candidates. (For probabilities that are as often right as they say, the best
    threshold is half of the best F1, and never above 1/2: Lipton et al., Optimal thresholding of classifiers to
    maximize F1 measure, 2014.) Any t between the last image that is answered and the first that is not gives the same;
    the middle is the farthest from both.

    Args:
        probabilities: [n, labels].
        truth: whether an image has a label, [n, labels].
    """
    return tuple(_choose_threshold(each, has) for each, has in zip(probabilities.T, truth.T, strict=True))


def _choose_threshold(probabilities: Floats, has: Marks) -> float:
    if not has.any():
        return UNSURE
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    ends = np.flatnonzero(np.append(np.diff(falling) < 0, True))  # images of one probability come together
    f1 = 2 * np.cumsum(has[order])[ends] / (ends + 1 + has.sum())
    best = ends[f1.argmax()]
    below = np.append(falling, 0.0)[best + 1]
    middle = (falling[best] + below) / 2
    return float(middle if middle > below else falling[best])  # nothing may lie between the two


def evaluate_labels(head: Head, test: Images, facts: pa.Table, seed: int) -> Evaluation:
    """Measure a head on images and their labels; slices are of images whose labels are all found, and no other."""
    features, truth = test
    chances = head.probabilities(features)
    marks = mark_labels(head, chances)
    sets = np.array([join_labels(names) for names in name_labels(head.classes, truth)])
    return Evaluation(
        measure_labels(chances, marks, truth, seed),
        _tabulate(head, chances, marks, truth),
        (),
        {},
        find_slices((marks == truth).all(axis=1), sets, facts),
    )


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
        seed: of the resamples, which are as in :func:`tasks.train.measure.figures.measure`.
    """
    exact, losses = (marks == truth).all(axis=1), find_label_losses(chances, truth)
    table = csr_array(np.hstack([np.stack([exact, losses], axis=1), marks & truth, truth, marks]))
    images = len(truth)
    found = _figure(np.ones((1, images)), table, chances, truth)
    parts = [_figure(counts, table, chances, truth) for counts in draw(images, seed)]
    return bound(found, {name: np.concatenate([part[name] for part in parts]) for name in found}, images)


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


def _tabulate(head: Head, chances: Floats, marks: Marks, truth: Marks) -> Table:
    """Give average precision and threshold of each label beside what each class has."""
    once = np.ones((len(truth), 1))
    areas = [find_average_precisions(score, has, once)[0] for score, has in zip(chances.T, truth.T, strict=True)]
    return tabulate_classes(
        head.classes,
        (marks & truth).sum(axis=0),
        truth.sum(axis=0),
        marks.sum(axis=0),
        average_precision=np.nan_to_num(areas).tolist(),
        threshold=head.thresholds,
    )
