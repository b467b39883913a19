"""Multi-label: an image has any number of labels, each told by a sigmoid of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from storage.answers import Marks, find_label_losses, mark_known, mark_labels, name_labels, tell_labels
from storage.heads import Head, count_views
from storage.vectors import Matrix
from tasks.train.axes import find_axes
from tasks.train.evaluate import Evaluation
from tasks.train.inputs import Inputs
from tasks.train.label_figures import measure_labels, tabulate_labels
from tasks.train.settings import TrainSettings
from tasks.train.sigmoid import fit_sigmoids
from tasks.train.slices import find_slices
from tasks.train.splits import SPLITS, Split
from tasks.train.sweep import Candidate
from tasks.train.thresholds import UNSURE, choose_thresholds

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
        facts: of the test images, as :func:`tasks.train.slices.find_slices` has them.
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


def evaluate_labels(head: Head, test: Images, facts: pa.Table, seed: int) -> Evaluation:
    """Measure a head on images and their labels; slices are of images whose labels are all found, and no other."""
    features, truth = test
    chances = head.probabilities(features)
    marks = mark_labels(head, chances)
    sets = np.array([tell_labels(names) for names in name_labels(head.classes, truth)])
    return Evaluation(
        measure_labels(chances, marks, truth, seed),
        tabulate_labels(head, chances, marks, truth),
        (),
        {},
        find_slices((marks == truth).all(axis=1), sets, facts),
    )
