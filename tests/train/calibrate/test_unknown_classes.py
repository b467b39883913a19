"""Rejection: the false accept rate of unknown classes, and the labels that it needs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from storage.errors import TrainError
from tasks.heads.answers import NEITHER, predict_classes
from tasks.heads.files import load_head, save_head
from tasks.heads.rejection import choose_known, measure_nearness
from tasks.train.calibrate.unknown_classes import (
    Price,
    RejectionResult,
    add_rejection,
    choose_rejection_threshold,
    warn_price,
)
from tasks.train.fit.candidates import fit_heads
from tasks.train.rows.assign import SplitAssignment
from tasks.train.rows.coverage import check_coverage, find_conformal_rank
from tasks.train.rows.splits import SPLITS
from tasks.train.settings import Kind, TrainSettings
from tests.train.fit.test_candidates import make_data
from tests.train.rows.test_splits import ids

RATE = 0.1


def add(kind: Kind = "softmax", rate: float = RATE, images: int = 900) -> RejectionResult:
    settings = TrainSettings(heads=(kind,), false_accept=rate, epochs=5, hidden=16)
    train, validation, test = (make_data(6, images, 12, seed) for seed in range(3))
    return add_rejection(fit_heads(train, validation, settings)[0], train, validation, test, rate)


@pytest.mark.parametrize(("images", "rate", "rank"), [(19, 0.05, 19), (18, 0.05, 19), (99, 0.1, 90), (9, 0.3, 7)])
def test_the_rank_is_that_of_split_conformal_prediction(images: int, rate: float, rank: int) -> None:
    assert find_conformal_rank(images, rate) == rank


@pytest.mark.parametrize(("images", "rate"), [(19, 0.05), (40, 0.1), (100, 0.25)])
def test_one_more_unknown_image_is_accepted_at_most_at_the_rate(images: int, rate: float) -> None:
    draws = np.random.default_rng(0).random((20_000, images + 1))
    accepted = np.mean([one[-1] >= choose_rejection_threshold(one[:-1], rate) for one in draws])
    assert accepted <= rate + 3 * (rate * (1 - rate) / 20_000) ** 0.5
    assert accepted > rate - 1 / (images + 1) - 0.01  # and hardly less often than it could be


def test_equally_near_images_are_refused_together() -> None:
    assert choose_rejection_threshold(np.full(50, 0.7), RATE) > 0.7


@pytest.mark.parametrize("kind", ["softmax", "knn", "prototypes", "mlp"])
def test_the_false_accept_rate_of_held_out_classes_is_near_the_requested_one(kind: Kind) -> None:
    found = add(kind).metrics
    error = (2 * RATE * (1 - RATE) / 900) ** 0.5  # of the threshold and of the measure
    assert abs(found["false_accept"] - RATE) < 3 * error
    assert found["false_accept_low"] < found["false_accept"] < found["false_accept_high"]
    assert found["refused_low"] < found["refused"] < found["refused_high"]


def test_a_lower_rate_refuses_more() -> None:
    strict, lax = add(rate=0.05), add(rate=0.4)
    assert strict.metrics["refuse_below"] > lax.metrics["refuse_below"]
    assert strict.metrics["refused"] > lax.metrics["refused"]
    assert strict.metrics["false_accept"] < lax.metrics["false_accept"]


def test_a_rate_comes_with_the_share_of_known_images_that_it_refuses() -> None:
    prices = add(rate=0.05).prices
    rates, refused = ([price[key] for price in prices] for key in ("false_accept", "refused"))
    assert 0.05 in rates
    assert rates == sorted(rates)
    assert refused == sorted(refused, reverse=True)
    assert refused[rates.index(0.05)] == pytest.approx(add(rate=0.05).metrics["refused"], abs=0.1)


def test_a_dear_rate_is_warned_about_with_the_lowest_usable_one() -> None:
    prices: list[Price] = [
        {"false_accept": 0.05, "refused": 0.98},
        {"false_accept": 0.2, "refused": 0.4},
        {"false_accept": 0.3, "refused": 0.15},
        {"false_accept": 0.4, "refused": 0.1},
    ]
    (warning,) = warn_price(0.05, prices)
    assert '0.05 answers "neither" to 98 % of the images of known classes' in warning
    assert warning.endswith("--train.false-accept 0.3 would refuse 15 %")
    assert "no rate up to 0.5 refuses less than 20 %" in warn_price(0.05, prices[:2])[0]
    assert warn_price(0.3, prices) == warn_price(None, ()) == ()


def test_the_table_of_held_out_classes_adds_up_to_the_metric() -> None:
    found = add()
    accepted = sum(row["images"] * row["false_accept"] for row in found.classes)
    assert accepted / sum(row["images"] for row in found.classes) == pytest.approx(found.metrics["false_accept"])
    assert len(found.classes) == 6


def test_below_the_threshold_the_answer_is_neither_and_probabilities_stay(tmp_path: Path) -> None:
    candidate = add().candidate
    save_head(candidate.head, tmp_path / "head")
    head, features = load_head(tmp_path / "head"), make_data(6, 200, 12, 3)[0]
    chances = head.probabilities(features)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    names = predict_classes(head, features, chances)
    assert head.known is not None
    unsure = measure_nearness(features, head.known) < candidate.head.refuse_below
    assert 0 < unsure.sum() < 200
    assert set(names[unsure]) == {NEITHER}
    assert (names[~unsure] == np.array(head.classes)[chances.argmax(axis=1)][~unsure]).all()


@pytest.mark.parametrize(
    ("classes", "images", "rate", "words"),
    [
        (("a", "b", NEITHER), 300, 0.1, "class neither: is the name for images of no class"),
        (("a", "b"), 300, 0.1, "false_accept 0.1: needs 3 classes"),
        (("a", "b", "c"), 90, 0.001, "false_accept 0.001: needs 999 training images, and there are"),
    ],
)
def test_an_unattainable_rate_is_refused(classes: tuple[str, ...], images: int, rate: float, words: str) -> None:
    rows = [(image_id, classes[at % len(classes)]) for at, image_id in enumerate(ids(images))]
    splits = {image_id: SPLITS[at // len(classes) % 3] for at, image_id in enumerate(ids(images))}
    assignment = SplitAssignment(tuple(rows), splits, {}, 0, {})
    check_coverage(assignment, TrainSettings())
    with pytest.raises(TrainError, match=words):
        check_coverage(assignment, TrainSettings(false_accept=rate))


def test_nearness_is_the_cosine_of_the_fifth_nearest_training_image() -> None:
    features, names = make_data(3, 50, 12)
    queries = make_data(3, 20, 12, seed=1)[0]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries.astype(float), features)]
    expected = np.sort(units[0] @ units[1].T, axis=1)[:, -5]
    np.testing.assert_allclose(measure_nearness(queries, choose_known(features, names)), expected, atol=2e-3)
    assert measure_nearness(queries[:0], choose_known(features, names)).shape == (0,)


def test_of_many_training_images_a_head_keeps_the_same_share_of_each_class() -> None:
    features = np.eye(4, dtype=np.float32)[np.repeat([0, 1], [300, 100])]
    names = np.repeat(["many", "few"], [300, 100])
    known = choose_known(features, names, most=40 * 4)
    assert known.vectors.shape == (40, 4)
    assert known.vectors[:, 0].sum() == 30
    assert known.chosen_from == 400


def test_a_head_of_an_earlier_release_goes_by_the_largest_probability(tmp_path: Path) -> None:
    train, validation = (make_data(3, 300, 12, seed) for seed in range(2))
    save_head(replace(fit_heads(train, validation, TrainSettings())[0].head, refuse_below=0.9), tmp_path / "head")
    head = load_head(tmp_path / "head")
    chances = head.probabilities(validation[0])
    unsure = chances.max(axis=1) < 0.9
    assert 0 < unsure.sum() < 300
    assert ((predict_classes(head, validation[0], chances) == NEITHER) == unsure).all()


@pytest.mark.parametrize("asked", [{"heads": ("knn",)}, {"false_accept": 0.1}])
def test_settings_without_multi_label_support_are_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="multi_label"):
        TrainSettings.model_validate({"multi_label": True, **asked})
