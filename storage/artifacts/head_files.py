"""Head files: the parts of a head's safetensors file, and whether it is complete."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays by name."""


LAYERS = "layers."


LINEAR = ("mean", "scale", "weights", "bias")


ARRAYS = {"head": LINEAR, "tail": LINEAR, "neighbours": ("mean", "scale", "vectors", "labels", "nearest")}
"""The arrays that each kind of head must have."""

Kind = Literal["head", "tail", "neighbours"]


def read_parts(path: Path) -> tuple[Kind, dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read the kind of head in a file, its facts, and its arrays by name."""
    with safe_open(path, framework="numpy") as file:
        facts = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    facts = facts.get("tail", facts)
    return "neighbours" if "vectors" in arrays else "tail" if "opener" in facts else "head", facts, arrays


def count_neighbours(path: Path) -> int:
    """Count the training vectors in a head file: none, unless it is a k-NN head.

    A damaged file counts as one with more vectors than any training has.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return int(file.get_slice("vectors").get_shape()[0]) if "vectors" in names else 0
    except SafetensorError:
        return sys.maxsize


def is_whole(path: Path) -> bool:
    """Return whether a head has all its arrays, and all values are finite."""
    try:
        kind, facts, arrays = read_parts(path)
    except (OSError, ValueError, TypeError, SafetensorError):
        return False
    whole = "classes" in facts and set(ARRAYS[kind]) <= set(arrays)
    return whole and all(bool(np.isfinite(array).all()) for array in arrays.values())
