"""Influences, compared with what a figure does when an image's weight changes a little."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.heads.answers import compute_average_precisions
from tasks.statistics.influences import (
    find_macro_f1_influences,
    find_mean_precision_influences,
    find_micro_f1_influences,
)
from tasks.statistics.shares import Floats

STEP = 1e-6
RANDOM = np.random.default_rng(0)
TRUTH, PREDICTED = RANDOM.random((40, 3)) < 0.4, RANDOM.random((40, 3)) < 0.4
SCORES = RANDOM.integers(0, 8, (40, 3)) / 7  # with ties


def micro_f1(weights: Floats) -> float:
    return float(2 * weights @ (TRUTH & PREDICTED).sum(axis=1) / (weights @ (1.0 * TRUTH + PREDICTED).sum(axis=1)))


def macro_f1(weights: Floats) -> float:
    return float((2 * weights @ (TRUTH & PREDICTED) / (weights @ (1.0 * TRUTH + PREDICTED))).mean())


def mean_precision(weights: Floats) -> float:
    counts = weights[:, None]
    areas = [compute_average_precisions(score, has, counts)[0] for score, has in zip(SCORES.T, TRUTH.T, strict=True)]
    return float(np.mean(areas))


@pytest.mark.parametrize(
    ("figure", "influences"),
    [
        (micro_f1, find_micro_f1_influences(micro_f1(np.ones(40)), PREDICTED, TRUTH)),
        (macro_f1, find_macro_f1_influences(PREDICTED, TRUTH)),
        (mean_precision, find_mean_precision_influences(SCORES, TRUTH)),
    ],
)
def test_each_is_the_derivative_of_its_figure(figure: Callable[[Floats], float], influences: Floats) -> None:
    # Weights start at 5, as counts below 1 are taken for none; the figures depend on the weights' proportions alone.
    start = np.full(40, 5.0)
    slopes = [(figure(start + STEP * row) - figure(start - STEP * row)) / (2 * STEP) for row in np.eye(40)]
    assert influences == pytest.approx(5 * np.array(slopes), abs=1e-6)
    assert influences.sum() == pytest.approx(0, abs=1e-12)


def test_without_labels_nothing_moves() -> None:
    nothing = np.zeros((5, 2), np.bool_)
    assert not find_mean_precision_influences(np.ones((5, 2)), nothing).any()
    assert not find_macro_f1_influences(nothing, nothing).any()
