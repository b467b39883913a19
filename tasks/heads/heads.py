"""Heads: what was trained on features, as a file and as numbers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from storage.artifacts.head_files import ARRAYS, LAYERS, Arrays, Kind, read_parts
from storage.errors import TrainError
from storage.locations.atomic import write_file
from storage.vectors.feature_file import Matrix

Floats = npt.NDArray[np.float64]
Layer = tuple[Floats, Floats]
"""Weights [in, out] and biases [out]."""

OPENER = "tasks.embed.cuts:open_tail"
"""Written into each tail's file: an earlier release opens the layers with the function of this name."""
ROWS = 1024
SHARPNESS = 0.07
UNSEEN = 1e-3
"""What a class without a neighbour has, as a share of all votes."""


@dataclass(frozen=True)
class Head:
    """A softmax over standardised features, behind hidden layers where there are some.

    ``mean`` and ``scale`` are [dim], ``weights`` are [dim, classes] and ``bias`` [classes], in the order of
    ``classes``; all float64. What a layer of ``hidden`` gives is rectified. Logits are divided by ``temperature``,
    which makes the probabilities calibrated ones. Features are of ``views`` of an image, side by side. Where no class
    is as likely as ``refuse_below``, the answer is none.

    Where there are ``thresholds``, one a class, classes are labels of which an image has any number: each has a
    sigmoid of its own, and is an answer from its threshold on.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    temperature: float = 1.0
    hidden: tuple[Layer, ...] = ()
    refuse_below: float = 0.0
    thresholds: tuple[float, ...] = ()
    views: int = 1

    def logits(self, features: Matrix) -> Floats:
        """Give [n, classes] for features [n, views * dim], before the temperature: the mean over the views."""
        return _average(self._score, features, self.views)

    def _score(self, features: Matrix) -> Floats:
        value: Floats = features.astype(np.float64)
        value -= self.mean
        value /= self.scale
        for weights, bias in self.hidden:
            value = np.maximum(value @ weights + bias, 0)
        return value @ self.weights + self.bias

    def probabilities(self, features: Matrix) -> Floats:
        """Give [n, classes] for features [n, dim]; rows sum to 1, unless the classes are labels."""
        logits = self.logits(features)
        if self.thresholds:
            return cast("Floats", np.exp(-np.logaddexp(0, -logits)))
        return soften(logits, self.temperature)


class Layers(Protocol):
    """The layers of a network after a cut, opened."""

    def run(self, features: Matrix) -> Matrix:
        """Give what the classifier was given, [n, width], for features [n, dim]."""
        ...

    def state(self) -> Arrays:
        """Give the layers' numbers, by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tail(Head):
    """A head behind layers of the backbone that were trained with it.

    The head gets what ``layers`` returns.
    """

    layers: Layers

    def _score(self, features: Matrix) -> Floats:
        return super()._score(self.layers.run(features))


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
    refuse_below: float = 0.0
    views: int = 1

    def logits(self, features: Matrix) -> Floats:
        """Give the log of each class's share of the votes [n, classes], the mean over the views [n, views * dim]."""
        return _average(self._score, features, self.views)

    def _score(self, features: Matrix) -> Floats:
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


Classifier = Head | Tail | Neighbours
_KINDS: dict[type[Classifier], Kind] = {Head: "head", Tail: "tail", Neighbours: "neighbours"}
_CLASSES: dict[Kind, type[Classifier]] = {kind: head for head, kind in _KINDS.items()}

OpenLayers = Callable[[Path, Arrays | None], Layers]
"""Opens the layers after a packed backbone's cut, with the numbers that a head kept of them."""


def count_views(train: Matrix, asked: Matrix) -> int:
    """Count the views over which answers average, by the widths of what is trained on and of what is asked."""
    return asked.shape[1] // train.shape[1] if len(asked) else 1


def _average(score: Callable[[Matrix], Floats], features: Matrix, views: int) -> Floats:
    if views == 1:
        return score(features)
    total: Floats = sum((score(part) for part in np.split(features, views, axis=1)), np.zeros(1))
    return total / views


def soften(logits: Floats, temperature: float) -> Floats:
    """Give the softmax [n, classes] of logits over a temperature."""
    logits = logits / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = odds / odds.sum(axis=1, keepdims=True)
    return result


def save_head(head: Classifier, path: Path) -> None:
    """Write a head as safetensors, the same bytes for the same head."""
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ARRAYS[_KINDS[type(head)]]}
    arrays["temperature"] = np.array([head.temperature])
    if head.refuse_below:
        arrays["refuse_below"] = np.array([head.refuse_below])
    if head.views > 1:
        arrays["views"] = np.array([head.views])
    if isinstance(head, Head) and head.thresholds:
        arrays["thresholds"] = np.array(head.thresholds)
    for place, layer in enumerate(head.hidden if isinstance(head, Head) else ()):
        for name, array in zip(("weights", "bias"), layer, strict=True):
            arrays[f"hidden.{place}.{name}"] = np.ascontiguousarray(array)
    facts = {"classes": json.dumps(head.classes)}  # one fact alone: safetensors writes several in any order
    if isinstance(head, Tail):
        arrays |= {f"{LAYERS}{name}": array for name, array in head.layers.state().items()}
        facts = {"tail": json.dumps({"classes": head.classes, "opener": OPENER})}
    with write_file(path) as unfinished:
        unfinished.write_bytes(save(arrays, metadata=facts))


def load_head(path: Path, backbone: Path | None = None, open_layers: OpenLayers | None = None) -> Classifier:
    """Read a head that :func:`save_head` wrote. Fields that an earlier release did not write get neutral defaults.

    Args:
        path: The head's file.
        backbone: The packed backbone of the head's recipe, which a tail needs.
        open_layers: Opens the layers after the backbone's cut, which a tail needs.

    Raises:
        TrainError: if a tail is read without its backbone, or if its layers are not a backbone's.
    """
    kind, facts, arrays = read_parts(path)
    own: dict[str, Any] = {name: arrays[name] for name in ARRAYS[kind]}
    own["temperature"] = float(arrays.get("temperature", np.ones(1))[0])
    own["views"] = int(arrays.get("views", np.ones(1))[0])
    own["refuse_below"] = float(arrays.get("refuse_below", np.zeros(1))[0])
    if kind == "tail":
        if facts["opener"] != OPENER:
            raise TrainError(
                f"head {path}", f"has layers of an unknown kind ({facts['opener']})", "Train the head again"
            )
        if backbone is None or open_layers is None:
            raise TrainError(f"head {path}", "is a tail, which needs its backbone", "Run `frostline run` to pack it")
        state = {name.removeprefix(LAYERS): array for name, array in arrays.items() if name.startswith(LAYERS)}
        own["layers"] = open_layers(backbone, state)
    depth = sum(name.startswith("hidden.") for name in arrays) // 2
    layers = tuple((arrays[f"hidden.{place}.weights"], arrays[f"hidden.{place}.bias"]) for place in range(depth))
    if kind != "neighbours":
        own |= {"hidden": layers, "thresholds": tuple(map(float, arrays.get("thresholds", ())))}
    found: Classifier = _CLASSES[kind](classes=tuple(facts["classes"]), **own)
    return found
