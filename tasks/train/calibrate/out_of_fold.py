"""The temperature from predictions of images that a head was not trained on, and a refit on all of them.

Tens of validation images are too few for a temperature: it can make probabilities worse. So the training and validation
images are dealt to five folds by their groups, and each fold is predicted by a head with the chosen hyperparameters
that saw none of it. A thousand validation images are enough by themselves.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Floats, tempered_softmax
from tasks.train.calibrate.temperature import find_likely_temperature
from tasks.train.fit.candidates import Candidate, fit_heads, fix_hyperparameters
from tasks.train.fit.examples import ClassNames, LabelledFeatures
from tasks.train.measure.metrics import Indices, compute_log_losses, index_classes
from tasks.train.settings import TrainSettings

Mask = npt.NDArray[np.bool_]

FOLDS = 5
ENOUGH = 1000
"""The number of validation images from which they alone decide the temperature, which spares five fits."""
EPOCH_KINDS = ("mlp", "mlp2")
"""Kinds whose best epoch is chosen on validation images, which then are no training images."""
IMPOSSIBLE = -1e4
"""The logit of a class that a fold's head was not trained on."""


@dataclass(frozen=True)
class Pool:
    """The training and validation images of a head.

    The rows of ``train`` are the images in order, then views of them; ``image_rows`` [n] say of which image a row is.
    ``keys`` name the group of each training image, then of each validation image.
    """

    train: LabelledFeatures
    image_rows: Indices
    validation: LabelledFeatures
    keys: tuple[str, ...]

    @cached_property
    def features(self) -> Matrix:
        """The features of the training rows, then of the validation images without their views [n, dim]."""
        return np.concatenate([self.train[0], self.validation[0][:, : self.train[0].shape[1]]])

    @cached_property
    def names(self) -> ClassNames:
        """The class of each row [n]."""
        return np.concatenate([self.train[1], self.validation[1]])

    @cached_property
    def images(self) -> Indices:
        """Of which image each row is [n]."""
        trained = len(self.keys) - len(self.validation[1])
        return np.concatenate([self.image_rows, np.arange(trained, len(self.keys))])

    @cached_property
    def own(self) -> Mask:
        """Whether a row is an image itself, not a view of one [n]."""
        rows, trained = np.arange(len(self.names)), len(self.keys) - len(self.validation[1])
        return (rows < trained) | (rows >= len(self.train[1]))


@dataclass(frozen=True)
class Scores:
    """Logits [n, classes] of images that the head did not see, the true class [n], and the fold [n] of each."""

    logits: Floats
    true: Indices
    folds: Indices


def calibrate_candidate(candidate: Candidate, pool: Pool, settings: TrainSettings) -> Candidate:
    """Set the candidate's temperature, from out-of-fold predictions where they are affordable.

    A tail is not trained five times more, and views of training images are not averaged over: these use the validation
    images, as do heads with a thousand of them. The temperature stays 1 unless it lowers the log loss of images that it
    was not fitted to; see :func:`choose_temperature`.
    """
    few = len(pool.validation[1]) < ENOUGH and not settings.average_views
    if few and candidate.hyperparameters["head"] != "tail":
        scores = _score_out_of_fold(candidate, pool, settings)
    else:
        scores = _score_validation(candidate, pool, settings.seed)
    return replace(candidate, head=replace(candidate.head, temperature=choose_temperature(scores)))


def refit(candidate: Candidate, pool: Pool, settings: TrainSettings) -> Candidate:
    """Fit the candidate once more, on training and validation images; its temperature stays."""
    fixed = fix_hyperparameters(settings, candidate.hyperparameters)
    head = fit_heads((pool.features, pool.names), pool.validation, fixed)[0].head
    return replace(candidate, head=replace(head, temperature=candidate.head.temperature))


def choose_temperature(scores: Scores) -> float:
    """Return the most probable temperature, or 1 if that would not help.

    It helps if the log loss of each fold, at the temperature that is best for the other folds, is on average lower.
    """
    known = scores.true >= 0
    logits, true, folds = scores.logits[known], scores.true[known], scores.folds[known]
    before, after = _measure(logits, true, 1.0), np.zeros(len(true))
    for fold in np.unique(folds):
        held = folds == fold
        after[held] = _measure(logits[held], true[held], find_likely_temperature(logits[~held], true[~held]))
    return find_likely_temperature(logits, true) if len(true) and after.mean() < before.mean() else 1.0


def _measure(logits: Floats, true: Indices, temperature: float) -> Floats:
    return compute_log_losses(tempered_softmax(logits, temperature), true)


def deal_folds(keys: Sequence[str], names: ClassNames, seed: int) -> Indices:
    """Return the fold of each image [n]: images with the same key share one, and classes are spread evenly.

    The groups of each class are dealt in the order of a hash; a group counts for the class of its first image.
    """
    firsts = {key: str(name) for key, name in zip(reversed(keys), reversed(names.tolist()), strict=True)}
    dealt = sorted(firsts, key=lambda key: (firsts[key], hashlib.sha256(f"fold:{seed}:{key}".encode()).digest()))
    fold_of = {key: number % FOLDS for number, key in enumerate(dealt)}
    return np.array([fold_of[key] for key in keys], np.int64)


def _score_validation(candidate: Candidate, pool: Pool, seed: int) -> Scores:
    features, names = pool.validation
    folds = deal_folds(pool.keys[len(pool.keys) - len(names) :], names, seed)
    return Scores(candidate.head.logits(features), index_classes(names, candidate.head.classes), folds)


def _score_out_of_fold(candidate: Candidate, pool: Pool, settings: TrainSettings) -> Scores:
    """Predict each image by a head that was trained without its fold."""
    fixed, classes = fix_hyperparameters(settings, candidate.hyperparameters), candidate.head.classes
    names = pool.names[pool.own]
    logits = np.full((len(names), len(classes)), IMPOSSIBLE)
    scores = Scores(logits, index_classes(names, classes), deal_folds(pool.keys, names, settings.seed))
    chooses_epoch = candidate.hyperparameters["head"] in EPOCH_KINDS
    for train, validation, held in _split_rows(pool, scores.folds, chooses_epoch=chooses_epoch):
        parts = [(pool.features[rows], pool.names[rows]) for rows in (train, validation)]
        if len(np.unique(parts[0][1])) > 1 and len(parts[1][1]):
            head = fit_heads(parts[0], parts[1], fixed)[0].head
            columns = index_classes(np.array(head.classes), classes)
            logits[np.ix_(pool.images[held], columns)] = head.logits(pool.features[held])
    return replace(scores, true=np.where(_find_true_logits(scores) > IMPOSSIBLE, scores.true, -1))


def _find_true_logits(scores: Scores) -> Floats:
    return np.take_along_axis(scores.logits, np.maximum(scores.true, 0)[:, None], axis=1)[:, 0]


def _split_rows(pool: Pool, folds: Indices, *, chooses_epoch: bool) -> Iterator[tuple[Mask, Mask, Mask]]:
    """Yield for each fold the rows that train, those that select an epoch, and the held-out images."""
    of_row = folds[pool.images]
    for fold in np.unique(folds):
        held = (of_row == fold) & pool.own
        if chooses_epoch:
            following = of_row == (fold + 1) % FOLDS
            yield (of_row != fold) & ~following, following & pool.own, held
        else:
            yield of_row != fold, held, held
