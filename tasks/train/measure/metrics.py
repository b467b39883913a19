"""The metrics of a head, each with its confidence interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import SMALLEST_PROBABILITY
from tasks.heads.heads import Classifier, Floats, tempered_softmax
from tasks.statistics.classes import count_classes, find_f1_interval, find_recall_interval
from tasks.statistics.means import find_mean_interval
from tasks.statistics.shares import find_wilson_interval
from tasks.train.fit.examples import ClassNames

TOPS = (3, 5)
BINS = 15
UNKNOWN = -1

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """A head's predictions for n images: probabilities [n, classes], calibrated and ``uncalibrated``.

    ``true`` is the index of each image's class, -1 if the head does not know it; ``predicted`` that of the likeliest.
    """

    true: Indices
    predicted: Indices
    probabilities: Floats
    uncalibrated: Floats

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each image's class was predicted."""
        return np.equal(self.predicted, self.true)


def predict(head: Classifier, features: Matrix, names: ClassNames) -> Predictions:
    """Predict images [n, dim] whose class names [n] are known."""
    logits = head.logits(features)
    probabilities = tempered_softmax(logits, head.temperature)
    true = index_classes(names, head.classes)
    return Predictions(true, probabilities.argmax(axis=1), probabilities, tempered_softmax(logits, 1.0))


def index_classes(names: ClassNames, classes: Sequence[str]) -> Indices:
    """Return the index of each name among the classes, -1 for unknown names."""
    indices = {name: index for index, name in enumerate(classes)}
    return np.array([indices.get(name, UNKNOWN) for name in names.tolist()], np.int64)


def compute_log_losses(probabilities: Floats, true: Indices) -> Floats:
    """Return the negative log probability of each true class in nats; unknown classes count as 1e-15."""
    assigned = np.where(true >= 0, probabilities[np.arange(len(true)), true], 0.0)
    return cast("Floats", -np.log(np.maximum(assigned, SMALLEST_PROBABILITY)))


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """Return each metric under its name, and the ends of its 95 % interval with ``_low`` and ``_high``.

    - ``accuracy``; ``top_3_accuracy`` and ``top_5_accuracy`` if there are more classes than that;
    - ``balanced_accuracy``, the mean recall of the classes that have an image;
    - ``macro_f1``, the mean F1 of the classes that have an image or are predicted;
    - ``log_loss``, in nats per image;
    - ``calibration_error``, the expected calibration error over 15 bins (Naeini et al. 2015), less the error that
      chance alone adds. It has no interval: none that was tried holds for few images. The last two also come with
      ``_before``, without the temperature.

    ``python -m benchmarks.coverage`` shows how often the intervals contain the truth.
    """
    true, predicted, classes = predictions.true, predictions.predicted, predictions.probabilities.shape[1]
    counts, rank = count_classes(true, predicted, classes), _rank(predictions)
    balanced = average_ratios(counts.hits, counts.true)
    macro_f1 = average_ratios(2 * counts.hits, counts.true + counts.predicted)
    metrics = name_share("accuracy", predictions.correct)
    for top in (top for top in TOPS if top < classes):
        metrics |= name_share(f"top_{top}_accuracy", rank < top)
    metrics |= name_interval("balanced_accuracy", balanced, find_recall_interval(balanced, counts))
    metrics |= name_interval("macro_f1", macro_f1, find_f1_interval(macro_f1, counts))
    both = (("", predictions.probabilities), ("_before", predictions.uncalibrated))
    for suffix, probabilities in both:
        metrics |= name_mean(f"log_loss{suffix}", compute_log_losses(probabilities, true))
    errors = {f"calibration_error{end}": find_calibration_error(each, predictions.correct) for end, each in both}
    return {**metrics, **errors}


def name_interval(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    """Return a metric under its name, and the ends of its interval with ``_low`` and ``_high``."""
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def name_share(name: str, which: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of images with Wilson's interval, under its name."""
    low, high = find_wilson_interval(which.sum(), len(which))
    return name_interval(name, float(which.mean()), (float(low), float(high)))


def name_mean(name: str, values: Floats) -> dict[str, float]:
    """Return the mean of values that are not negative with its interval, under its name."""
    return name_interval(name, float(values.mean()), find_mean_interval(values))


def find_calibration_error(probabilities: Floats, correct: npt.NDArray[np.bool_]) -> float:
    """Return the mean distance between stated probability and accuracy over 15 bins, less what chance adds.

    Even a calibrated head is off in each bin by chance. The expected distance, if the difference that was found were
    true, exceeds that difference by about as much as it exceeds the true one (Kumar et al., Verified uncertainty
    calibration, 2019). A bin's accuracy varies as if one more image were in it, right with the stated probability.
    """
    from scipy.special import ndtr  # late: its import takes a while

    top = probabilities.max(axis=1)
    bins = assign_bins(top)
    images, hits, sums = (np.bincount(bins, each, BINS) for each in (None, correct, top))
    used = images > 0
    images, hits, stated = images[used], hits[used], sums[used] / images[used]
    gap, likely = np.abs(stated - hits / images), (hits + stated) / (images + 1)
    deviation = np.maximum(np.sqrt(likely * (1 - likely) / images), SMALLEST_PROBABILITY)
    ratio = gap / deviation
    expected = deviation * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * ndtr(-ratio))
    return max(float(images @ (2 * gap - expected)) / len(top), 0.0)


def assign_bins(probabilities: Floats) -> Indices:
    """Return the bin of each probability [n], of fifteen of equal width that include their upper ends."""
    return np.clip(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _rank(predictions: Predictions) -> Indices:
    """Count the classes ranked before the true one; of equals, the first ranks first. Unknown classes rank last."""
    true, probabilities = predictions.true[:, None], predictions.probabilities
    given = np.take_along_axis(probabilities, np.maximum(true, 0), axis=1)
    before = (probabilities > given) | ((probabilities == given) & (np.arange(probabilities.shape[1]) < true))
    return cast("Indices", np.where(predictions.true >= 0, before.sum(axis=1), probabilities.shape[1]))


def average_ratios(numerators: Floats, denominators: Floats) -> float:
    """Average the ratios [classes] whose denominator is not 0; 0 if there is none."""
    used = denominators > 0
    return float((numerators[used] / denominators[used]).mean()) if used.any() else 0.0
