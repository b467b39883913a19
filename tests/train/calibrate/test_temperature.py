"""The temperature, compared with a direct minimisation of the loss."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Head
from tasks.train.calibrate.temperature import calibrate
from tasks.train.measure.metrics import assign_bins
from tests.train.answers import CLASSES, draw, make_head


def lowest(logits: Matrix, true: npt.NDArray[np.int64]) -> float:
    """Find the temperature with the lowest mean log loss."""

    def loss(power: float) -> float:
        return float(-log_softmax(logits.astype(float) / np.exp(power), axis=1)[np.arange(len(true)), true].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x))


@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_the_temperature_minimises_the_loss_and_corrects_overconfidence(sureness: float) -> None:
    logits, true = draw(2000, seed=1)
    head = calibrate(make_head(), sureness * logits, CLASSES[true])
    assert head.temperature == pytest.approx(lowest(sureness * logits, true), rel=1e-6)
    assert head.temperature == pytest.approx(sureness, rel=0.1)  # the classes were drawn with these logits


def test_calibration_changes_no_prediction() -> None:
    logits, true = draw(500, seed=2)
    head = calibrate(make_head(), 3 * logits, CLASSES[true])
    before, after = make_head().probabilities(3 * logits), head.probabilities(3 * logits)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert not np.allclose(before, after)


def test_the_temperature_is_1_if_no_validation_image_is_misclassified() -> None:
    logits, _ = draw(200, seed=3)
    assert calibrate(make_head(), logits, CLASSES[logits.argmax(axis=1)]).temperature == 1


def test_the_temperature_is_1_if_the_head_is_worse_than_chance() -> None:
    logits, _ = draw(200, seed=4)
    assert calibrate(make_head(), logits, CLASSES[logits.argmin(axis=1)]).temperature == 1


def test_images_of_unknown_classes_are_ignored() -> None:
    logits, true = draw(500, seed=5)
    names = CLASSES[true].astype("U8")
    alone = calibrate(make_head(), 2 * logits, names)
    among = calibrate(make_head(), np.vstack([2 * logits, logits]), np.concatenate([names, np.full(500, "new")]))
    assert among.temperature == alone.temperature != 1
    assert calibrate(make_head(), logits, np.full(500, "new")).temperature == 1


def test_bins_include_their_upper_ends() -> None:
    assert assign_bins(np.array([0.0, 1 / 15, 0.07, 0.5, 14 / 15, 0.95, 1.0])).tolist() == [0, 0, 1, 7, 13, 14, 14]


def test_the_temperature_defaults_to_1() -> None:
    head = make_head()
    known = Head(head.classes, head.mean, head.scale, head.weights, head.bias)
    logits, _ = draw(10, seed=6)
    assert np.array_equal(known.probabilities(logits), head.probabilities(logits))
