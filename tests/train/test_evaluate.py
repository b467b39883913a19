"""What is measured, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from tasks.train.evaluate import evaluate, log_loss


def test_the_figures_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    classes = ("a", "b", "c")
    names = random.choice(classes, 200)
    odds = random.random((200, 3))
    chances = odds / odds.sum(axis=1, keepdims=True)
    predicted = np.array(classes)[chances.argmax(axis=1)]
    found = evaluate(chances, names, classes)
    assert found.metrics["accuracy"] == pytest.approx(metrics.accuracy_score(names, predicted))
    assert found.metrics["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(names, predicted))
    assert found.metrics["log_loss"] == pytest.approx(metrics.log_loss(names, chances, labels=classes))
    assert np.array(found.confusion).sum() == 200
    assert [row["images"] for row in found.classes] == [int((names == name).sum()) for name in classes]


def test_a_class_without_test_images_does_not_lower_balanced_accuracy() -> None:
    found = evaluate(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), np.array(["a", "b"]), ("a", "b", "c"))
    assert found.metrics["balanced_accuracy"] == 1
    assert found.classes[2]["images"] == 0


def test_a_class_that_the_head_does_not_know_costs_much_and_stays_finite() -> None:
    assert log_loss(np.array([[1.0, 0.0]]), np.array(["new"]), ("a", "b")) == pytest.approx(-np.log(1e-15))
