"""The headline figures of a head, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import SMALLEST_PROBABILITY
from tasks.heads.heads import Classifier, Floats, soften
from tasks.train.fit.sample import Names
from tasks.train.measure.intervals import resample, take_percentiles, wilson

TOPS = (3, 5)
BINS = 15
UNKNOWN = -1

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a head says of n images: probabilities [n, classes], and those before the temperature.

    ``true`` has the number of each image's class, -1 where the head does not know it; ``predicted`` the likeliest's.
    """

    true: Numbers
    predicted: Numbers
    probabilities: Floats
    before: Floats

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image's class is the likeliest."""
        return np.equal(self.predicted, self.true)


def ask(head: Classifier, features: Matrix, names: Names) -> Answers:
    """Ask a head about images [n, dim] of known classes."""
    logits = head.logits(features)
    probabilities = soften(logits, head.temperature)
    true = number_classes(names, head.classes)
    return Answers(true, probabilities.argmax(axis=1), probabilities, soften(logits, 1.0))


def number_classes(names: Names, classes: Sequence[str]) -> Numbers:
    """Give each name's number among the classes, -1 where it is none of them."""
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers.get(name, UNKNOWN) for name in names.tolist()], np.int64)


def find_losses(probabilities: Floats, true: Numbers) -> Floats:
    """Give the negative log probability of each true class, nats; a class that is not known has 1e-15."""
    given = np.where(true >= 0, probabilities[np.arange(len(true)), true], 0.0)
    return cast("Floats", -np.log(np.maximum(given, SMALLEST_PROBABILITY)))


def measure(answers: Answers, seed: int) -> dict[str, float]:
    """Give each figure under its name, and the ends of its 95 % interval under that with ``_low`` and ``_high``.

    - ``accuracy``; ``top_3_accuracy`` and ``top_5_accuracy`` where there are more classes than that;
    - ``balanced_accuracy``, the mean recall over the classes that have an image;
    - ``macro_f1``, the mean F1 over the classes that have an image or are predicted;
    - ``log_loss``, nats an image;
    - ``calibration_error``, the mean distance between probability and accuracy in 15 bins (Naeini et al. 2015); these
      two as they are, and with ``_before`` as they were before the temperature.

    Intervals are percentiles of 1,000 resamples of the images. A share of 0 or 1 does not vary there: it has Wilson's.
    A calibration error cannot be negative, so that resampling raises it: what it adds on average is taken off.
    """
    blocks = _tabulate(answers)
    table, ends = csr_array(hstack(blocks)), np.cumsum([block.shape[1] for block in blocks])[:-1]
    images = len(answers.true)
    found = _figure(np.split(table.sum(axis=0)[None], ends, axis=1), images)
    spread = _figure(np.split(resample(table, seed), ends, axis=1), images)
    return bound(found, spread, images)


def bound(found: Mapping[str, Floats], spread: Mapping[str, Floats], images: int) -> dict[str, float]:
    """Give each figure [1] under its name, and the ends of its interval under that with ``_low`` and ``_high``.

    ``spread`` has the figures' values over resamples of so many images.
    """
    metrics: dict[str, float] = {}
    for name, (value,) in found.items():
        low, high = _find_ends(name, float(value), spread[name], images)
        metrics |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
    return metrics


def _find_ends(name: str, value: float, spread: Floats, images: int) -> tuple[float, float]:
    low, high = take_percentiles(spread)
    if name.startswith("calibration_error"):
        added = float(spread.mean()) - value
        return max(low - added, 0.0), max(high - added, 0.0)
    if value in {0, 1} and not name.startswith("log_loss"):
        low, high = map(float, wilson(value * images, images))
    return low, high


def find_bins(sureness: Floats) -> Numbers:
    """Give the bin of each probability [n]: fifteen of equal width, each with its upper end."""
    return np.clip(np.ceil(sureness * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _tabulate(answers: Answers) -> tuple[csr_array, ...]:
    """Write what each image adds to each sum that a figure is made of."""
    true, predicted, right = answers.true, answers.predicted, answers.right
    classes = answers.probabilities.shape[1]
    both = answers.probabilities, answers.before
    losses = [find_losses(each, true) for each in both]
    tops = [right, *(_rank(answers) < top for top in TOPS if top < classes)]
    return (
        csr_array(np.stack(tops, axis=1, dtype=np.float64)),
        csr_array(np.stack(losses, axis=1)),
        _spread(right, true, classes),
        _spread(true >= 0, true, classes),
        _spread(np.ones(len(true)), predicted, classes),
        *(_spread(sure - right, find_bins(sure), BINS) for sure in (each.max(axis=1) for each in both)),
    )


def _rank(answers: Answers) -> Numbers:
    """Count the classes that come before the true one, the first of equals first; all where it is not known."""
    true, chances = answers.true[:, None], answers.probabilities
    given = np.take_along_axis(chances, np.maximum(true, 0), axis=1)
    before = (chances > given) | ((chances == given) & (np.arange(chances.shape[1]) < true))
    return cast("Numbers", np.where(answers.true >= 0, before.sum(axis=1), chances.shape[1]))


def _spread(values: npt.ArrayLike, columns: Numbers, width: int) -> csr_array:
    """Put one value a row into its column."""
    rows = np.arange(len(columns))
    return csr_array((np.asarray(values, np.float64), (rows, np.maximum(columns, 0))), shape=(len(columns), width))


def _figure(sums: Sequence[Floats], images: int) -> dict[str, Floats]:
    """Make the figures, [r] each, from sums [r, m] over as many images."""
    tops, losses, hits, true, predicted, gaps, gaps_before = sums
    names = ["accuracy", *(f"top_{top}_accuracy" for top in TOPS)]
    return {
        **dict(zip(names, tops.T / images, strict=False)),
        "balanced_accuracy": average_shares(hits, true),
        "macro_f1": average_shares(2 * hits, true + predicted),
        "log_loss": losses[:, 0] / images,
        "log_loss_before": losses[:, 1] / images,
        "calibration_error": np.abs(gaps).sum(axis=1) / images,
        "calibration_error_before": np.abs(gaps_before).sum(axis=1) / images,
    }


def average_shares(parts: Floats, wholes: Floats) -> Floats:
    """Average the shares [r, classes] of wholes that are not empty."""
    shares = np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
    return cast("Floats", shares.sum(axis=1) / np.maximum((wholes > 0).sum(axis=1), 1))
