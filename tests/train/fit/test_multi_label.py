"""Multi-label heads: their metrics, compared with scikit-learn, and their files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics

from tasks.heads.answers import apply_thresholds, compute_average_precisions, is_multi_label
from tasks.heads.files import load_head, save_head
from tasks.train.cross_validate import Folds, measure_mean_average_precision
from tasks.train.fit.multi_label import evaluate_labels, fit_label_heads
from tasks.train.measure.evaluate import Evaluation
from tasks.train.settings import TrainSettings
from tests.train.fit.test_sigmoid import make_labels
from tests.train.measure.test_evaluate import NO_FACTS

CLASSES = ("a", "b", "c", "d")
SETTINGS = TrainSettings(multi_label=True)


def evaluate(facts: pa.Table = NO_FACTS, images: int = 300) -> tuple[Evaluation, dict[str, float]]:
    """Fit a head and evaluate it, here and by scikit-learn."""
    train, validation, test = (make_labels(images, 6, 4, seed) for seed in range(3))
    head = fit_label_heads(train, validation, CLASSES, SETTINGS)[0].head
    assert is_multi_label(head)
    chances, truth = head.probabilities(test[0]), test[1]
    marks = apply_thresholds(head, chances)
    expected = {
        "mean_average_precision": metrics.average_precision_score(truth, chances, average="macro"),
        "accuracy": metrics.accuracy_score(truth, marks),
        "micro_f1": metrics.f1_score(truth, marks, average="micro"),
        "macro_f1": metrics.f1_score(truth, marks, average="macro"),
        "log_loss": np.mean([metrics.log_loss(has, each) for has, each in zip(truth.T, chances.T, strict=True)]),
    }
    return evaluate_labels(head, test, facts), expected


def test_metrics_match_scikit_learn_and_lie_in_their_intervals() -> None:
    found, expected = evaluate()
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    for name in expected:
        assert found.metrics[f"{name}_low"] < found.metrics[name] < found.metrics[f"{name}_high"]
    areas = [row["average_precision"] for row in found.classes]
    assert np.mean(areas) == pytest.approx(expected["mean_average_precision"])
    assert np.mean([row["f1"] for row in found.classes]) == pytest.approx(expected["macro_f1"])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_matches_scikit_learn_with_ties_and_weights(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, truth = random.integers(0, 6, 40) / 5, random.random(40) < 0.4
    counts = random.integers(0, 4, (40, 3)).astype(np.float64)
    areas = compute_average_precisions(scores, truth, counts)
    for area, weights in zip(areas, counts.T, strict=True):
        assert area == pytest.approx(metrics.average_precision_score(truth, scores, sample_weight=weights))


def test_the_accuracy_of_a_slice_counts_exact_matches() -> None:
    facts = pa.table({"image": np.arange(30), "slice": ["source"] * 30, "value": ["hard"] * 30})
    found, _ = evaluate(facts)
    assert all(row["accuracy"] < found.metrics["accuracy"] for row in found.slices)
    assert any(" + " in row["value"] for row in found.slices if row["slice"] == "class")


def test_thresholds_are_stored_with_the_head(tmp_path: Path) -> None:
    train, validation = make_labels(200, 6, 4, 0), make_labels(200, 6, 4, 1)
    candidates = fit_label_heads(train, validation, CLASSES, SETTINGS)
    assert [each.loss for each in candidates] == sorted(each.loss for each in candidates)
    assert {each.hyperparameters["l2"] for each in candidates} == set(SETTINGS.l2)
    head = candidates[0].head
    save_head(head, tmp_path / "head")
    loaded = load_head(tmp_path / "head")
    assert is_multi_label(head)
    assert is_multi_label(loaded)
    assert loaded.thresholds == head.thresholds
    assert len(set(head.thresholds)) == len(CLASSES)
    features = validation[0]
    np.testing.assert_array_equal(loaded.probabilities(features), head.probabilities(features))


def test_probabilities_of_labels_need_not_sum_to_one() -> None:
    train, validation = make_labels(200, 6, 4, 0), make_labels(200, 6, 4, 1)
    chances = fit_label_heads(train, validation, CLASSES, SETTINGS)[0].head.probabilities(validation[0])
    assert chances.sum(axis=1).max() > 1.5
    assert chances.sum(axis=1).min() < 0.5


def test_a_cross_validated_map_of_few_groups_has_no_interval() -> None:
    random = np.random.default_rng(0)
    truth = random.random((120, 3)) < 0.4
    probabilities = np.where(truth, 0.6, 0.4) + random.normal(0, 0.1, truth.shape)
    for groups in (10, 40):
        folds = Folds(4, np.arange(120) % 4, np.arange(120) % groups)
        found = measure_mean_average_precision(probabilities, truth, folds)
        assert ("cv_mean_average_precision_low" in found) == (groups == 40)
        assert 0.5 < found["cv_mean_average_precision"] < 1
