"""How often 95 % intervals contain the truth: ``python -m benchmarks.coverage [--rounds N] [--quick] [--json]``.

Test images are drawn thousands of times from heads whose true figures are known from 200,000 images, and each figure's
interval is computed as the product does. The heads are right on 59 to 91 % of the images of five classes, the rarest of
which has 8 to 15 % of them, and are too sure, rightly sure, or not sure enough; where images come in groups, those of a
group share half of their difficulty. The target is that 0.93 to 0.97 of the intervals contain the truth, on average
over the heads; the worst head is shown as well. The calibration error has no interval: its bias and error are shown.
"""

import argparse
import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from benchmarks.measure import describe_machine
from tasks.heads.heads import Floats, tempered_softmax
from tasks.statistics.paired import find_paired_interval
from tasks.statistics.shares import find_wilson_interval
from tasks.train.cross_validate import Folds, measure_accuracy, measure_mean_average_precision
from tasks.train.fit.multi_label import measure_labels
from tasks.train.measure.metrics import Predictions, compute_metrics

SIZES = (30, 60, 300)
ROUNDS, QUICK_ROUNDS = 3000, 150
POPULATION = 200_000
LOW, HIGH = 0.93, 0.97
SHARES = np.log([0.35, 0.25, 0.2, 0.12, 0.08])
"""Of the five classes, before the images are looked at."""
FREQUENCIES = np.array([0.3, -0.3, -1.0, -1.8])
"""Log odds of the four labels."""
GROUP = 3
"""Images of a group."""
HEADS = tuple(product((1.5, 2.5, 4.0, 6.0, 9.0), (0.7, 1.0, 1.5)))
"""How well a head tells the classes apart, and by how much it exaggerates its logits."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Coverage:
    """How often the interval of a figure contained the truth, over all heads and for the worst of them."""

    name: str
    images: int
    rounds: int
    covered: float
    worst: float
    width: float

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return LOW <= self.covered <= HIGH


@dataclass(frozen=True)
class Sample:
    """Predictions of images, of a second head for the same images, and of several labels; groups [n] of the images."""

    predictions: Predictions
    other: npt.NDArray[np.bool_]
    probabilities: Floats
    truth: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]


def main() -> None:
    """Print the coverage of each figure, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="few rounds, for a first look")
    parser.add_argument("--json", action="store_true", help="a list of figures on stdout, and nothing else")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        truths = [find_truth(np.random.default_rng(number), *head) for number, head in enumerate(HEADS)]
        rounds = QUICK_ROUNDS if options.quick else options.rounds
        rows = [row for images in SIZES for row in measure(truths, images, rounds)]
    if options.json:
        print(json.dumps([{**asdict(row), "holds": row.holds} for row in rows]))
        return
    print(describe_machine())
    print(f"{'':30} {'n':>5} {'covered':>8} {'worst head':>11} {'width':>7} holds, rounds")
    for row in rows:
        ends = f"{row.covered:8.3f} {row.worst:11.3f} {row.width:7.3f} {'yes' if row.holds else 'NO'}, {row.rounds}"
        print(f"{row.name:30} {row.images:5} {ends}")


def measure(truths: Sequence[Metrics], images: int, rounds: int) -> list[Coverage]:
    """Draw so many images again and again, and count the intervals that contain the heads' true figures."""
    random = np.random.default_rng(images)
    covered: dict[str, list[list[bool]]] = defaultdict(lambda: [[] for _ in HEADS])
    widths: dict[str, list[float]] = defaultdict(list)
    errors = []
    for number in range(rounds):
        which = number % len(HEADS)
        sample, grouped = (draw(random, images, *HEADS[which], group) for group in (1, GROUP))
        rows = [*list_intervals(sample, truths[which]), *list_group_intervals(grouped, truths[which])]
        for name, low, high, truth in rows:
            covered[name][which].append(low <= truth <= high)
            widths[name].append(high - low)
        errors.append(compute_metrics(sample.predictions)["calibration_error"] - truths[which]["calibration_error"])
    off, spread = np.mean(errors), np.sqrt(np.mean(np.square(errors)))
    print(f"calibration error of {images} images: bias {off:+.3f}, root mean square error {spread:.3f}")
    return [
        Coverage(
            name,
            images,
            sum(map(len, heads)),
            float(np.mean(np.concatenate([np.array(head, np.float64) for head in heads]))),
            min(float(np.mean(head)) for head in heads if head),
            float(np.mean(widths[name])),
        )
        for name, heads in covered.items()
    ]


