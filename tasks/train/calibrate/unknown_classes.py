"""Rejecting unknown classes: the probability below which a head answers "neither".

Take n images with the largest probability that a head gives each, although it never saw their class: s1, ..., sn. One
more such image is equally likely to rank anywhere among them, so that it exceeds the k-th smallest with a probability
of at most 1 - k / (n + 1) (split conformal prediction: Vovk, Gammerman & Shafer, Algorithmic learning in a random
world, 2005). With k = ceil((n + 1) (1 - rate)), that is at most the rate; if k > n, n images are too few.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from storage.errors import TrainError
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats
from tasks.statistics.shares import find_wilson_interval
from tasks.train.fit.candidates import Candidate, Hyperparameters, fit_heads
from tasks.train.fit.examples import ClassNames, LabelledFeatures
from tasks.train.rows.coverage import find_conformal_rank
from tasks.train.settings import TrainSettings

FOLDS = 10
RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""False accept rates whose price is listed."""
DEAR = 0.2
"""The share of images of known classes from which their refusal is worth a warning."""
SETTINGS_BY_HYPERPARAMETER = {
    "l2": "l2",
    "nearest": "nearest",
    "learning_rate": "learning_rates",
    "weight_decay": "weight_decays",
}

Mask = npt.NDArray[np.bool_]


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
    candidate: Candidate,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    test: LabelledFeatures,
    settings: TrainSettings,
    rate: float,
) -> RejectionResult:
    """Make a candidate answer "neither" for all but a share of images of unknown classes.

    Classes are held out in up to ten folds, and a head with the candidate's hyperparameters is trained and calibrated
    without them. Its probabilities for training images of the held-out classes set the threshold; those for their test
    images measure the false accept rate.

    Raises:
        TrainError: if holding classes out leaves no validation image.
    """
    settings = fix_hyperparameters(settings, candidate.hyperparameters)
    unknown_train, unknown_test = _score_unknown_images(candidate, train, validation, (train, test), settings)
    threshold = choose_rejection_threshold(unknown_train, rate)
    head = replace(candidate.head, refuse_below=threshold)
    accepted, refused = unknown_test >= threshold, head.probabilities(test[0]).max(axis=1) < threshold
    metrics = {**_measure_share("false_accept", accepted), **_measure_share("refused", refused)}
    known = head.probabilities(validation[0]).max(axis=1)
    return RejectionResult(
        replace(candidate, head=head),
        {**metrics, "refuse_below": threshold},
        _tabulate(test[1], accepted),
        tuple(list_prices(unknown_train, known, rate)),
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


def _score_unknown_images(
    candidate: Candidate,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    queries: tuple[LabelledFeatures, LabelledFeatures],
    settings: TrainSettings,
) -> tuple[Floats, Floats]:
    """Return the largest probability of each query, by the head that was trained without its class.

    All of these heads have the candidate's temperature, so that their probabilities compare with its own.
    """
    classes, scores = np.unique(train[1]), tuple(np.zeros(len(names)) for _, names in queries)
    folds = min(FOLDS, len(classes))
    for fold in range(folds):
        held_out = classes[fold::folds]
        kept = [(features[~at], names[~at]) for features, names, at in _mark_classes((train, validation), held_out)]
        if not len(kept[1][1]):
            rule = f"holds out {', '.join(map(str, held_out))}, which leaves no validation image"
            raise TrainError("false_accept", rule, "Add images of other classes, or leave out --train.false-accept")
        head = replace(fit_heads(kept[0], kept[1], settings)[0].head, temperature=candidate.head.temperature)
        for score, (features, _, at) in zip(scores, _mark_classes(queries, held_out), strict=True):
            score[at] = head.probabilities(features[at]).max(axis=1) if at.any() else 0.0
    return scores[0], scores[1]


def _mark_classes(parts: tuple[LabelledFeatures, ...], classes: ClassNames) -> list[tuple[Matrix, ClassNames, Mask]]:
    return [(features, names, np.isin(names, classes)) for features, names in parts]


def fix_hyperparameters(settings: TrainSettings, hyperparameters: Hyperparameters) -> TrainSettings:
    """Return settings that train this one candidate."""
    values = {
        SETTINGS_BY_HYPERPARAMETER[name]: (value,)
        for name, value in hyperparameters.items()
        if name in SETTINGS_BY_HYPERPARAMETER
    }
    return settings.model_copy(update={"heads": (hyperparameters["head"],), **values})


def _tabulate(names: ClassNames, accepted: Mask) -> tuple[dict[str, Any], ...]:
    rows = ((str(name), accepted[names == name]) for name in np.unique(names))
    return tuple({"class": name, "images": len(those), **_measure_share("false_accept", those)} for name, those in rows)


def _measure_share(name: str, which: Mask) -> Mapping[str, float]:
    low, high = find_wilson_interval(which.sum(), len(which))
    return {name: float(which.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
