"""Learning curves: the expected gain from more labels, compared with that from unfreezing more layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage.plural import pluralize
from tasks.heads.heads import Floats
from tasks.statistics.bootstrap import draw_bootstrap_counts, find_percentile_interval
from tasks.statistics.paired import find_paired_interval
from tasks.statistics.shares import find_wilson_interval
from tasks.train.search.halving import Trial

MIN_POINTS = 2
"""A curve needs this many points to be extrapolated."""


@dataclass(frozen=True)
class Gain:
    """A gain in accuracy, with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """Format the gain in percentage points."""
        return f"{100 * self.value:+.1f} points, {100 * self.low:+.1f} to {100 * self.high:+.1f}"


def measure_gain(frozen: Trial, unfrozen: Trial) -> Gain:
    """Measure the gain of the second trial over the first, on the validation images that they share."""
    shared = frozen.correct.keys() & unfrozen.correct.keys()
    only_new, only_old = (
        sum(one.correct[image] and not other.correct[image] for image in shared)
        for one, other in ((unfrozen, frozen), (frozen, unfrozen))
    )
    low, high = find_paired_interval(only_new, only_old, len(shared))
    return Gain((only_new - only_old) / max(len(shared), 1), low, high)


def extrapolate(curve: Sequence[Trial], images: int, seed: int) -> Gain | None:
    """Estimate the gain over the last point of a learning curve from training on more images.

    The error falls as a power of the number of images (Hestness et al., Deep learning scaling is predictable,
    empirically, 2017): a straight line in logarithms, fitted by weighted least squares. The interval is a bootstrap of
    1,000 resamples of the validation images, the same for all points; it assumes that the power law holds.

    Args:
        curve: Trials of one contender on increasing numbers of images.
        images: The number of images to extrapolate to.
        seed: Seed of the bootstrap.

    Returns:
        The gain, or None if the curve has fewer than two points.
    """
    numbers = np.log([trial.images for trial in curve])
    if len(set(numbers.tolist())) < MIN_POINTS:
        return None
    least = 0.5 / max(len(curve[-1].correct), 1)
    errors = np.clip([[1 - trial.accuracy for trial in curve]], least, 1 - least)
    weights = (errors / (1 - errors))[0]
    gains, spread = (
        _fit_gain(each, numbers, weights, math.log(images))
        for each in (errors, np.clip(1 - _resample(curve, seed).T, least, 1))
    )
    return _bound(float(gains[0]), spread, len(curve[-1].correct))


def _bound(value: float, spread: Floats, images: int) -> Gain:
    """Use the bootstrap percentiles or, if the resamples do not vary, Wilson's interval of 0 among these images."""
    low, high = find_percentile_interval(spread)
    if low == high:
        unseen = float(find_wilson_interval(0, images)[1])
        return Gain(value, low - unseen, high + unseen)
    return Gain(value, low, high)


def _fit_gain(errors: Floats, numbers: Floats, weights: Floats, at: float) -> Floats:
    """Fit a power law to each row of errors [r, points]; return its fall from the last point to ``at`` [r]."""
    logs, total = np.log(errors), weights.sum()
    middle, level = numbers @ weights / total, logs @ weights / total
    slope = (logs - level[:, None]) @ (weights * (numbers - middle)) / (weights @ (numbers - middle) ** 2)
    last, extrapolated = (np.exp(level + slope * (number - middle)) for number in (numbers[-1], at))
    gains: Floats = last - np.minimum(extrapolated, 1)
    return gains


def _resample(trials: Sequence[Trial], seed: int) -> Floats:
    """Return the trials' accuracies over resamples of the validation images that they share, [trials, 1000]."""
    shared = [image_id for image_id in trials[0].correct if all(image_id in trial.correct for trial in trials)]
    right = np.array([[trial.correct[image_id] for image_id in shared] for trial in trials], np.float64)
    return np.concatenate([counts @ right.T for counts in draw_bootstrap_counts(len(shared), seed)]).T / len(shared)


def round_labels(images: int) -> int:
    """Round a number of images to one significant digit."""
    step = int(10 ** max(len(str(images)) - 1, 0))
    return max(round(images / step), 1) * step


def advise(labels: int, more: Gain | None, cut: str | None, unfrozen: Gain | None) -> str:
    """Advise in one line whether to add labels or to unfreeze what follows a cut.

    The advice says "perhaps" if the intervals overlap, and that neither is known to help if both contain 0.
    """
    many, deeper = pluralize(labels, "more label"), _name_unfreezing(cut)
    if more is None or unfrozen is None:
        return _advise_one(many, more, deeper, unfrozen)
    words = {many: f"{many} ({more})", deeper: f"{deeper} ({unfrozen})"}
    if not more.significant and not unfrozen.significant:
        return f"Neither {words[many]} nor {words[deeper]} is known to change the accuracy"
    better, worse = (many, deeper) if more.value >= unfrozen.value else (deeper, many)
    first, second = (more, unfrozen) if better == many else (unfrozen, more)
    verb = "are" if better == many and labels != 1 else "is"
    if first.low > second.high:
        return f"{_capitalise(words[better])} {verb} worth more than {words[worse]}"
    return f"Perhaps {words[better]} {verb} worth more than {words[worse]}: the intervals overlap"


def _advise_one(many: str, more: Gain | None, deeper: str, unfrozen: Gain | None) -> str:
    if more is None and unfrozen is None:
        return f"Neither {many} nor unfreezing can be judged from this search"
    gain, name = (more, many) if more else (unfrozen, deeper)
    other = "unfreezing was not tried" if more else f"{many} cannot be judged"
    if gain and gain.significant:
        return f"{_capitalise(name)} would add {gain}; {other}"
    return f"{_capitalise(name)} would perhaps add nothing ({gain}); {other}"


def _name_unfreezing(cut: str | None) -> str:
    return "fine-tuning the whole network" if cut == "input" else f"unfreezing what follows {cut}"


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
