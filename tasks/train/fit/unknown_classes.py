"""The answer "neither": from which probability on an answer counts, so that few images of no known class get one.

Let a head that never saw a class give n of its images the largest probabilities s1, ..., sn. One more such image is as
likely to come at any place among them, so that its own is above the k-th smallest with a chance of at most
1 - k / (n + 1) (split conformal prediction: Vovk, Gammerman & Shafer, Algorithmic learning in a random world, 2005).
With k = ceil((n + 1) (1 - rate)), that is at most the rate; where k > n, n images are too few to promise it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import TrainError
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.train.fit.candidates import Candidate, Choice, fit_heads
from tasks.train.fit.sample import Images, Names
from tasks.train.measure.intervals import wilson
from tasks.train.rows.coverage import find_rank
from tasks.train.settings import TrainSettings

FOLDS = 10
PLURALS = {"l2": "l2", "nearest": "nearest", "learning_rate": "learning_rates", "weight_decay": "weight_decays"}


@dataclass(frozen=True)
class Neither:
    """A candidate that refuses, figures of how often it does, and a row a class: how often it was accepted unknown."""

    candidate: Candidate
    metrics: dict[str, float]
    classes: tuple[dict[str, Any], ...]


def add_neither(
    candidate: Candidate, train: Images, validation: Images, test: Images, settings: TrainSettings, rate: float
) -> Neither:
    """Let a candidate answer "neither" where it is not sure enough to keep unknown images out.

    Classes are left out in turn, ten groups of them at most, and a head of the candidate's kind and settings is trained
    and calibrated without them. What such heads say of the training images of the classes that they do not know gives
    the threshold; what they say of those classes' test images measures it.

    Raises:
        TrainError: where leaving classes out leaves no validation image.
    """
    known, strange = _meet_strangers(train, validation, (train, test), narrow(settings, candidate.choice))
    least = choose_least(known, rate)
    head = replace(candidate.head, refuse_below=least)
    refused = head.probabilities(test[0]).max(axis=1) < least
    figures = {"false_accept": strange >= least, "refused": refused}
    metrics = {name: value for each in figures.items() for name, value in _share(*each).items()}
    return Neither(
        replace(candidate, head=head), {**metrics, "refuse_below": least}, _tabulate(test[1], figures["false_accept"])
    )


def choose_least(sureness: Floats, rate: float) -> float:
    """Give the least probability that is above the k-th smallest of unknown images' largest probabilities [n]."""
    kth = np.sort(sureness)[find_rank(len(sureness), rate) - 1]
    return float(np.nextafter(kth, np.inf))


def _meet_strangers(
    train: Images, validation: Images, asked: tuple[Images, Images], settings: TrainSettings
) -> tuple[Floats, Floats]:
    """Give the largest probability of each image that is asked, by the head that was trained without its class."""
    classes, found = np.unique(train[1]), tuple(np.zeros(len(names)) for _, names in asked)
    folds = min(FOLDS, len(classes))
    for fold in range(folds):
        out = classes[fold::folds]
        kept = [(features[~at], names[~at]) for features, names, at in _part((train, validation), out)]
        if not len(kept[1][1]):
            rule = f"leaves {', '.join(map(str, out))} out in turn, which leaves no validation image"
            raise TrainError("false_accept", rule, "Add images of other classes, or leave out --train.false-accept")
        head = fit_heads(kept[0], kept[1], settings)[0].head
        for sureness, (features, _, at) in zip(found, _part(asked, out), strict=True):
            sureness[at] = head.probabilities(features[at]).max(axis=1) if at.any() else 0.0
    return found[0], found[1]


def _part(parts: tuple[Images, ...], out: Names) -> list[tuple[Matrix, Names, npt.NDArray[np.bool_]]]:
    return [(features, names, np.isin(names, out)) for features, names in parts]


def narrow(settings: TrainSettings, choice: Choice) -> TrainSettings:
    """Give the settings under which this candidate is the only one."""
    only = {PLURALS[name]: (value,) for name, value in choice.items() if name in PLURALS}
    return settings.model_copy(update={"heads": (choice["head"],), **only})


def _tabulate(names: Names, accepted: npt.NDArray[np.bool_]) -> tuple[dict[str, Any], ...]:
    rows = ((str(name), accepted[names == name]) for name in np.unique(names))
    return tuple({"class": name, "images": len(those), **_share("false_accept", those)} for name, those in rows)


def _share(name: str, which: npt.NDArray[np.bool_]) -> Mapping[str, float]:
    low, high = wilson(which.sum(), len(which))
    return {name: float(which.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
