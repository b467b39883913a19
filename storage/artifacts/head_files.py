"""Head files: which parts a head's safetensors file has, and whether it is whole."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

Arrays = Mapping[str, npt.NDArray[Any]]
"""Numbers by name."""


LAYERS = "layers."


LINEAR = ("mean", "scale", "weights", "bias")


ARRAYS = {"head": LINEAR, "tail": LINEAR, "neighbours": ("mean", "scale", "vectors", "labels", "nearest")}
"""The arrays that a head of each kind must have."""

Kind = Literal["head", "tail", "neighbours"]


def read_parts(path: Path) -> tuple[Kind, dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read which kind of head a file holds, its facts, and its numbers by name."""
    with safe_open(path, framework="numpy") as file:
        facts = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    facts = facts.get("tail", facts)
    return "neighbours" if "vectors" in arrays else "tail" if "opener" in facts else "head", facts, arrays


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
    """Tell whether a head has all its parts, and holds numbers alone."""
    try:
        kind, facts, arrays = read_parts(path)
    except (OSError, ValueError, TypeError, SafetensorError):
        return False
    whole = "classes" in facts and set(ARRAYS[kind]) <= set(arrays)
    return whole and all(bool(np.isfinite(array).all()) for array in arrays.values())
