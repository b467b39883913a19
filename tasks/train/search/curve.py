"""Learning curves: what more labels would be worth, against unfreezing more, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.heads.heads import Floats
from tasks.train.measure.intervals import draw, take_percentiles, wilson
from tasks.train.search.halving import Trial

POINTS = 2
"""Shares of the labels at least, to extrapolate from."""


@dataclass(frozen=True)
class Gain:
    """What something adds to the accuracy, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether it is known to add, or to take away."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """Tell it in points."""
        return f"{100 * self.value:+.1f} points, {100 * self.low:+.1f} to {100 * self.high:+.1f}"


def measure_gain(frozen: Trial, unfrozen: Trial, seed: int) -> Gain:
    """Measure what the second adds to the first, on the validation images that both were asked about.

    The interval is over 1,000 resamples of the images, the same for both.
    """
    before, after = _resample([frozen, unfrozen], seed)
    return _bound(unfrozen.accuracy - frozen.accuracy, after - before, len(unfrozen.right))


def extrapolate(curve: Sequence[Trial], images: int, seed: int) -> Gain | None:
    """Say what so many images to train on would add to the last point of a learning curve, as fitted.

    The error falls as a power of the images (Hestness et al., Deep learning scaling is predictable, empirically, 2017),
    a straight line in logarithms, fitted with the weight that each point's error has. The interval is over 1,000
    resamples of the validation images, the same for all points: it does not know whether the law holds that far.

    Args:
        curve: one contender at growing numbers of images.
        images: how many there would be.
        seed: of the resamples.

    Returns:
        None where there are fewer than two points.
    """
    numbers = np.log([trial.images for trial in curve])
    if len(set(numbers.tolist())) < POINTS:
        return None
    least = 0.5 / max(len(curve[-1].right), 1)
    errors = np.clip([[1 - trial.accuracy for trial in curve]], least, 1 - least)
    weights = (errors / (1 - errors))[0]
    gains, spread = (
        _fit_gain(each, numbers, weights, math.log(images))
        for each in (errors, np.clip(1 - _resample(curve, seed).T, least, 1))
    )
    return _bound(float(gains[0]), spread, len(curve[-1].right))


def _bound(value: float, spread: Floats, images: int) -> Gain:
    """Give the middle 95 % of the resamples; where they do not vary, what so many images cannot tell from none."""
    low, high = take_percentiles(spread)
    if low == high:
        unseen = float(wilson(0, images)[1])
        return Gain(value, low - unseen, high + unseen)
    return Gain(value, low, high)


def _fit_gain(errors: Floats, numbers: Floats, weights: Floats, at: float) -> Floats:
    """Fit a power law to each row of errors [r, points]; give by how much each falls from the last point [r]."""
    logs, total = np.log(errors), weights.sum()
    middle, level = numbers @ weights / total, logs @ weights / total
    slope = (logs - level[:, None]) @ (weights * (numbers - middle)) / (weights @ (numbers - middle) ** 2)
    last, then = (np.exp(level + slope * (place - middle)) for place in (numbers[-1], at))
    gains: Floats = last - np.minimum(then, 1)
    return gains


def _resample(trials: Sequence[Trial], seed: int) -> Floats:
    """Give the accuracies of trials over resamples of the validation images that all know, [trials, 1000]."""
    shared = [image_id for image_id in trials[0].right if all(image_id in trial.right for trial in trials)]
    right = np.array([[trial.right[image_id] for image_id in shared] for trial in trials], np.float64)
    return np.concatenate([counts @ right.T for counts in draw(len(shared), seed)]).T / len(shared)


def round_labels(images: int) -> int:
    """Round a number of images to one digit, as nobody knows it better."""
    step = int(10 ** max(len(str(images)) - 1, 0))
    return max(round(images / step), 1) * step


def advise(labels: int, more: Gain | None, cut: str | None, unfrozen: Gain | None) -> str:
    """Say in one line what is worth more: so many more labels, or unfreezing what follows a cut.

    It says "perhaps" where the two intervals overlap, and that neither is known to help where both hold 0.
    """
    many, deeper = f"{labels:,} more labels", _name(cut)
    if more is None or unfrozen is None:
        return _advise_one(many, more, deeper, unfrozen)
    told = {many: f"{many} ({more})", deeper: f"{deeper} ({unfrozen})"}
    if not more.sure and not unfrozen.sure:
        return f"Neither {told[many]} nor {told[deeper]} is known to change the accuracy"
    better, worse = (many, deeper) if more.value >= unfrozen.value else (deeper, many)
    first, second = (more, unfrozen) if better == many else (unfrozen, more)
    verb = "are" if better == many else "is"
    if first.low > second.high:
        return f"{_capital(told[better])} {verb} worth more than {told[worse]}"
    return f"Perhaps {told[better]} {verb} worth more than {told[worse]}: the intervals overlap"


def _advise_one(many: str, more: Gain | None, deeper: str, unfrozen: Gain | None) -> str:
    if more is None and unfrozen is None:
        return f"Neither {many} nor unfreezing can be judged from this search"
    known, name = (more, many) if more else (unfrozen, deeper)
    other = "unfreezing was not tried" if more else f"{many} cannot be judged"
    if known and known.sure:
        return f"{_capital(name)} would add {known}; {other}"
    return f"{_capital(name)} would perhaps add nothing ({known}); {other}"


def _name(cut: str | None) -> str:
    return "fine-tuning the whole network" if cut == "input" else f"unfreezing what follows {cut}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
