"""Heads: the trained softmax, as a file and as numbers."""

import json
from dataclasses import dataclass
from pathlib import Path

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
    ``classes``; all float64. Logits are divided by ``temperature``, which makes the probabilities calibrated ones.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    temperature: float = 1.0

    def logits(self, features: Matrix) -> Floats:
        """Give [n, classes] for features [n, dim], before the temperature."""
        logits: Floats = (features.astype(np.float64) - self.mean) / self.scale @ self.weights + self.bias
        return logits

    def probabilities(self, features: Matrix) -> Floats:
        """Give [n, classes], rows summing to 1, for features [n, dim]."""
        return soften(self.logits(features), self.temperature)


def soften(logits: Floats, temperature: float) -> Floats:
    """Give the softmax [n, classes] of logits over a temperature."""
    logits = logits / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = odds / odds.sum(axis=1, keepdims=True)
    return result


def save_head(head: Head, path: Path) -> None:
    """Write a head as safetensors, the same bytes for the same head."""
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ("mean", "scale", "weights", "bias")}
    arrays["temperature"] = np.array([head.temperature])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(save(arrays, metadata={"classes": json.dumps(head.classes)}))
    unfinished.rename(path)


def load_head(path: Path) -> Head:
    """Read a head that :func:`save_head` wrote; those of earlier releases have no temperature, which is 1."""
    with safe_open(path, framework="numpy") as file:
        classes = tuple(json.loads(file.metadata()["classes"]))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    temperature = float(arrays.pop("temperature", np.ones(1))[0])
    return Head(classes=classes, **arrays, temperature=temperature)
