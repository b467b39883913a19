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
KNOWN, CHOSEN_FROM = "known", "known.chosen_from"
"""The features that a head keeps of its training images, and of how many images they were chosen."""

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


def count_remembered(path: Path) -> int:
    """Count the training images whose vectors a head file has, or may have.

    None, unless it is a k-NN head, or one that may answer "neither". A damaged file counts as one with more vectors
    than any training has.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            neighbours = int(file.get_slice("vectors").get_shape()[0]) if "vectors" in names else 0
            known = int(file.get_tensor(CHOSEN_FROM)[0]) if CHOSEN_FROM in names else 0
            return max(neighbours, known)
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
