"""A tail of the last block against the frozen head, and pretrained weights against random ones.

``python -m benchmarks.tails``. Real photos of food in five classes, by the first letter of a file's name, through
tf_efficientnet_lite0. Of five folds, which follow from a photo's bytes, each is the test once, the next the validation.
Frozen: a softmax on the pooled output, its L2 chosen on validation. Tail: the layers after ``blocks.5`` with a head, as
``frostline train --train.heads tail`` trains them; learning rate and epoch are chosen on validation. Accuracy is that
of all folds' test photos together, with a 95 % bootstrap interval; differences are of the same photos.
"""

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from benchmarks.accuracy import KINDS
from benchmarks.measure import describe_machine
from benchmarks.networks import NETWORKS, get_weights, write_random
from benchmarks.photos import KEPT, open_originals
from storage.locations.home import Home
from storage.recipe import Recipe
from storage.vectors.feature_file import Matrix
from tasks.embed.decide_recipe import decide_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.encoder.pack import open_images, pack_backbone
from tasks.statistics.bootstrap import bootstrap_sums, find_percentile_interval
from tasks.train.fit.candidates import Candidate, TailContext, fit_heads
from tasks.train.settings import TailSettings, TrainSettings

NETWORK = NETWORKS["tf_efficientnet_lite0"]
CUT = "blocks.5"
FOLDS = 5
RATES, QUICK_RATES = (3e-5, 1e-4, 3e-4), (1e-4,)
EPOCHS, QUICK_EPOCHS = 20, 3
QUICK_SHARE = 3
GAINED = 0.20  # by pretrained weights

Names = npt.NDArray[np.str_]
Rights = npt.NDArray[np.bool_]
Fit = Callable[[tuple[Matrix, Names], tuple[Matrix, Names]], Candidate]


@dataclass(frozen=True)
class Figure:
    """A share of n photos, or a difference, ``ours`` less ``theirs``, with its interval and what it must reach."""

    name: str
    ours: float
    theirs: float
    low: float
    high: float
    n: int
    target: float | None = None

    @property
    def value(self) -> float:
        """The share, or the difference."""
        return self.ours - self.theirs

    @property
    def holds(self) -> bool | None:
        """Whether the target is met, where there is one."""
        return None if self.target is None else self.value >= self.target

    def to_json(self) -> dict[str, Any]:
        """Give the figure as plain data, as other benchmarks give ratios, with its interval."""
        return {"ratio": self.value, "holds": self.holds, "unit": "share of photos", **asdict(self)}


@dataclass(frozen=True)
class Photos:
    """Photos as bytes, with class and fold of each."""

    images: tuple[bytes, ...]
    names: Names
    folds: npt.NDArray[np.int64]


def main() -> None:
    """Print accuracies and differences, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the photos and few epochs, for a first look")
    parser.add_argument("--json", action="store_true", help="a list of figures on stdout, and nothing else")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        figures = measure(quick=options.quick)
    if options.json:
        print(json.dumps([figure.to_json() for figure in figures]))
        return
    print(describe_machine())
    for figure in figures:
        ends = f"{100 * figure.value:6.1f}  ({100 * figure.low:.1f} to {100 * figure.high:.1f}), n = {figure.n}"
        holds = "" if figure.holds is None else f"  holds: {'yes' if figure.holds else 'NO'}"
        print(f"{figure.name:52} {ends}{holds}")


def measure(*, quick: bool) -> list[Figure]:
    """Train everything in each fold."""
    photos = open_photos(QUICK_SHARE if quick else 1)
    with tempfile.TemporaryDirectory() as name:
        frozen, random, tail = (
            judge(photos, *each)
            for each in (
                (embed(photos, get_weights(NETWORK), "avgpool"), fit_softmax),
                (embed(photos, write_random(NETWORK), "avgpool"), fit_softmax),
                (embed(photos, get_weights(NETWORK), CUT), make_fit(Path(name), quick=quick)),
            )
        )
    return [
        count("random weights, frozen, softmax", random),
        count("pretrained weights, frozen, softmax", frozen),
        count(f"pretrained weights, tail after {CUT}", tail),
        count("points that pretrained weights gain over random ones", frozen, random, GAINED),
        count("points that the tail gains over the frozen head", tail, frozen),
    ]


def open_photos(share: int) -> Photos:
    """Open each so-manieth photo of the five classes."""
    paths = [path for path in open_originals() if path.name[0] in KINDS][::share]
    images = tuple(path.read_bytes() for path in paths)
    folds = np.array([int.from_bytes(hashlib.sha256(image).digest()[:8]) % FOLDS for image in images])
    return Photos(images, np.array([KINDS[path.name[0]] for path in paths]), folds)


def embed(photos: Photos, weights: Weights, cut: str) -> Matrix:
    """Embed photos as the lake has them."""
    recipe = make_recipe(weights, cut)
    pack_backbone(recipe, weights, place_backbone(recipe))
    return open_images(place_backbone(recipe), None)(photos.images)


def make_recipe(weights: Weights, cut: str) -> Recipe:
    """Resolve the recipe of a cut, in float32, with all its places."""
    chosen = EmbedSettings(backbone=NETWORK.architecture, cut=cut, pooling="flatten", dtype="float32")
    return decide_recipe(chosen, weights)


def place_backbone(recipe: Recipe) -> Path:
    """Name the folder of a packed backbone."""
    return Home(KEPT).backbones / recipe.recipe_id


def fit_softmax(train: tuple[Matrix, Names], validation: tuple[Matrix, Names]) -> Candidate:
    """Fit the product's default heads."""
    return fit_heads(train, validation, TrainSettings())[0]


def make_fit(folder: Path, *, quick: bool) -> Fit:
    """Make a function that trains tails in a folder, each anew, and gives the best one whose layers were trained."""
    tail = TailSettings(learning_rates=QUICK_RATES if quick else RATES, epochs=QUICK_EPOCHS if quick else EPOCHS)
    settings = TrainSettings(heads=("tail",), tail=tail)
    backbone = place_backbone(make_recipe(get_weights(NETWORK), CUT))

    def fit(train: tuple[Matrix, Names], validation: tuple[Matrix, Names]) -> Candidate:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found = fit_heads(train, validation, settings, TailContext(backbone, Path(place)))
        best = next(each for each in found if each.hyperparameters["learning_rate"])
        print(f"tail: {best.hyperparameters}, log loss {best.loss:.4f}")
        return best

    return fit


def judge(photos: Photos, features: Matrix, fit: Fit) -> Rights:
    """Tell of each photo whether the head of its fold is right about it."""
    right = np.zeros(len(photos.images), np.bool_)
    for fold in range(FOLDS):
        test, validation = photos.folds == fold, photos.folds == (fold + 1) % FOLDS
        train = ~(test | validation)
        parts = [(features[rows], photos.names[rows]) for rows in (train, validation)]
        head = fit(*parts).head
        right[test] = np.array(head.classes)[head.probabilities(features[test]).argmax(axis=1)] == photos.names[test]
    return right


def count(name: str, one: Rights, other: Rights | None = None, target: float | None = None) -> Figure:
    """Give the accuracy of one side, or by how much it is better than the other, by the bootstrap over photos."""
    gained = one.astype(np.float64) - (0.0 if other is None else other)
    low, high = find_percentile_interval(bootstrap_sums(csr_array(gained[:, None]), 0) / len(gained))
    theirs = 0.0 if other is None else float(other.mean())
    return Figure(name, float(one.mean()), theirs, low, high, len(gained), target)


if __name__ == "__main__":
    main()
