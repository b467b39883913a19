"""The softmax head: standardised features, L2 chosen on validation."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from storage.heads import Floats, Head
from storage.vectors import Matrix
from tasks.train.evaluate import log_loss
from tasks.train.settings import TrainSettings

Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Candidate:
    """A head at one strength of L2, and its mean log loss on validation."""

    l2: float
    head: Head
    loss: float


def fit_softmax(
    train: tuple[Matrix, Names], validation: tuple[Matrix, Names], settings: TrainSettings
) -> tuple[Candidate, ...]:
    """Fit a head for each strength of L2, from the strongest on, each from where the last one ended; best first.

    Minimises mean log loss + l2/2 ||weights||^2 by L-BFGS (Liu & Nocedal 1989), as scikit-learn has it.

    Args:
        train: features [n, dim] and class names [n].
        validation: features [m, dim] and class names [m].
        settings: the strengths of L2, class weights, and the most steps.
    """
    candidates = [
        Candidate(l2, head, log_loss(head.probabilities(validation[0]), validation[1], head.classes))
        for l2, head in _fit_path(*train, settings)
    ]
    return tuple(sorted(candidates, key=lambda candidate: (candidate.loss, -candidate.l2)))


def _fit_path(features: Matrix, names: Names, settings: TrainSettings) -> Iterator[tuple[float, Head]]:
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1
    standard = (features - mean) / scale
    weights = "balanced" if settings.class_weights else None
    model = LogisticRegression(max_iter=settings.iterations, tol=1e-5, class_weight=weights, warm_start=True)
    for l2 in sorted(settings.l2, reverse=True):
        model.set_params(C=1 / (l2 * len(names)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a head that is not quite there shows in its loss
            model.fit(standard, names)
        yield l2, Head(tuple(map(str, model.classes_)), mean, scale, *_two_sided(model.coef_, model.intercept_))


def _two_sided(weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
    """Give [dim, classes] weights; for two classes the one logit of the second, beside a zero for the first."""
    if len(bias) == 1:
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.concatenate([[0.0], bias])
    return np.ascontiguousarray(weights.T), bias.copy()
