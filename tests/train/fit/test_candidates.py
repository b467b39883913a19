"""Candidates: every kind of head learns, is calibrated, survives its file, and the best comes first."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from storage.errors import TrainError
from storage.names import LabelSetName
from storage.tables.trainings import Training
from storage.vectors.feature_file import Matrix
from tasks.heads.files import load_head, save_head
from tasks.train.fit.candidates import fit_heads
from tasks.train.settings import TrainSettings
from tasks.train.train import warn_edge

Names = npt.NDArray[np.str_]


def make_data(classes: int, images: int = 300, dim: int = 6, seed: int = 0) -> tuple[Matrix, Names]:
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(classes, dim))
    labels = random.integers(0, classes, images)
    features = centers[labels] + random.normal(size=(images, dim)) * 1.5 + 3
    return features.astype(np.float32), np.array([f"class {label}" for label in labels])


def test_probabilities_of_two_classes_sum_to_one() -> None:
    features, names = make_data(2)
    head = fit_heads((features, names), (features, names), TrainSettings())[0].head
    chances = head.probabilities(features)
    assert chances.shape == (300, 2)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert (np.array(head.classes)[chances.argmax(axis=1)] == names).mean() > 0.7


def test_candidates_are_sorted_by_validation_loss() -> None:
    train, validation = make_data(3, images=60, dim=40), make_data(3, seed=1, dim=40)
    candidates = fit_heads(train, validation, TrainSettings())
    assert {candidate.hyperparameters["l2"] for candidate in candidates} == set(TrainSettings().l2)
    assert candidates[0].loss == min(candidate.loss for candidate in candidates)
    assert candidates[0].loss < candidates[-1].loss


def test_the_same_rows_give_the_same_bytes_and_a_head_survives_its_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_head(fit_heads(make_data(3), make_data(3, seed=1), TrainSettings())[0].head, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    head, features = load_head(tmp_path / "one"), make_data(3)[0]
    fitted = fit_heads(make_data(3), make_data(3, seed=1), TrainSettings())[0].head
    np.testing.assert_array_equal(head.probabilities(features), fitted.probabilities(features))
    assert head.classes == ("class 0", "class 1", "class 2")


def test_class_weights_raise_the_recall_of_a_rare_class() -> None:
    features, names = make_data(2, images=1000)
    keep = (names == "class 0") | (np.arange(1000) % 20 == 0)
    train = features[keep], names[keep]
    rare = features[names == "class 1"]
    recalls = []
    for weighed in (False, True):
        head = fit_heads(train, train, TrainSettings(class_weights=weighed))[0].head
        recalls.append((head.probabilities(rare).argmax(axis=1) == 1).mean())
    assert recalls[1] > recalls[0]


def test_a_constant_feature_gives_finite_probabilities() -> None:
    features, names = make_data(3)
    features[:, 0] = 5
    head = fit_heads((features, names), (features, names), TrainSettings())[0].head
    assert np.isfinite(head.probabilities(features)).all()


EVERY = TrainSettings(heads=("softmax", "ridge", "prototypes", "knn", "mlp", "mlp2"), hidden=64, epochs=60)


def test_every_kind_of_head_learns_and_survives_its_file(tmp_path: Path) -> None:
    test = make_data(3, seed=2)
    candidates = fit_heads(make_data(3), make_data(3, seed=1), EVERY)
    assert len(candidates) == 5 + 5 + 1 + 3 + 4 + 4
    for candidate in candidates:
        save_head(candidate.head, tmp_path / "head")
        chances = load_head(tmp_path / "head").probabilities(test[0])
        np.testing.assert_array_equal(chances, candidate.head.probabilities(test[0]))
        np.testing.assert_allclose(chances.sum(axis=1), 1)
        assert (np.array(candidate.head.classes)[chances.argmax(axis=1)] == test[1]).mean() > 0.5, (
            candidate.hyperparameters
        )


def test_hidden_layers_learn_xor() -> None:
    random = np.random.default_rng(0)
    parts = []
    for _ in range(3):
        features = random.uniform(-1, 1, (600, 2)).astype(np.float32)
        parts.append((features, np.where(features[:, 0] * features[:, 1] > 0, "same", "other")))
    settings = TrainSettings(heads=("mlp", "mlp2", "softmax"), hidden=32, epochs=60, learning_rates=(1e-2,))
    candidates = fit_heads(parts[0], parts[1], settings)
    right = {
        candidate.hyperparameters["head"]: np.mean(
            np.array(candidate.head.classes)[candidate.head.probabilities(parts[2][0]).argmax(axis=1)] == parts[2][1]
        )
        for candidate in reversed(candidates)
    }
    assert right["mlp"] > 0.95
    assert right["mlp2"] > 0.95
    assert right["softmax"] < 0.6


def test_one_neighbour_predicts_its_own_class() -> None:
    features, names = make_data(3, dim=40)
    head = fit_heads((features, names), (features, names), TrainSettings(heads=("knn",), nearest=(1,)))[0].head
    assert (np.array(head.classes)[head.probabilities(features).argmax(axis=1)] == names).all()


def test_fitting_again_gives_the_same_candidates_bit_for_bit() -> None:
    one, two = (fit_heads(make_data(3), make_data(3, seed=1), EVERY) for _ in range(2))
    assert [(each.hyperparameters, each.loss) for each in one] == [(each.hyperparameters, each.loss) for each in two]


def test_diverging_networks_are_dropped_and_refused_if_none_is_left() -> None:
    train, validation = make_data(3, images=60), make_data(3, seed=1)
    asked = TrainSettings(heads=("mlp",), learning_rates=(1e-3, 1e30), weight_decays=(0.01,), epochs=2)
    assert [each.hyperparameters["learning_rate"] for each in fit_heads(train, validation, asked)] == [1e-3]
    with pytest.raises(TrainError, match=r"1e\+30.*diverge.*Lower --train.learning-rates"):
        fit_heads(train, validation, asked.model_copy(update={"learning_rates": (1e30,)}))


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"l2": (float("nan"),)}, {"weight_decays": (float("inf"),)}, {"learning_rates": (0.0,)}]
)
def test_invalid_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("strengths", "chosen", "words"),
    [
        ((1e-3, 1e-2, 1e-1), 1e-3, "the best l2, 0.001, is the weakest that was tried: add --train.l2 0.0001"),
        ((1e-3, 1e-2, 1e-1), 1e-1, "the best l2, 0.1, is the strongest that was tried: add --train.l2 1"),
        ((1e-3, 1e-2, 1e-1), 1e-2, None),
        ((1e-2, 1e-1), 1e-1, None),
    ],
)
def test_a_best_strength_at_the_edge_of_those_tried_is_warned_about(
    strengths: tuple[float, ...], chosen: float, words: str | None
) -> None:
    settings: dict[str, object] = {"l2": list(strengths)}
    training = Training("id", LabelSetName("photos"), "recipe", 1, settings, "softmax", {}, {"l2": chosen})
    assert warn_edge(training) == ((words,) if words else ())
