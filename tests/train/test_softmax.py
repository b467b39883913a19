"""The softmax head, against a reference of higher precision."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from storage.heads import load_head, save_head
from storage.vectors import Matrix
from tasks.train.settings import TrainSettings
from tasks.train.softmax import fit_softmax

Names = npt.NDArray[np.str_]


def make_data(classes: int, images: int = 300, dim: int = 6, seed: int = 0) -> tuple[Matrix, Names]:
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(classes, dim))
    labels = random.integers(0, classes, images)
    features = centers[labels] + random.normal(size=(images, dim)) * 1.5 + 3
    return features.astype(np.float32), np.array([f"class {label}" for label in labels])


def lowest_loss(features: Matrix, names: Names, l2: float) -> float:
    """Minimise mean log loss + l2/2 ||weights||^2 over standardised features, tightly."""
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    classes, labels = np.unique(names, return_inverse=True)
    shape = (standard.shape[1] + 1, len(classes))
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

    return float(minimize(loss, np.zeros(shape).ravel(), jac=True, options={"gtol": 1e-10, "maxiter": 5000}).fun)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_loss_is_the_lowest_there_is(l2: float) -> None:
    features, names = make_data(3)
    head = fit_softmax((features, names), (features, names), TrainSettings(l2=(l2,)))[0].head
    chances = head.probabilities(features)
    column = [head.classes.index(name) for name in names]
    value = -np.log(chances[np.arange(len(names)), column]).mean() + l2 / 2 * (head.weights**2).sum()
    assert value == pytest.approx(lowest_loss(features, names, l2), rel=1e-4)


@pytest.mark.parametrize(("images", "dim", "classes"), [(300, 6, 3), (80, 200, 4), (400, 100, 2)])
def test_a_path_ends_where_separate_fits_end(images: int, dim: int, classes: int) -> None:
    features, names = make_data(classes, images, dim)
    strengths = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    labels, rows = np.unique(names, return_inverse=True)[1], np.arange(images)
    standard = (features - features.mean(axis=0)) / features.std(axis=0).astype(np.float64)
    columns = 2 if classes == 2 else 1  # of two, scikit-learn bends the difference alone, which is twice as long
    for candidate in fit_softmax((features, names), (features, names), TrainSettings(l2=strengths)):
        alone = LogisticRegression(C=columns / (candidate.l2 * images), tol=1e-8, max_iter=10_000).fit(standard, names)
        ours, theirs = (
            -np.log(chances[rows, labels]).mean() + candidate.l2 / 2 * squares
            for chances, squares in (
                (candidate.head.probabilities(features), (candidate.head.weights**2).sum()),
                (alone.predict_proba(standard), (alone.coef_**2).sum() / columns),
            )
        )
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_two_classes_give_two_columns_that_sum_to_one() -> None:
    features, names = make_data(2)
    head = fit_softmax((features, names), (features, names), TrainSettings())[0].head
    chances = head.probabilities(features)
    assert chances.shape == (300, 2)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert (np.array(head.classes)[chances.argmax(axis=1)] == names).mean() > 0.7


def test_the_strength_with_the_lowest_validation_loss_comes_first() -> None:
    train, validation = make_data(3, images=60, dim=40), make_data(3, seed=1, dim=40)
    candidates = fit_softmax(train, validation, TrainSettings())
    assert len(candidates) == 5
    assert candidates[0].loss == min(candidate.loss for candidate in candidates)
    assert candidates[0].loss < candidates[-1].loss


def test_the_same_rows_give_the_same_bytes_and_a_file_gives_the_same_head(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_head(fit_softmax(make_data(3), make_data(3, seed=1), TrainSettings())[0].head, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    head, features = load_head(tmp_path / "one"), make_data(3)[0]
    fitted = fit_softmax(make_data(3), make_data(3, seed=1), TrainSettings())[0].head
    np.testing.assert_array_equal(head.probabilities(features), fitted.probabilities(features))
    assert head.classes == ("class 0", "class 1", "class 2")


def test_class_weights_raise_the_recall_of_a_rare_class() -> None:
    features, names = make_data(2, images=1000)
    keep = (names == "class 0") | (np.arange(1000) % 20 == 0)
    train = features[keep], names[keep]
    rare = features[names == "class 1"]
    recalls = []
    for weighed in (False, True):
        head = fit_softmax(train, train, TrainSettings(class_weights=weighed))[0].head
        recalls.append((head.probabilities(rare).argmax(axis=1) == 1).mean())
    assert recalls[1] > recalls[0]


def test_a_constant_feature_does_no_harm() -> None:
    features, names = make_data(3)
    features[:, 0] = 5
    head = fit_softmax((features, names), (features, names), TrainSettings())[0].head
    assert np.isfinite(head.probabilities(features)).all()
