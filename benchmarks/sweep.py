"""Heads at 45 strengths of L2, against scikit-learn: ``python -m benchmarks.sweep``.

Features of 50 overlapping classes whose spectrum falls as a network's does; strengths from 1 to 1e-6. The other side
fits ``LogisticRegression`` (L-BFGS, its default tolerance) to the same float32 features, standardised, one strength
after the other. The loss at which a strength ends must not lie above its by more than 1e-4; where it does most is
shown. The strength that each side finds best on validation is measured on test: ours must lie in the bootstrap interval
of scikit-learn's accuracy, or above, and no more than half a point below. The ridge path stands against one ``Ridge``.
"""

import argparse
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, time_seconds
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.train.fit import examples
from tasks.train.fit.axes import find_principal_axes
from tasks.train.fit.ridge import fit_ridge
from tasks.train.fit.softmax import fit_softmax

Labels = npt.NDArray[np.intp]

ROWS, DIM, CLASSES = 20_000, 512, 50
QUICK_ROWS, QUICK_DIM, QUICK_CLASSES = 1_000, 64, 10
STRENGTHS = np.logspace(0, -6, 45).tolist()
STEPS = 1000
RESAMPLES = 1000
APART = 0.2  # from the mean of a class to the next, by an axis, in deviations
Fitted = list[tuple[Floats, Floats]]
"""Weights [dim, classes] of the standardised features and biases [classes], for each strength."""


@dataclass(frozen=True)
class Sample:
    """Features [n, dim], float32, and numbers of classes [n]."""

    features: Matrix
    labels: Labels

    def split(self, parts: int) -> list["Sample"]:
        """Part the rows."""
        rows = np.arange(len(self.labels)) % parts
        return [Sample(self.features[rows == part], self.labels[rows == part]) for part in range(parts)]


def main() -> None:
    """Fit all strengths both ways, in turns."""
    run_benchmark(make_parser(__doc__), measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Measure time, loss and accuracy."""
    shape = (QUICK_ROWS, QUICK_DIM, QUICK_CLASSES) if options.quick else (ROWS, DIM, CLASSES)
    train, validation, test = standardise(*draw(3 * shape[0], *shape[1:]).split(3))
    fitted: dict[str, Fitted] = {}
    softmax = compare(
        1 if options.quick else options.runs,
        lambda: time_seconds(lambda: fitted.update(ours=fit_together(train))),
        lambda: time_seconds(lambda: fitted.update(theirs=fit_apart(train))),
    )
    ridge = compare(
        options.runs,
        lambda: time_seconds(lambda: fit_ridges(train)),
        lambda: time_seconds(lambda: fit_one_ridge(train)),
    )
    losses = [
        (find_loss(train, ours, l2), find_loss(train, theirs, l2))
        for ours, theirs, l2 in zip(fitted["ours"], fitted["theirs"], STRENGTHS, strict=True)
    ]
    worst = max(losses, key=lambda two: two[0] / two[1])
    right = [find_right(test, choose(validation, fitted[side])) for side in ("ours", "theirs")]
    lowest = max(bootstrap_low(right[1]), right[1].mean() - 0.005)
    size = f"{shape[0]:,} x {shape[1]}, {shape[2]} classes"
    return [
        Ratio(f"{len(STRENGTHS)} softmax heads, {size} / separate fits", softmax, 0.25, "s", at_most=True),
        Ratio("their final loss, where ours is worst", (worst,), 1.0001, "nats", at_most=True),
        Ratio("test accuracy of the best", ((right[0].mean(), right[1].mean()),), lowest / right[1].mean(), "share"),
        Ratio(f"{len(STRENGTHS)} ridge heads, {size} / one fit", ridge, 1.3, "s", at_most=True),
    ]


def draw(rows: int, dim: int, classes: int) -> Sample:
    """Draw classes that overlap: their means differ by less than the images of one do."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, rows)
    turn = random.normal(size=(dim, dim)) * np.exp(-6 * np.arange(dim) / dim)
    centres = APART * random.normal(size=(classes, dim))
    features = np.maximum((random.normal(size=(rows, dim)) + centres[labels]) @ turn, 0)
    return Sample(features.astype(np.float32), labels)


def standardise(train: Sample, *others: Sample) -> list[Sample]:
    """Standardise all by the first."""
    mean, scale = train.features.mean(axis=0), train.features.std(axis=0)
    return [Sample((each.features - mean) / scale, each.labels) for each in (train, *others)]


def weigh(train: Sample) -> examples.Examples:
    """Let every row count the same."""
    return examples.Examples(train.features, train.labels, np.full(len(train.labels), 1 / len(train.labels)))


def fit_together(train: Sample) -> Fitted:
    """Fit softmax heads along the path."""
    weighed = weigh(train)
    return fit_softmax(find_principal_axes(weighed.features, weighed.weights), weighed, STRENGTHS, STEPS)


def fit_apart(train: Sample) -> Fitted:
    """Fit them one by one, as scikit-learn's users do."""
    fitted = []
    for l2 in STRENGTHS:
        model = LogisticRegression(C=1 / (l2 * len(train.labels)), max_iter=STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train.features, train.labels)
        fitted.append((model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)))
    return fitted


def fit_ridges(train: Sample) -> Fitted:
    """Fit ridge heads along the path."""
    weighed = weigh(train)
    return list(fit_ridge(find_principal_axes(weighed.features, weighed.weights), weighed, STRENGTHS))


def fit_one_ridge(train: Sample) -> object:
    """Fit one ridge head by scikit-learn, in float64 as here."""
    targets = np.eye(train.labels.max() + 1)[train.labels]
    return Ridge(alpha=STRENGTHS[20] * len(train.labels)).fit(train.features.astype(np.float64), targets)


def find_loss(train: Sample, head: tuple[Floats, Floats], l2: float) -> float:
    """Give mean log loss + l2/2 ||weights||^2, in float64."""
    logits = score(train, head)
    peaks = logits.max(axis=1)
    sums = np.log(np.exp(logits - peaks[:, None]).sum(axis=1)) + peaks
    losses = sums - logits[np.arange(len(logits)), train.labels]
    return float(losses.mean() + l2 / 2 * (head[0] ** 2).sum())


def score(sample: Sample, head: tuple[Floats, Floats]) -> Floats:
    """Give logits [n, classes]."""
    return sample.features.astype(np.float64) @ head[0] + head[1]


def choose(validation: Sample, fitted: Fitted) -> tuple[Floats, Floats]:
    """Take the head with the lowest log loss on validation."""
    return min(fitted, key=lambda head: find_loss(validation, head, 0.0))


def find_right(test: Sample, head: tuple[Floats, Floats]) -> npt.NDArray[np.bool_]:
    """Tell which images a head is right about [n]."""
    right: npt.NDArray[np.bool_] = score(test, head).argmax(axis=1) == test.labels
    return right


def bootstrap_low(right: npt.NDArray[np.bool_]) -> float:
    """Give the lower end of the accuracy's 95 % percentile interval; a resample's hits are binomial."""
    hits = np.random.default_rng(0).binomial(len(right), right.mean(), RESAMPLES) / len(right)
    return float(np.percentile(hits, 2.5))


if __name__ == "__main__":
    main()
