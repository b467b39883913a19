"""The metrics of a head, each with its confidence interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from storage.vectors.feature_file import Matrix
from tasks.heads.answers import SMALLEST_PROBABILITY
from tasks.heads.heads import Classifier, Floats, tempered_softmax
from tasks.statistics.bootstrap import bootstrap_sums, find_percentile_interval
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


def compute_metrics(predictions: Predictions, seed: int) -> dict[str, float]:
    """Return each metric under its name, and the ends of its 95 % interval with ``_low`` and ``_high``.

    - ``accuracy``; ``top_3_accuracy`` and ``top_5_accuracy`` if there are more classes than that;
    - ``balanced_accuracy``, the mean recall of the classes that have an image;
    - ``macro_f1``, the mean F1 of the classes that have an image or are predicted;
    - ``log_loss``, in nats per image;
    - ``calibration_error``, the expected calibration error over 15 bins (Naeini et al. 2015). The last two also come
      with ``_before``, without the temperature.

    Intervals are percentiles of 1,000 bootstrap resamples. A proportion of 0 or 1 does not vary there and gets Wilson's
    interval. A calibration error cannot be negative, so resampling biases it upwards: the mean bias is subtracted.
    """
    blocks = _tabulate(predictions)
    table, ends = csr_array(hstack(blocks)), np.cumsum([block.shape[1] for block in blocks])[:-1]
    images = len(predictions.true)
    values = _compute(np.split(table.sum(axis=0)[None], ends, axis=1), images)
    resampled = _compute(np.split(bootstrap_sums(table, seed), ends, axis=1), images)
    return add_intervals(values, resampled, images)


def add_intervals(values: Mapping[str, Floats], resampled: Mapping[str, Floats], images: int) -> dict[str, float]:
    """Return each metric [1] under its name, and the ends of its 95 % interval with ``_low`` and ``_high``.

    ``resampled`` are the metrics' values over bootstrap resamples of this many images.
    """
    metrics: dict[str, float] = {}
    for name, (value,) in values.items():
        low, high = _find_ends(name, float(value), resampled[name], images)
        metrics |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
    return metrics


def _find_ends(name: str, value: float, resampled: Floats, images: int) -> tuple[float, float]:
    low, high = find_percentile_interval(resampled)
    if name.startswith("calibration_error"):
        bias = float(resampled.mean()) - value
        return max(low - bias, 0.0), max(high - bias, 0.0)
    if value in {0, 1} and not name.startswith("log_loss"):
        low, high = map(float, find_wilson_interval(value * images, images))
    return low, high


def assign_bins(probabilities: Floats) -> Indices:
    """Return the bin of each probability [n], of fifteen of equal width that include their upper ends."""
    return np.clip(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _tabulate(predictions: Predictions) -> tuple[csr_array, ...]:
    """Return what each image adds to each sum that the metrics are computed from."""
    true, predicted, correct = predictions.true, predictions.predicted, predictions.correct
    classes = predictions.probabilities.shape[1]
    both = predictions.probabilities, predictions.uncalibrated
    losses = [compute_log_losses(each, true) for each in both]
    tops = [correct, *(_rank(predictions) < top for top in TOPS if top < classes)]
    return (
        csr_array(np.stack(tops, axis=1, dtype=np.float64)),
        csr_array(np.stack(losses, axis=1)),
        _scatter(correct, true, classes),
        _scatter(true >= 0, true, classes),
        _scatter(np.ones(len(true)), predicted, classes),
        *(_scatter(top - correct, assign_bins(top), BINS) for top in (each.max(axis=1) for each in both)),
    )


def _rank(predictions: Predictions) -> Indices:
    """Count the classes ranked before the true one; of equals, the first ranks first. Unknown classes rank last."""
    true, probabilities = predictions.true[:, None], predictions.probabilities
    given = np.take_along_axis(probabilities, np.maximum(true, 0), axis=1)
    before = (probabilities > given) | ((probabilities == given) & (np.arange(probabilities.shape[1]) < true))
    return cast("Indices", np.where(predictions.true >= 0, before.sum(axis=1), probabilities.shape[1]))


def _scatter(values: npt.ArrayLike, columns: Indices, width: int) -> csr_array:
    """Place one value per row in its column."""
    rows = np.arange(len(columns))
    return csr_array((np.asarray(values, np.float64), (rows, np.maximum(columns, 0))), shape=(len(columns), width))


def _compute(sums: Sequence[Floats], images: int) -> dict[str, Floats]:
    """Compute the metrics [r] from sums [r, m] over this many images."""
    tops, losses, hits, true, predicted, gaps, gaps_before = sums
    names = ["accuracy", *(f"top_{top}_accuracy" for top in TOPS)]
    return {
        **dict(zip(names, tops.T / images, strict=False)),
        "balanced_accuracy": average_ratios(hits, true),
        "macro_f1": average_ratios(2 * hits, true + predicted),
        "log_loss": losses[:, 0] / images,
        "log_loss_before": losses[:, 1] / images,
        "calibration_error": np.abs(gaps).sum(axis=1) / images,
        "calibration_error_before": np.abs(gaps_before).sum(axis=1) / images,
    }


def average_ratios(numerators: Floats, denominators: Floats) -> Floats:
    """Average the ratios [r, classes] whose denominator is not 0."""
    ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0)
    return cast("Floats", ratios.sum(axis=1) / np.maximum((denominators > 0).sum(axis=1), 1))
