"""The temperature from folds, and the refit on training and validation images."""

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import tempered_softmax
from tasks.train.calibrate import out_of_fold
from tasks.train.calibrate.out_of_fold import Pool, Scores, calibrate_candidate, choose_temperature, deal_folds, refit
from tasks.train.calibrate.temperature import find_likely_temperature
from tasks.train.fit.candidates import fit_heads
from tasks.train.measure.evaluate import log_loss
from tasks.train.measure.metrics import index_classes
from tasks.train.settings import Kind, TrainSettings
from tests.train.answers import draw
from tests.train.fit.test_candidates import make_data

Names = npt.NDArray[np.str_]


def make_pool(train: tuple[Matrix, Names], validation: tuple[Matrix, Names]) -> Pool:
    """Make a pool of images that are groups of their own."""
    count = len(train[1]) + len(validation[1])
    return Pool(train, np.arange(len(train[1])), validation, tuple(f"image {number}" for number in range(count)))


def test_the_temperature_hardly_ever_hurts_and_helps_on_average() -> None:
    """With 36 training and 8 validation images, the temperature of the validation images alone often hurts."""
    losses, settings = [], TrainSettings(l2=(1e-2, 1e-1))
    for seed in range(12):
        train, validation, test = (make_data(3, images, 6, 10 * seed + at) for at, images in enumerate((36, 8, 1000)))
        first = fit_heads(train, validation, settings)[0]
        ours = calibrate_candidate(first, make_pool(train, validation), settings).head
        logits = ours.logits(test[0])
        losses.append(
            [
                log_loss(tempered_softmax(logits, each), test[1], ours.classes)
                for each in (1.0, first.head.temperature, ours.temperature)
            ]
        )
    uncalibrated, by_validation, by_folds = np.array(losses).T
    assert (by_validation - uncalibrated).max() > 0.1  # the fault
    assert (by_folds - uncalibrated).max() < 0.05
    assert by_folds.mean() < min(uncalibrated.mean(), by_validation.mean())


def test_the_temperature_stays_1_if_it_would_not_help_on_other_folds() -> None:
    drawn, true = draw(60, seed=4)
    logits, folds = drawn.astype(np.float64), np.arange(60) % 5
    assert find_likely_temperature(logits, true) != 1
    assert choose_temperature(Scores(logits, true, folds)) == 1
    assert choose_temperature(Scores(3 * logits, true, folds)) == find_likely_temperature(3 * logits, true) > 1.5


def test_few_images_move_the_temperature_little_and_many_outweigh_the_prior() -> None:
    logits, true = draw(2000, seed=1)
    few, many = (find_likely_temperature(3.0 * logits[:count].astype(np.float64), true[:count]) for count in (3, 2000))
    assert 0.5 < few < 2
    assert many == pytest.approx(3, rel=0.1)
    best = logits.argmax(axis=1)  # no image is wrong
    assert 0.2 < find_likely_temperature(logits[:20].astype(np.float64), best[:20]) < 1
    assert find_likely_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1


def test_with_many_validation_images_they_decide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = make_data(3, 100), make_data(3, 200, seed=1)
    first = fit_heads(train, validation, TrainSettings())[0]
    by_folds = calibrate_candidate(first, make_pool(train, validation), TrainSettings()).head.temperature
    monkeypatch.setattr(out_of_fold, "ENOUGH", 200)
    alone = calibrate_candidate(first, make_pool(train, validation), TrainSettings()).head.temperature
    assert alone == pytest.approx(first.head.temperature, rel=0.03)  # the prior moves it a little
    assert by_folds != alone


@pytest.mark.parametrize("kind", ["ridge", "knn", "mlp"])
def test_every_kind_is_calibrated_by_folds(kind: Kind) -> None:
    train, validation, test = make_data(3, 150), make_data(3, 30, seed=1), make_data(3, 1000, seed=2)
    settings = TrainSettings(heads=(kind,), hidden=8, epochs=3, learning_rates=(1e-2,), weight_decays=(0.01,))
    first = fit_heads(train, validation, settings)[0]
    ours = calibrate_candidate(first, make_pool(train, validation), settings).head
    losses = [
        log_loss(tempered_softmax(ours.logits(test[0]), temperature), test[1], ours.classes)
        for temperature in (ours.temperature, 1.0)
    ]
    assert ours.temperature != first.head.temperature
    assert losses[0] < losses[1]


def test_folds_keep_groups_together_and_spread_the_classes() -> None:
    names = np.array(["a"] * 50 + ["b"] * 10 + ["c"] * 5)
    folds = deal_folds([f"image {number}" for number in range(65)], names, seed=0)
    for name in ("a", "b", "c"):
        counts = np.bincount(folds[names == name], minlength=5)
        assert counts.max() - counts.min() <= 1
    pairs = deal_folds([f"pair {number // 2}" for number in range(40)], np.array(["a", "b"] * 20), seed=0)
    assert (pairs[::2] == pairs[1::2]).all()


def test_the_order_of_the_images_does_not_change_their_folds() -> None:
    keys, names = [f"image {number}" for number in range(30)], np.array(["a", "b", "c"] * 10)
    folds = deal_folds(keys, names, seed=1)
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(deal_folds([keys[at] for at in order], names[order], seed=1), folds[order])
    assert not np.array_equal(deal_folds(keys, names, seed=2), folds)


def test_views_train_and_are_not_predicted() -> None:
    train, validation = make_data(3, 60), make_data(3, 12, seed=1)
    keys = tuple(f"image {number}" for number in range(72))
    views = np.concatenate([train[0], train[0] + 0.1]), np.concatenate([train[1]] * 2)
    pool = Pool(views, np.tile(np.arange(60), 2), validation, keys)
    assert pool.own.tolist() == [True] * 60 + [False] * 60 + [True] * 12
    assert pool.images[pool.own].tolist() == list(range(72))
    first = fit_heads(views, validation, TrainSettings())[0]
    assert calibrate_candidate(first, pool, TrainSettings()).head.temperature > 0


def test_a_refit_learns_from_the_validation_images_and_keeps_the_temperature() -> None:
    train, validation = make_data(3, 60, 30), make_data(3, 40, 30, seed=1)
    pool, settings = make_pool(train, validation), TrainSettings(refit=True)
    first = calibrate_candidate(fit_heads(train, validation, settings)[0], pool, settings)
    again = refit(first, pool, settings)
    assert again.hyperparameters == first.hyperparameters
    assert again.head.temperature == first.head.temperature
    true = index_classes(validation[1], again.head.classes)
    right = [(each.head.probabilities(validation[0]).argmax(axis=1) == true).mean() for each in (first, again)]
    assert right[1] > right[0]  # it has seen them


@pytest.mark.parametrize("asked", [{"heads": ("mlp",)}, {"heads": ("softmax", "tail")}, {"multi_label": True}])
def test_a_refit_is_refused_where_validation_images_are_needed(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="refit is not supported with"):
        TrainSettings.model_validate({"refit": True, **asked})
