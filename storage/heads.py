"""Heads: what was trained on features, as a file and as numbers."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from storage.vectors import Matrix

Floats = npt.NDArray[np.float64]
Layer = tuple[Floats, Floats]
"""Weights [in, out] and biases [out]."""

ROWS = 1024
SHARPNESS = 0.07
UNSEEN = 1e-3
"""What a class without a neighbour has, as a share of all votes."""


@dataclass(frozen=True)
class Head:
    """A softmax over standardised features, behind hidden layers where there are some.

    ``mean`` and ``scale`` are [dim], ``weights`` are [dim, classes] and ``bias`` [classes], in the order of
    ``classes``; all float64. What a layer of ``hidden`` gives is rectified. Logits are divided by ``temperature``,
    which makes the probabilities calibrated ones.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    temperature: float = 1.0
    hidden: tuple[Layer, ...] = ()

    def logits(self, features: Matrix) -> Floats:
        """Give [n, classes] for features [n, dim], before the temperature."""
        value: Floats = (features.astype(np.float64) - self.mean) / self.scale
        for weights, bias in self.hidden:
            value = np.maximum(value @ weights + bias, 0)
        return value @ self.weights + self.bias

    def probabilities(self, features: Matrix) -> Floats:
        """Give [n, classes], rows summing to 1, for features [n, dim]."""
        return soften(self.logits(features), self.temperature)


@dataclass(frozen=True)
class Neighbours:
    """A vote of the nearest training images, by the cosine between standardised features.

    A neighbour's vote is exp(cosine / 0.07) (Wu et al., Unsupervised feature learning via non-parametric instance
    discrimination, 2018, section 3.4). ``vectors`` [n, dim] are the training images' features, ``labels`` [n] the
    numbers of their classes, ``nearest`` [1] how many vote; the rest is as in :class:`Head`.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    vectors: Matrix
    labels: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    temperature: float = 1.0

    def logits(self, features: Matrix) -> Floats:
        """Give the log of each class's share of the votes [n, classes] for features [n, dim]."""
        known = self._point(self.vectors)
        parts = [self._vote(self._point(features[at : at + ROWS]) @ known.T) for at in range(0, len(features), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)))

    def probabilities(self, features: Matrix) -> Floats:
        """Give [n, classes], rows summing to 1, for features [n, dim]."""
        return soften(self.logits(features), self.temperature)

    def _point(self, features: Matrix) -> Matrix:
        standard = ((features - self.mean) / self.scale).astype(np.float32)
        lengths = np.linalg.norm(standard, axis=1, keepdims=True)
        pointed: Matrix = standard / np.maximum(lengths, np.finfo(np.float32).tiny)
        return pointed

    def _vote(self, cosines: Matrix) -> Floats:
        count = min(int(self.nearest[0]), len(self.labels))
        voters = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        votes = np.exp((np.take_along_axis(cosines, voters, axis=1).astype(np.float64) - 1) / SHARPNESS)
        sums = np.zeros((len(cosines), len(self.classes)))
        np.add.at(sums, (np.arange(len(cosines))[:, None], self.labels[voters]), votes)
        shares: Floats = sums / sums.sum(axis=1, keepdims=True)
        return np.log(shares + UNSEEN)


Classifier = Head | Neighbours
ARRAYS = {Head: ("mean", "scale", "weights", "bias"), Neighbours: ("mean", "scale", "vectors", "labels", "nearest")}


def soften(logits: Floats, temperature: float) -> Floats:
    """Give the softmax [n, classes] of logits over a temperature."""
    logits = logits / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = odds / odds.sum(axis=1, keepdims=True)
    return result


def save_head(head: Classifier, path: Path) -> None:
    """Write a head as safetensors, the same bytes for the same head."""
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ARRAYS[type(head)]}
    arrays["temperature"] = np.array([head.temperature])
    for place, layer in enumerate(head.hidden if isinstance(head, Head) else ()):
        for name, array in zip(("weights", "bias"), layer, strict=True):
            arrays[f"hidden.{place}.{name}"] = np.ascontiguousarray(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(save(arrays, metadata={"classes": json.dumps(head.classes)}))
    unfinished.rename(path)


def load_head(path: Path) -> Classifier:
    """Read a head that :func:`save_head` wrote; those of earlier releases have no temperature, which is 1."""
    with safe_open(path, framework="numpy") as file:
        classes = tuple(json.loads(file.metadata()["classes"]))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    temperature = float(arrays.pop("temperature", np.ones(1))[0])
    kind: type[Any] = Neighbours if "vectors" in arrays else Head
    own = {name: arrays[name] for name in ARRAYS[kind]}
    depth = sum(name.startswith("hidden.") for name in arrays) // 2
    layers = tuple((arrays[f"hidden.{place}.weights"], arrays[f"hidden.{place}.bias"]) for place in range(depth))
    found: Classifier = kind(classes=classes, **own, temperature=temperature, **({"hidden": layers} if layers else {}))
    return found


def count_neighbours(path: Path) -> int:
    """Count the images whose vectors a head keeps: none, unless its nearest training images vote.

    A file that is no head counts as one that keeps more than any training has.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return int(file.get_slice("vectors").get_shape()[0]) if "vectors" in names else 0
    except SafetensorError:
        return sys.maxsize


def is_whole(path: Path) -> bool:
    """Tell whether a head can be read, and holds numbers alone."""
    try:
        head = load_head(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return False
    return all(bool(np.isfinite(getattr(head, name)).all()) for name in ARRAYS[type(head)])
