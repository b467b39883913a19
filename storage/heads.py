"""Heads: the trained softmax, as a file and as numbers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save

from storage.vectors import Matrix

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """A softmax over standardised features.

    ``mean`` and ``scale`` are [dim], ``weights`` are [dim, classes] and ``bias`` [classes], in the order of
    ``classes``; all float64.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def probabilities(self, features: Matrix) -> Floats:
        """Give [n, classes], rows summing to 1, for features [n, dim]."""
        logits = (features.astype(np.float64) - self.mean) / self.scale @ self.weights + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return cast("Floats", odds / odds.sum(axis=1, keepdims=True))


def save_head(head: Head, path: Path) -> None:
    """Write a head as safetensors, the same bytes for the same head."""
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ("mean", "scale", "weights", "bias")}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(save(arrays, metadata={"classes": json.dumps(head.classes)}))
    unfinished.rename(path)


def load_head(path: Path) -> Head:
    """Read a head that :func:`save_head` wrote."""
    with safe_open(path, framework="numpy") as file:
        classes = tuple(json.loads(file.metadata()["classes"]))
        arrays = {name: file.get_tensor(name) for name in ("mean", "scale", "weights", "bias")}
    return Head(classes=classes, **arrays)
