"""A backbone on its way: recipe and weights in one folder, opened again where the model is served."""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from storage.locations.atomic import write_folder
from storage.recipe import Recipe, read_recipe
from storage.vectors.feature_file import Matrix
from tasks.encoder.backbone.weights import Weights, digest_file
from tasks.encoder.embedder import Embedder, embed_images

ORDERED = ".by-order"


def pack_backbone(recipe: Recipe, weights: Weights, folder: Path) -> None:
    """Copy all that a recipe's vectors need into a folder, unless it is there."""
    if folder.exists():
        return
    mark = ORDERED if weights.by_order else ""
    with contextlib.suppress(FileExistsError), write_folder(folder) as unfinished:  # another process may be first
        (unfinished / "recipe.json").write_text(recipe.text, encoding="utf-8")
        shutil.copyfile(weights.path, unfinished / f"weights{mark}{weights.path.suffix}")


def read_packed(folder: Path) -> tuple[Recipe, Weights]:
    """Read the recipe of a packed backbone, and find its weights."""
    recipe = read_recipe((folder / "recipe.json").read_text(encoding="utf-8"))
    path = next(folder.glob("weights*"))
    return recipe, Weights(path, digest_file(path), by_order=ORDERED in path.suffixes)


def open_packed(folder: Path, batch: int | None, device: str, *, compiled: bool) -> Embedder:
    """Open a packed backbone once for all shards of a run, and for the check of its model, wherever the copy lies.

    Raises:
        WeightsError: where its weights are not the recipe's any more.
    """
    recipe, weights = read_packed(folder)
    with _turn():
        return open_once(recipe, weights, batch, device, compiled=compiled)


@cache
def _turn() -> Lock:
    """Let one open at a time: another who wants the same then finds it open."""
    return Lock()


@lru_cache(maxsize=1)
def open_once(recipe: Recipe, weights: Weights, batch: int | None, device: str, *, compiled: bool) -> Embedder:
    """Open a recipe's backbone, unless it was the last one that was opened: weights are known by their digest."""
    from tasks.encoder.backbone.open_backbone import open_backbone

    backbone, lanes = open_backbone(recipe, weights, device, batch, compiled=compiled)
    return Embedder(recipe, backbone, batch or lanes.batch, lanes)


def open_images(folder: Path, batch: int | None, views: int = 1) -> Callable[[Sequence[bytes]], Matrix]:
    """Open a packed backbone as a function from encoded images to vectors, as the lake has them.

    They are [n, views * dim]: the images' own, and beside them those of their views.
    """
    embedder = open_packed(folder, batch, "auto", compiled=False)
    return lambda images: np.hstack([embed_images(embedder, images, view) for view in range(views)])
