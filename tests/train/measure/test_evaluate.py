"""Metrics, compared with scikit-learn and with values computed by hand."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from sklearn import metrics

from tasks.heads.heads import Floats
from tasks.train.measure.evaluate import Evaluation, evaluate, find_slices, log_loss
from tests.train.answers import CLASSES, draw, make_head

NO_FACTS = pa.table({"image": pa.array([], pa.int64()), "slice": pa.array([], pa.string()), "value": []})
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "top_3_accuracy", "log_loss")


def measure(probabilities: npt.ArrayLike, names: npt.ArrayLike) -> Evaluation:
    """Evaluate a head with these probabilities."""
    chances = np.maximum(np.asarray(probabilities, np.float64), 1e-300)
    head = make_head(CLASSES[: chances.shape[1]])
    return evaluate(head, np.log(chances).astype(np.float32), np.asarray(names), NO_FACTS)


def draw_answers(images: int = 300, seed: int = 0) -> tuple[Floats, npt.NDArray[np.str_]]:
    logits, true = draw(images, seed)
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), CLASSES[true]


def test_metrics_match_scikit_learn() -> None:
    chances, names = draw_answers()
    predicted = CLASSES[chances.argmax(axis=1)]
    found = measure(chances, names)
    expected = {
        "accuracy": metrics.accuracy_score(names, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(names, predicted),
        "macro_f1": metrics.f1_score(names, predicted, average="macro"),
        "top_3_accuracy": metrics.top_k_accuracy_score(names, chances, k=3, labels=CLASSES),
        "log_loss": metrics.log_loss(names, chances, labels=CLASSES),
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    assert "top_5_accuracy" not in found.metrics  # of four classes it says nothing
    assert np.array_equal(found.confusion, metrics.confusion_matrix(names, predicted))
    columns = metrics.precision_recall_fscore_support(names, predicted)
    for row, *values in zip(found.classes, *columns, strict=True):
        assert [row[key] for key in ("precision", "recall", "f1", "images")] == pytest.approx(values)
        assert row["recall_low"] < row["recall"] < row["recall_high"]


def test_metrics_lie_in_their_intervals_which_narrow_with_more_images() -> None:
    few, many = (measure(*draw_answers(images)).metrics for images in (100, 3000))
    for name in FIGURES:
        for found in (few, many):
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
        assert many[f"{name}_high"] - many[f"{name}_low"] < 0.5 * (few[f"{name}_high"] - few[f"{name}_low"])


def test_the_interval_of_a_perfect_accuracy_depends_on_the_number_of_images() -> None:
    found = measure(np.tile([[0.9, 0.1], [0.1, 0.9]], (5, 1)), ["a", "b"] * 5).metrics
    assert (found["accuracy"], found["accuracy_high"]) == (1, 1)
    assert found["accuracy_low"] == pytest.approx(0.7225, abs=1e-4)  # Wilson's, 10 of 10
    for name in ("balanced_accuracy", "macro_f1"):
        assert (found[name], found[f"{name}_high"]) == (1, 1)
        assert 0.6 < found[f"{name}_low"] <= found["accuracy_low"]


def test_the_calibration_error_is_the_mean_gap_of_probability_and_accuracy() -> None:
    chances = [[0.9, 0.1]] * 4000 + [[0.3, 0.7]] * 6000
    names = ["a", "a", "b", "b"] * 1000 + ["b"] * 6000  # of the first bin half are right, of the other all
    found = measure(chances, names)
    assert found.metrics["calibration_error"] == pytest.approx(0.4 * 0.4 + 0.6 * 0.3, abs=1e-6)
    assert "calibration_error_low" not in found.metrics  # no interval holds for few images
    rows = [(row["images"], row["probability"], row["accuracy"]) for row in found.reliability["after"]]
    assert np.allclose(rows, [(6000, 0.7, 1), (4000, 0.9, 0.5)])
    assert [row["above"] for row in found.reliability["after"]] == pytest.approx([10 / 15, 13 / 15])


@pytest.mark.parametrize("images", [30, 300])
def test_chance_adds_less_to_the_calibration_error_than_without_the_correction(images: int) -> None:
    """The answers are calibrated: the true error is 0."""
    found = [measure(*draw_answers(images, seed)) for seed in range(30)]
    ours = np.mean([each.metrics["calibration_error"] for each in found])
    plain = [
        sum(row["images"] * abs(row["probability"] - row["accuracy"]) for row in each.reliability["after"]) / images
        for each in found
    ]
    assert ours < 0.8 * np.mean(plain)


def test_the_calibration_error_of_a_calibrated_bin_is_0() -> None:
    found = measure([[0.7, 0.3]] * 10_000, ["a"] * 7_000 + ["b"] * 3_000).metrics
    assert found["calibration_error"] == 0


def test_the_temperature_affects_only_calibrated_metrics() -> None:
    logits, true = draw(1000, seed=1)
    head = make_head(temperature=3.0)
    found = evaluate(head, 3 * logits, CLASSES[true], NO_FACTS).metrics
    assert found["temperature"] == 3
    assert found["calibration_error"] < 0.5 * found["calibration_error_before"]
    assert found["log_loss"] == pytest.approx(
        evaluate(make_head(), logits, CLASSES[true], NO_FACTS).metrics["log_loss"]
    )
    assert found["log_loss"] < found["log_loss_before"]


def test_a_class_without_test_images_does_not_lower_balanced_accuracy() -> None:
    found = measure([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], ["a", "b"])
    assert found.metrics["balanced_accuracy"] == found.metrics["macro_f1"] == 1
    assert found.classes[2]["images"] == 0


def test_an_unknown_class_has_a_large_but_finite_loss() -> None:
    assert log_loss(np.array([[1.0, 0.0]]), np.array(["new"]), ("a", "b")) == pytest.approx(-np.log(1e-15))
    found = measure([[0.9, 0.1], [0.9, 0.1]], ["a", "new"]).metrics
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx((-np.log(0.9) - np.log(1e-15)) / 2)


def test_the_same_rows_give_the_same_intervals() -> None:
    chances, names = draw_answers()
    assert measure(chances, names) == measure(chances, names)


def test_slices_are_sorted_worst_first_without_small_and_good_ones() -> None:
    right = np.array([True] * 40 + [False] * 20 + [True] * 19)
    names = np.array(["a", "b"] * 39 + ["a"])
    kinds = ["large"] * 40 + ["small"] * 20 + ["few"] * 19
    facts = pa.table(
        {
            "image": [*range(79), *range(79)],
            "slice": ["shorter side"] * 79 + ["format"] * 79,
            "value": kinds + ["PNG"] * 79,
        }
    )
    found = find_slices(right, names, facts)
    assert [(row["slice"], row["value"], row["images"]) for row in found] == [
        ("shorter side", "small", 20),
        ("class", "b", 39),
    ]
    assert found[0]["accuracy"] == 0
    assert found[0]["accuracy_high"] == pytest.approx(0.1611, abs=1e-4)  # Wilson's, 0 of 20