def draw(random: np.random.Generator, images: int, apart: float, exaggerated: float, group: int = 1) -> Sample:
    """Draw images, of which so many share half of their logits, and what two heads say of them."""
    groups = np.arange(images) // group
    shared, own = (random.normal(size=(images, len(SHARES) + len(FREQUENCIES))) for _ in range(2))
    mixed = (shared[groups] + own) / np.sqrt(2)
    logits, labels = apart * mixed[:, : len(SHARES)] + SHARES, mixed[:, len(SHARES) :]
    true = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    probabilities = tempered_softmax(exaggerated * logits, 1.0)
    noisy = logits + apart / 3 * random.normal(size=logits.shape)
    odds = apart * labels + FREQUENCIES
    truth = random.random(odds.shape) < expit(odds)
    predictions = Predictions(true, probabilities.argmax(axis=1), probabilities, tempered_softmax(logits, 1.0))
    return Sample(predictions, noisy.argmax(axis=1) == true, expit(exaggerated * odds), truth, groups)


def find_truth(random: np.random.Generator, apart: float, exaggerated: float) -> dict[str, float]:
    """Measure everything on so many images that chance is gone."""
    population = draw(random, POPULATION, apart, exaggerated)
    predictions, correct = population.predictions, population.predictions.correct
    return {
        **compute_metrics(predictions),
        **{f"recall {at}": float(correct[predictions.true == at].mean()) for at in range(len(SHARES))},
        **{f"several {name}": value for name, value in measure_several(population).items()},
        "gain": float(population.other.mean() - correct.mean()),
    }


def measure_several(sample: Sample) -> Metrics:
    """Measure the answers of several labels."""
    return measure_labels(sample.probabilities, sample.probabilities >= 0.5, sample.truth)  # noqa: PLR2004 - half


def list_intervals(sample: Sample, truth: Metrics) -> Iterator[tuple[str, float, float, float]]:
    """Yield each figure's name, the ends of its interval, and its true value."""
    predictions, correct = sample.predictions, sample.predictions.correct
    measured = dict(compute_metrics(predictions))
    measured |= {f"several {name}": value for name, value in measure_several(sample).items()}
    having = [at for at in range(len(SHARES)) if (predictions.true == at).any()]
    recalls = {**truth, "balanced_accuracy": float(np.mean([truth[f"recall {at}"] for at in having]))}
    for name in (name for name in measured if f"{name}_high" in measured):
        yield name, measured[f"{name}_low"], measured[f"{name}_high"], recalls[name]
    for at in having:
        images = int((predictions.true == at).sum())
        low, high = map(float, find_wilson_interval(correct[predictions.true == at].sum(), images))
        yield "recall of a class", low, high, truth[f"recall {at}"]
    new, old = int((sample.other & ~correct).sum()), int((correct & ~sample.other).sum())
    yield "paired difference", *find_paired_interval(new, old, len(correct)), truth["gain"]


def list_group_intervals(sample: Sample, truth: Metrics) -> Iterator[tuple[str, float, float, float]]:
    """Yield the cross-validated figures, whose images come in groups."""
    correct = sample.predictions.correct
    folds = Folds(3, np.zeros(len(correct), np.int64), sample.groups)
    for metrics, name, true in (
        (measure_accuracy(correct.astype(np.float64), folds), "cv_accuracy", truth["accuracy"]),
        (
            measure_mean_average_precision(sample.probabilities, sample.truth, folds),
            "cv_mean_average_precision",
            truth["several mean_average_precision"],
        ),
    ):
        if f"{name}_high" in metrics:
            yield name, metrics[f"{name}_low"], metrics[f"{name}_high"], true


if __name__ == "__main__":
    main()
