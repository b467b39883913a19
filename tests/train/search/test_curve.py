"""Learning curves: extrapolated gains, and the advice that follows from them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tasks.train.search.curve import advise, extrapolate, measure_gain, round_labels
from tasks.train.search.halving import Contender, Trial

IMAGES = [100, 200, 400, 800]


def answer(errors: int, of: int = 1000) -> Mapping[str, bool]:
    """Misclassify the first images, so that images correct on few labels stay correct on more."""
    return {f"image {number}": number >= errors for number in range(of)}


def make_curve(errors: Sequence[int], of: int = 1000) -> list[Trial]:
    frozen = Contender("avgpool", "softmax")
    return [
        Trial(frozen, images, images / 800, answer(wrong, of), 0.5, 0.0)
        for images, wrong in zip(IMAGES, errors, strict=True)
    ]


def make_tail(errors: int, of: int = 1000) -> Trial:
    return Trial(Contender("layer3", "tail"), 800, 1.0, answer(errors, of), 0.4, 0.0)


def advise_on(curve: Sequence[Trial], tail: Trial | None) -> str:
    more = extrapolate(curve, 1600, seed=0)
    return advise(1000, more, "layer3" if tail else None, measure_gain(curve[-1], tail) if tail else None)


RISING, FLAT = [400, 283, 200, 141], [200, 200, 199, 200]


def test_a_power_law_is_extrapolated_to_twice_the_labels() -> None:
    gain = extrapolate(make_curve(RISING), 1600, seed=0)
    assert gain
    assert gain.value == pytest.approx(0.141 - 0.1, abs=0.002)
    assert 0 < gain.low < gain.value < gain.high


def test_one_point_is_not_extrapolated() -> None:
    assert extrapolate(make_curve(RISING)[:1], 1600, seed=0) is None


def test_the_gain_of_a_perfect_head_has_an_interval_of_few_images() -> None:
    gains = extrapolate(make_curve([0] * 4, 15), 1600, seed=0), measure_gain(make_tail(0, 15), make_tail(0, 15))
    for gain in gains:
        assert gain
        assert gain.value == 0
        assert -gain.low == gain.high == pytest.approx(0.204, abs=0.001)


def test_the_interval_of_a_gain_usually_contains_the_truth() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(40):
        flips = random.random((2, 400)) < np.array([[0.30], [0.20]])
        before, after = (
            Trial(Contender("a", "softmax"), 1, 1.0, {str(n): bool(not f) for n, f in enumerate(row)}, 0, 0)
            for row in flips
        )
        gain = measure_gain(before, after)
        held += gain.low <= 0.1 <= gain.high
    assert held >= 34


def test_a_rising_curve_and_a_weak_tail_advise_more_labels() -> None:
    line = advise_on(make_curve(RISING), make_tail(139))
    assert line.startswith("1,000 more labels (+4.1 points, ")
    assert "are worth more than unfreezing what follows layer3 (+0.2 points" in line
    assert "erhaps" not in line


def test_a_flat_curve_and_a_better_tail_advise_unfreezing() -> None:
    line = advise_on(make_curve(FLAT), make_tail(100))
    assert line.startswith("Unfreezing what follows layer3 (+10.0 points, ")
    assert "is worth more than 1,000 more labels" in line
    assert "erhaps" not in line


def test_overlapping_intervals_say_perhaps() -> None:
    line = advise_on(make_curve([40, 28, 20, 14], 100), make_tail(9, 100))
    assert line.startswith("Perhaps unfreezing what follows layer3 (+5.0")
    assert line.endswith("the intervals overlap")


def test_advice_says_if_neither_is_known_to_help() -> None:
    line = advise_on(make_curve([20, 22, 19, 20], 100), make_tail(20, 100))
    assert line.startswith("Neither 1,000 more labels (")
    assert line.endswith("is known to change the accuracy")


def test_advice_without_a_tail_covers_labels_only() -> None:
    sure = advise_on(make_curve(RISING), None)
    assert sure.startswith("1,000 more labels would add +4.1 points")
    assert sure.endswith("unfreezing was not tried")
    assert advise_on(make_curve([20, 22, 19, 20], 100), None).startswith(
        "1,000 more labels would perhaps add nothing ("
    )
    assert "can be judged" in advise(10, None, None, None)


@pytest.mark.parametrize(("images", "rounded"), [(1787, 2000), (60, 60), (7, 7), (94, 90), (999, 1000)])
def test_labels_are_rounded_to_one_digit(images: int, rounded: int) -> None:
    assert round_labels(images) == rounded
