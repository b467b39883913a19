"""Rejecting unknown classes: the nearness below which a head answers "neither".

Take the nearness of n images to training images of other classes than their own: s1, ..., sn. One more image of an
unknown class is equally likely to rank anywhere among them, so that it exceeds the k-th smallest with a probability of
at most 1 - k / (n + 1) (split conformal prediction: Vovk, Gammerman & Shafer, Algorithmic learning in a random
world, 2005). With k = ceil((n + 1) (1 - rate)), that is at most the rate; if k > n, n images are too few.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from tasks.heads.heads import Floats
from tasks.heads.rejection import NEAREST, Mask, choose_known, measure_nearness
from tasks.statistics.shares import find_wilson_interval
from tasks.train.fit.candidates import Candidate
from tasks.train.fit.examples import ClassNames, LabelledFeatures
from tasks.train.rows.coverage import find_conformal_rank

FOLDS = 10
RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""False accept rates whose price is listed."""
DEAR = 0.2
"""The share of images of known classes from which their refusal is worth a warning."""


class Price(TypedDict):
    """What a false accept rate costs: the share of validation images, all of known classes, that it refuses."""

    false_accept: float
    refused: float


@dataclass(frozen=True)
class RejectionResult:
    """A candidate with a rejection threshold, its rejection metrics, a row for each class, and the prices of rates."""

    candidate: Candidate
    metrics: dict[str, float]
    classes: tuple[dict[str, Any], ...]
    prices: tuple[Price, ...]


def add_rejection(
    candidate: Candidate, train: LabelledFeatures, validation: LabelledFeatures, test: LabelledFeatures, rate: float
) -> RejectionResult:
    """Make a candidate answer "neither" for all but a share of images of unknown classes.

    Classes are held out in up to ten folds. The nearness of their training images to those of the other classes sets
    the threshold; that of their test images measures the false accept rate.
    """
    known = choose_known(*train)
    unknown_train, unknown_test = measure_unknown(train, (train, test))
    threshold = choose_rejection_threshold(unknown_train, rate)
    accepted, refused = unknown_test >= threshold, measure_nearness(test[0], known) < threshold
    metrics = {**_measure_share("false_accept", accepted), **_measure_share("refused", refused)}
    return RejectionResult(
        replace(candidate, head=replace(candidate.head, refuse_below=threshold, known=known)),
        {**metrics, "refuse_below": threshold, "refuse_nearest": float(NEAREST)},
        _tabulate(test[1], accepted),
        tuple(list_prices(unknown_train, measure_nearness(validation[0], known), rate)),
    )


def list_prices(unknown: Floats, known: Floats, rate: float) -> Iterator[Price]:
    """List what this rate and others cost, from the scores of images of unknown classes [n] and of known ones [m]."""
    for each in sorted({rate, *RATES}):
        if find_conformal_rank(len(unknown), each) <= len(unknown):
            refused = known < choose_rejection_threshold(unknown, each)
            yield {"false_accept": each, "refused": float(refused.mean()) if len(refused) else 0.0}


def warn_price(rate: float | None, prices: Sequence[Price]) -> tuple[str, ...]:
    """Warn if a false accept rate refuses many images of known classes, and suggest the lowest rate that does not."""
    chosen = next((price for price in prices if price["false_accept"] == rate), None)
    if chosen is None or chosen["refused"] <= DEAR:
        return ()
    usable = next((price for price in prices if price["refused"] <= DEAR), None)
    advice = (
        f"--train.false-accept {usable['false_accept']:g} would refuse {100 * usable['refused']:.0f} %"
        if usable
        else f"no rate up to {max(RATES):g} refuses less than {100 * DEAR:.0f} %; leave it out, or add images"
    )
    share = f"{100 * chosen['refused']:.0f} % of the images of known classes"
    return (f'false_accept {rate:g} answers "neither" to {share}: {advice}',)


def choose_rejection_threshold(scores: Floats, rate: float) -> float:
    """Return the smallest threshold above the k-th smallest score; ``scores`` [n] are those of unknown images."""
    kth = np.sort(scores)[find_conformal_rank(len(scores), rate) - 1]
    return float(np.nextafter(kth, np.inf))


def measure_unknown(train: LabelledFeatures, queries: Sequence[LabelledFeatures]) -> list[Floats]:
    """Return the nearness of each query to the training images, without those of its fold's classes."""
    classes, scores = np.unique(train[1]), [np.zeros(len(names)) for _, names in queries]
    folds = min(FOLDS, len(classes))
    for fold in range(folds):
        held_out = classes[fold::folds]
        kept = ~np.isin(train[1], held_out)
        known = choose_known(train[0][kept], train[1][kept])
        for score, (features, names) in zip(scores, queries, strict=True):
            at = np.isin(names, held_out)
            score[at] = measure_nearness(features[at], known)
    return scores


def _tabulate(names: ClassNames, accepted: Mask) -> tuple[dict[str, Any], ...]:
    rows = ((str(name), accepted[names == name]) for name in np.unique(names))
    return tuple({"class": name, "images": len(those), **_measure_share("false_accept", those)} for name, those in rows)


def _measure_share(name: str, which: Mask) -> Mapping[str, float]:
    low, high = find_wilson_interval(which.sum(), len(which))
    return {name: float(which.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
