"""Unknown classes: from which probability on an answer counts, so that few images of no known class are given one.

Let a head that never saw a class give n of its images the largest probabilities s1, ..., sn. One more such image is as
likely to come at any place among them, so that its own is above the k-th smallest with a chance of at most
1 - k / (n + 1) (split conformal prediction: Vovk, Gammerman & Shafer, Algorithmic learning in a random world, 2005).
With k = ceil((n + 1) (1 - rate)), that is at most the rate; where k > n, n images are too few to promise it.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

import numpy as np

from storage.answers import NEITHER
from storage.errors import TrainError
from storage.heads import Floats

FEWEST = 3
"""Classes: without one of them, two are left to choose from."""


def check_unknown(images: Mapping[str, int], rate: float) -> None:
    """Refuse classes from which no threshold can be chosen; ``images`` are those of each to train on.

    Raises:
        TrainError: where a class is called "neither", where there are fewer than three, or too few images for the rate.
    """
    asked, count = f"false_accept {rate:g}", sum(images.values())
    if NEITHER in images:
        rule = f"is what images of no class are called under {asked}"
        raise TrainError(f"class {NEITHER}", rule, "Rename its folder, or leave it out with --train.leave-out")
    if len(images) < FEWEST:
        rule = f"needs {FEWEST} classes to leave each out in turn, and there are {len(images)}"
        raise TrainError(asked, rule, "Add a class, or leave out --train.false-accept")
    if find_rank(count, rate) > count:
        rule = f"needs {ceil(1 / Fraction(str(rate))) - 1} images to train on, and there are {count}"
        raise TrainError(asked, rule, "Add images, or raise --train.false-accept")


def find_rank(images: int, rate: float) -> int:
    """Give k: of so many probabilities, the k-th smallest is exceeded by one more with at most the rate's chance."""
    return ceil((images + 1) * (1 - Fraction(str(rate))))


def choose_least(sureness: Floats, rate: float) -> float:
    """Give the least probability that is above the k-th smallest of unknown images' largest probabilities [n]."""
    kth = np.sort(sureness)[find_rank(len(sureness), rate) - 1]
    return float(np.nextafter(kth, np.inf))
