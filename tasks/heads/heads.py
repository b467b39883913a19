"""Heads: classifiers of features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from storage.artifacts.head_files import Arrays
from storage.vectors.feature_file import Matrix

Floats = npt.NDArray[np.float64]
DenseLayer = tuple[Floats, Floats]
"""Weights [in, out] and biases [out]."""

ROWS = 1024
SHARPNESS = 0.07
UNSEEN = 1e-3
"""Added to each class's share of the votes, so that a class without neighbours has a finite logit."""


@dataclass(frozen=True)
class KnownImages:
    """What a head keeps of its training images, to tell whether another image is like them.

    ``vectors`` [k, dim] are features of length one in half precision, of ``chosen_from`` training images: an erasure
    deletes the head if one of those is erased.
    """

    vectors: npt.NDArray[np.float16]
    chosen_from: int


@dataclass(frozen=True)
class Head:
    """A softmax over standardised features, or over the output of hidden layers with ReLU.

    ``mean`` and ``scale`` are [dim], ``weights`` [dim, classes] and ``bias`` [classes] in the order of ``classes``, all
    float64. ``temperature`` divides the logits to calibrate the probabilities. ``views`` is the number of views of an
    image over which predictions average. If an image's nearness to the ``known`` images is less than ``refuse_below``,
    the answer is "neither" (see :mod:`tasks.heads.rejection`).

    With ``thresholds``, one for each class, the head is multi-label: each class has a sigmoid, and an image has all
    classes whose probability reaches the threshold.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    temperature: float = 1.0
    hidden: tuple[DenseLayer, ...] = ()
    refuse_below: float = 0.0
    known: KnownImages | None = None
    thresholds: tuple[float, ...] = ()
    views: int = 1

    def logits(self, features: Matrix) -> Floats:
        """Return logits [n, classes] before the temperature, for features [n, views * dim]: the mean over the views."""
        return _average(self._score, features, self.views)

    def _score(self, features: Matrix) -> Floats:
        value: Floats = features.astype(np.float64)
        value -= self.mean
        value /= self.scale
        for weights, bias in self.hidden:
            value = np.maximum(value @ weights + bias, 0)
        return value @ self.weights + self.bias

    def probabilities(self, features: Matrix) -> Floats:
        """Return probabilities [n, classes] for features [n, views * dim]; rows sum to 1 unless it is multi-label."""
        logits = self.logits(features)
        if self.thresholds:
            return cast("Floats", np.exp(-np.logaddexp(0, -logits)))
        return tempered_softmax(logits, self.temperature)


class TailLayers(Protocol):
    """The layers of a network after a cut."""

    def run(self, features: Matrix) -> Matrix:
        """Return the classifier's inputs [n, width] for features [n, dim]."""
        ...

    def state(self) -> Arrays:
        """Return the layers' arrays, by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tail(Head):
    """A head on the output of ``layers`` of the backbone that were trained with it."""

    layers: TailLayers

    def _score(self, features: Matrix) -> Floats:
        return super()._score(self.layers.run(features))


@dataclass(frozen=True)
class Neighbours:
    """A vote of the k nearest training images, by cosine between standardised features.

    A neighbour's vote is exp(cosine / 0.07) (Wu et al., Unsupervised feature learning via non-parametric instance
    discrimination, 2018, section 3.4). ``vectors`` [n, dim] are the features of the training images, ``labels`` [n]
    their class indices, ``nearest`` [1] is k; the rest is as in :class:`Head`.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    vectors: Matrix
    labels: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    temperature: float = 1.0
    refuse_below: float = 0.0
    known: KnownImages | None = None
    views: int = 1

    def logits(self, features: Matrix) -> Floats:
        """Return the log of each class's share of the votes [n, classes], for features [n, views * dim]."""
        return _average(self._score, features, self.views)

    def _score(self, features: Matrix) -> Floats:
        neighbours = self._normalise(self.vectors)
        parts = [
            self._vote(self._normalise(features[at : at + ROWS]) @ neighbours.T) for at in range(0, len(features), ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)))

    def probabilities(self, features: Matrix) -> Floats:
        """Return probabilities [n, classes] for features [n, views * dim]; rows sum to 1."""
        return tempered_softmax(self.logits(features), self.temperature)

    def _normalise(self, features: Matrix) -> Matrix:
        standard = ((features - self.mean) / self.scale).astype(np.float32)
        lengths = np.linalg.norm(standard, axis=1, keepdims=True)
        units: Matrix = standard / np.maximum(lengths, np.finfo(np.float32).tiny)
        return units

    def _vote(self, cosines: Matrix) -> Floats:
        count = min(int(self.nearest[0]), len(self.labels))
        voters = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        votes = np.exp((np.take_along_axis(cosines, voters, axis=1).astype(np.float64) - 1) / SHARPNESS)
        sums = np.zeros((len(cosines), len(self.classes)))
        np.add.at(sums, (np.arange(len(cosines))[:, None], self.labels[voters]), votes)
        shares: Floats = sums / sums.sum(axis=1, keepdims=True)
        return np.log(shares + UNSEEN)


Classifier = Head | Tail | Neighbours


def count_views(train: Matrix, queries: Matrix) -> int:
    """Return the number of views in queries [m, views * dim], given training features [n, dim]."""
    return queries.shape[1] // train.shape[1] if len(queries) else 1


def _average(score: Callable[[Matrix], Floats], features: Matrix, views: int) -> Floats:
    if views == 1:
        return score(features)
    total: Floats = sum((score(part) for part in np.split(features, views, axis=1)), np.zeros(1))
    return total / views


def tempered_softmax(logits: Floats, temperature: float) -> Floats:
    """Return the softmax of logits [n, classes] divided by a temperature."""
    logits = logits / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = odds / odds.sum(axis=1, keepdims=True)
    return result
