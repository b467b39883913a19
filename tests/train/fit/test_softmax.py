"""The paths of softmax and ridge heads, compared with references of higher precision."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from tasks.heads.heads import Floats
from tasks.train.fit.axes import find_principal_axes
from tasks.train.fit.candidates import fit_heads
from tasks.train.fit.examples import Examples
from tasks.train.fit.ridge import fit_ridge
from tasks.train.fit.softmax import fit_softmax
from tasks.train.settings import TrainSettings
from tests.train.fit.test_candidates import make_data

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def make_problem(classes: int, images: int, dim: int) -> tuple[npt.NDArray[np.float32], Floats, npt.NDArray[np.intp]]:
    features, names = make_data(classes, images, dim)
    standard = (features - features.mean(axis=0, dtype=np.float64)) / features.std(axis=0, dtype=np.float64)
    return features, standard, np.unique(names, return_inverse=True)[1]


def lowest_loss(standard: Floats, labels: npt.NDArray[np.intp], l2: float, start: tuple[Floats, Floats]) -> float:
    """Minimise mean log loss + l2/2 ||weights||^2 to high precision; it is convex, so that any start will do."""
    shape = (standard.shape[1] + 1, labels.max() + 1)
    inputs = np.hstack([standard, np.ones((len(standard), 1))]).astype(np.float64)

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(shape)
        logits = inputs @ weights
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        shares = odds / odds.sum(axis=1, keepdims=True)
        value = -np.log(shares[np.arange(len(labels)), labels]).mean() + l2 / 2 * (weights[:-1] ** 2).sum()
        shares[np.arange(len(labels)), labels] -= 1
        slope = inputs.T @ shares / len(labels)
        slope[:-1] += l2 * weights[:-1]
        return float(value), slope.ravel()

    return float(minimize(loss, np.vstack(start).ravel(), jac=True, options={"gtol": 1e-12, "maxiter": 500}).fun)


def find_loss(standard: Floats, labels: npt.NDArray[np.intp], head: tuple[Floats, Floats], l2: float) -> float:
    logits = standard @ head[0] + head[1]
    sums = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1)
    losses = sums - logits[np.arange(len(labels)), labels]
    return float(losses.mean() + l2 / 2 * (head[0] ** 2).sum())


@pytest.mark.parametrize(("images", "dim", "classes"), [(300, 6, 3), (60, 70, 3), (200, 30, 5)])
def test_each_fit_of_the_path_ends_within_a_billionth_of_the_minimum(images: int, dim: int, classes: int) -> None:
    features, standard, labels = make_problem(classes, images, dim)
    shares = np.full(images, 1 / images)
    fitted = fit_softmax(find_principal_axes(features, shares), Examples(features, labels, shares), STRENGTHS, 500)
    for head, l2 in zip(fitted, STRENGTHS, strict=True):
        lowest = lowest_loss(standard, labels, l2, head)
        assert find_loss(standard, labels, head, l2) <= lowest * (1 + 1e-9)


def test_one_thread_or_two_give_the_same_probabilities() -> None:
    features, _, labels = make_problem(10, 1500, 300)
    names = np.array([f"class {label}" for label in labels])
    answers = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            candidates = fit_heads((features[:1000], names[:1000]), (features[1000:], names[1000:]), TrainSettings())
            by_l2 = sorted(candidates, key=lambda candidate: candidate.hyperparameters["l2"])
            answers.append([candidate.head.probabilities(features) for candidate in by_l2])
    for one, two in zip(*answers, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_stopping_before_the_minimum_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    features, _, labels = make_problem(3, 300, 6)
    shares = np.full(300, 1 / 300)
    axes, examples = find_principal_axes(features, shares), Examples(features, labels, shares)
    fit_softmax(axes, examples, STRENGTHS, 500)
    assert not caplog.records
    fit_softmax(axes, examples, STRENGTHS, 2)
    assert "stopped after 2 steps, before the minimum: raise train.iterations" in caplog.text


def test_a_feature_that_hardly_varies_is_not_blown_up() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 20)).astype(np.float32)
    features[:, 3] *= 1e-4
    features[:, 4] = 5
    scale = find_principal_axes(features, np.full(100, 0.01)).scale
    assert scale.min() == pytest.approx(0.1 * np.median(features.std(axis=0)), rel=0.1)
    unchanged = np.delete(np.arange(20), [3, 4])
    np.testing.assert_allclose(scale[unchanged], features.std(axis=0, dtype=np.float64)[unchanged], rtol=1e-5)


@pytest.mark.parametrize(("images", "dim", "classes"), [(300, 6, 3), (80, 200, 4), (400, 100, 2)])
def test_the_path_matches_separate_fits(images: int, dim: int, classes: int) -> None:
    features, standard, labels = make_problem(classes, images, dim)
    shares = np.full(images, 1 / images)
    fitted = fit_softmax(find_principal_axes(features, shares), Examples(features, labels, shares), STRENGTHS, 500)
    columns = 2 if classes == 2 else 1  # of two, scikit-learn bends the difference alone, which is twice as long
    for head, l2 in zip(fitted, STRENGTHS, strict=True):
        alone = LogisticRegression(C=columns / (l2 * images), tol=1e-8, max_iter=10_000).fit(standard, labels)
        weights = np.vstack([-alone.coef_, alone.coef_]).T / 2 if classes == 2 else alone.coef_.T
        bias = np.append(-alone.intercept_, alone.intercept_) / 2 if classes == 2 else alone.intercept_
        theirs = find_loss(standard, labels, (weights, bias), l2)
        assert find_loss(standard, labels, head, l2) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(("images", "dim"), [(300, 6), (80, 200)])
def test_the_ridge_path_matches_separate_fits(images: int, dim: int) -> None:
    features, standard, labels = make_problem(3, images, dim)
    random = np.random.default_rng(1).uniform(0.5, 2, images)
    shares = random / random.sum()
    axes = find_principal_axes(features, shares)
    fitted = list(fit_ridge(axes, Examples(features, labels, shares), STRENGTHS))
    standard = (features - axes.mean) / axes.scale
    for (weights, bias), l2 in zip(fitted, STRENGTHS, strict=True):
        alone = Ridge(alpha=l2, tol=1e-12).fit(standard, np.eye(3)[labels], sample_weight=shares)
        np.testing.assert_allclose(weights.T, alone.coef_, atol=1e-6)
        np.testing.assert_allclose(bias, alone.intercept_, atol=1e-6)
