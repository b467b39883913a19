"""Sigmoid heads, compared with scikit-learn, and their thresholds, compared with all others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import LabelIndicators
from tasks.heads.heads import Floats
from tasks.train.fit.axes import find_principal_axes
from tasks.train.fit.multi_label import choose_thresholds
from tasks.train.fit.sigmoid import fit_sigmoids

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def make_labels(images: int, dim: int, labels: int, seed: int = 0) -> tuple[Matrix, LabelIndicators]:
    """Draw features and labels; the last labels are rare."""
    random = np.random.default_rng(seed)
    features = (random.normal(size=(images, dim)) * 2 + 3).astype(np.float32)
    directions = np.random.default_rng(7).normal(size=(dim, labels)) / np.sqrt(dim)
    scores = (features - 3) @ directions + random.normal(size=(images, labels))
    return features, scores > np.linspace(0, 2.5, labels)


def find_loss(standard: Floats, has: LabelIndicators, counts: Floats, head: tuple[Floats, float], l2: float) -> float:
    margins = (2 * has - 1) * (standard @ head[0] + head[1])
    return float((counts * np.logaddexp(0, -margins)).sum() + l2 / 2 * (head[0] ** 2).sum())


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("images", "dim"), [(300, 6), (80, 200)])
def test_each_label_matches_a_separate_fit(images: int, dim: int, balanced: bool) -> None:
    features, truth = make_labels(images, dim, 4)
    axes = find_principal_axes(features, np.full(images, 1 / images))
    fitted = fit_sigmoids(axes, features, truth, STRENGTHS, 500, balanced=balanced)
    standard = (features - axes.mean) / axes.scale
    for l2, (weights, bias) in zip(STRENGTHS, fitted, strict=True):
        for label, has in enumerate(truth.T):
            weigh = "balanced" if balanced else None
            alone = LogisticRegression(C=1 / (l2 * images), tol=1e-10, max_iter=20_000, class_weight=weigh)
            alone.fit(standard, has)
            counts = np.where(has, 0.5 / has.sum(), 0.5 / (~has).sum()) if balanced else np.full(images, 1 / images)
            theirs = find_loss(standard, has, counts, (alone.coef_[0], alone.intercept_[0]), l2)
            ours = find_loss(standard, has, counts, (weights[:, label], bias[label]), l2)
            assert ours == pytest.approx(theirs, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]), st.booleans()), min_size=1, max_size=12))
def test_no_other_threshold_has_a_higher_f1_on_the_validation_images(images: list[tuple[float, bool]]) -> None:
    chances, has = np.array([chance for chance, _ in images]), np.array([each for _, each in images])
    (chosen,) = choose_thresholds(chances[:, None], has[:, None])
    if not has.any():
        assert chosen == 0.5
        return
    tried = [f1_score(has, chances >= threshold) for threshold in (1e-9, *np.linspace(0.05, 1, 20)) if threshold]
    assert f1_score(has, chances >= chosen) >= max(tried) - 1e-12


def test_a_threshold_is_midway_between_the_last_image_above_and_the_first_below() -> None:
    chances, has = np.array([[0.9], [0.7], [0.3], [0.1]]), np.array([[True], [True], [False], [False]])
    assert choose_thresholds(chances, has) == pytest.approx([0.5])
