"""Scores that tell images of unknown classes from known ones, compared: ``python -m benchmarks.neither``.

The photos are of five kinds of food. Each kind is left out in turn: a head is trained on half of the others, and scores
a quarter of them, which it has not seen, and the photos of the kind left out. The area under the ROC curve is the share
of pairs (known, unknown) that a score puts in the right order. The other columns are the share of known photos that are
refused if 5, 10 or 20 % of the unknown ones are to be accepted. All are means over the kinds, and over several ways to
part the photos.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import KINDS, NETWORK, embed_reference
from benchmarks.measure import run_figures
from benchmarks.networks import NETWORKS
from benchmarks.photos import open_originals
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, Floats
from tasks.heads.rejection import choose_known, measure_nearness
from tasks.train.fit.candidates import fit_heads
from tasks.train.fit.examples import ClassNames
from tasks.train.settings import TrainSettings

RATES = (0.05, 0.1, 0.2)
PARTS = 4


def main() -> None:
    """Print a row for each score."""
    run_figures(__doc__, measure, describe)


def describe(rows: dict[str, list[float]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"{'score':30} {'area':>6} " + " ".join(f"{100 * rate:>4.0f} %" for rate in RATES)
    for name, values in rows.items():
        yield f"{name:30} " + " ".join(f"{value:6.3f}" for value in values)


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Embed the photos, leave out each kind in turn, and average."""
    paths = [path for path in open_originals() if path.name[0] in KINDS]
    features = embed_reference(NETWORKS[NETWORK], paths[:: 4 if options.quick else 1])
    kinds = np.array([KINDS[path.name[0]] for path in paths[:: 4 if options.quick else 1]])
    found: dict[str, list[list[float]]] = {}
    for seed in range(1 if options.quick else options.runs):
        parts = np.random.default_rng(seed).integers(0, PARTS, len(kinds))
        for left_out in np.unique(kinds):
            for name, values in compare_scores(features, kinds, parts, left_out):
                found.setdefault(name, []).append(values)
    return {name: np.mean(rows, axis=0).tolist() for name, rows in found.items()}


def compare_scores(
    features: Matrix, kinds: ClassNames, parts: npt.NDArray[np.int64], left_out: str
) -> Iterator[tuple[str, list[float]]]:
    """Yield each score's area under the ROC curve and its refusals, with one kind left out."""
    known = kinds != left_out
    train, validation, test = (known & at for at in (parts > 1, parts == 1, parts == 0))
    settings = TrainSettings()
    head = fit_heads((features[train], kinds[train]), (features[validation], kinds[validation]), settings)[0].head
    neighbours = choose_known(features[train], kinds[train])
    scores: dict[str, Callable[[Matrix], Floats]] = {
        "largest probability": lambda queries: head.probabilities(queries).max(axis=1),
        "energy": lambda queries: measure_energy(head, queries),
        "nearest class mean, cosine": lambda queries: measure_cosine(head, features[train], kinds[train], queries),
        "fifth nearest image, cosine": lambda queries: measure_nearness(queries, neighbours),
    }
    for name, score in scores.items():
        inside, outside = score(features[test]), score(features[~known])
        refusals = [float(np.mean(inside <= np.quantile(outside, 1 - rate))) for rate in RATES]
        yield name, [measure_area(inside, outside), *refusals]


def measure_energy(head: Classifier, queries: Matrix) -> Floats:
    """Return the negative energy: the log of the sum of the exponentials of the logits (Liu et al. 2020)."""
    energy: Floats = np.logaddexp.reduce(head.logits(queries), axis=1)
    return energy


def measure_cosine(head: Classifier, train: Matrix, kinds: ClassNames, queries: Matrix) -> Floats:
    """Return the cosine to the nearest class mean, of standardised features."""
    standard = (train - head.mean) / head.scale
    means = np.stack([standard[kinds == kind].mean(axis=0) for kind in np.unique(kinds)])
    rows = (queries - head.mean) / head.scale
    cosines: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (
        means / np.linalg.norm(means, axis=1, keepdims=True)
    ).T
    nearest: Floats = cosines.max(axis=1)
    return nearest


def measure_area(inside: Floats, outside: Floats) -> float:
    """Return the area under the ROC curve: the share of pairs in the right order, ties as half."""
    differences = inside[:, None] - outside[None, :]
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


if __name__ == "__main__":
    main()
