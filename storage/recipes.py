"""Recipes: everything that decides a vector's value, and the hash of it."""

import json
from datetime import datetime
from math import prod
from typing import Literal

from pydantic import BaseModel, ConfigDict

from storage.canonical import canonical, digest
from storage.lake import Lake

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Dtype = Literal["float32", "bfloat16", "float16"]
Pooling = Literal["average", "flatten"]


class Transform(BaseModel):
    """From a file's bytes to the backbone's input, RGB.

    The image is resized so that its shorter side has ``resize`` pixels (or, with ``squash``, to exactly ``crop``),
    cut to the middle ``crop`` (height, width), scaled to 0..1, and standardised by ``mean`` and ``std``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder: Literal["pillow"] = "pillow"
    resize: int
    crop: tuple[int, int]
    squash: bool = False
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Recipe(BaseModel):
    """Everything that decides a vector's value. Where things lie, the batch size and the device are not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    architecture: str
    weights: str
    cut: str
    pooling: Pooling
    transform: Transform
    view: int = 0
    dtype: Dtype
    stored: Literal["float16", "float32"]
    shape: tuple[int, ...]

    @property
    def text(self) -> str:
        """The canonical JSON."""
        return canonical(self.model_dump())

    @property
    def recipe_id(self) -> str:
        """The hash of the canonical JSON, 32 hexadecimal digits."""
        return digest(self.model_dump())

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return prod(self.shape)


def read_recipe(text: str) -> Recipe:
    """Read a recipe from its canonical JSON."""
    return Recipe.model_validate(json.loads(text))


def find_recipe(lake: Lake, request: dict[str, object]) -> Recipe | None:
    """Find the recipe that these settings led to before."""
    found = lake.rows(
        "SELECT recipe FROM recipe_requests JOIN recipes USING (recipe_id) WHERE request_id = ?", [digest(request)]
    )
    return read_recipe(found[0][0]) if found else None


def get_recipe(lake: Lake, recipe_id: str) -> Recipe:
    """Read a recipe that the lake has."""
    return read_recipe(lake.value("SELECT recipe FROM recipes WHERE recipe_id = ?", [recipe_id]))


def save_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> None:
    """Record a recipe and the settings that led to it, unless both are known."""
    if find_recipe(lake, request) is None:
        lake.commit(lambda: _write_recipe(lake, request, recipe, now))


def _write_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> None:
    lake.execute(
        "INSERT INTO recipes SELECT $1, $2, $3, $4, $5, $6, $7 "
        "WHERE NOT EXISTS (SELECT 1 FROM recipes WHERE recipe_id = $1)",
        [recipe.recipe_id, recipe.text, recipe.architecture, recipe.weights, recipe.cut, recipe.dim, now],
    )
    lake.execute(
        "INSERT INTO recipe_requests SELECT $1, $2, $3, $4 "
        "WHERE NOT EXISTS (SELECT 1 FROM recipe_requests WHERE request_id = $1)",
        [digest(request), canonical(request), recipe.recipe_id, now],
    )
