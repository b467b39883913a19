"""Recipes: everything that decides the value of a vector, and its hash."""

import json
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

from storage.canonical import canonical, digest

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Dtype = Literal["float32", "bfloat16", "float16"]
Stored = Literal["float16", "float32"]
Pooling = Literal["average", "flatten"]
Decoder = Literal["full", "scaled", "gpu"]
"""``full`` decodes to Pillow's pixels, within 1 level; ``scaled`` decodes large JPEGs at a fraction of their size by
the DCT; ``gpu`` decodes and resizes JPEGs on the device."""


@dataclass(frozen=True)
class Transform:
    """From the bytes of a file to the backbone's input, RGB.

    The image is resized so that its shorter side has ``resize`` pixels (or, with ``squash``, to exactly ``crop``),
    cropped to the central ``crop`` (height, width), scaled to 0..1, and standardised by ``mean`` and ``std``.
    """

    resize: int
    crop: tuple[int, int]
    squash: bool
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    decoder: Decoder = "full"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the value of a vector. Paths, the batch size and the device are not part of it.

    ``edition`` counts how often the user has accepted vectors that libraries or devices had changed.
    """

    architecture: str
    weights: str
    cut: str
    pooling: Pooling
    transform: Transform
    dtype: Dtype
    stored: Stored
    shape: tuple[int, ...]
    view: int = 0
    edition: int = 0
    version: int = 1

    @property
    def text(self) -> str:
        """The canonical JSON."""
        return canonical(asdict(self))

    @property
    def recipe_id(self) -> str:
        """The hash of the canonical JSON, 32 hexadecimal digits."""
        return digest(asdict(self))

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return prod(self.shape)


def read_recipe(text: str) -> Recipe:
    """Read a recipe from its canonical JSON."""
    value = json.loads(text)
    transform = {key: _tuple(part) for key, part in value.pop("transform").items()}
    return Recipe(transform=Transform(**transform), **{key: _tuple(part) for key, part in value.items()})


def _tuple(value: Any) -> Any:  # noqa: ANN401 - JSON's values
    return tuple(value) if isinstance(value, list) else value
