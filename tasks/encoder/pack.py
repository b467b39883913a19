"""Packed backbones: a recipe and its weights in one folder, which is opened by workers and served models."""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from storage.errors import WeightsError
from storage.locations.atomic import write_folder
from storage.recipe import Recipe, read_recipe
from storage.vectors.feature_file import Matrix
from tasks.encoder.backbone.weights import Weights, digest_file
from tasks.encoder.embedder import Embedder, embed_images
from tasks.encoder.pixels.budget import DEFAULT, Budget

BY_ORDER = ".by-order"


def pack_backbone(recipe: Recipe, weights: Weights, folder: Path) -> None:
    """Copy everything that computing a recipe's vectors needs into a folder, unless it exists."""
    if folder.exists():
        return
    mark = BY_ORDER if weights.by_order else ""
    with contextlib.suppress(FileExistsError), write_folder(folder) as unfinished:  # another process may be first
        (unfinished / "recipe.json").write_text(recipe.text, encoding="utf-8")
        shutil.copyfile(weights.path, unfinished / f"weights{mark}{weights.path.suffix}")


def read_packed(folder: Path) -> tuple[Recipe, Weights]:
    """Read a packed backbone's recipe, and find its weights.

    Raises:
        WeightsError: if one of the two is not in the folder.
    """
    description, path = folder / "recipe.json", next(folder.glob("weights*"), None)
    if path is None or not description.is_file():
        raise WeightsError(
            f"backbone {folder}",
            f"has lost its {'weights' if path is None else description.name}",
            "Delete the folder and run again: what is needed of it is copied there anew",
        )
    recipe = read_recipe(description.read_text(encoding="utf-8"))
    return recipe, Weights(path, digest_file(path), by_order=BY_ORDER in path.suffixes)


def open_packed(folder: Path, batch: int | None, device: str, *, compiled: bool) -> Embedder:
    """Open a packed backbone once for all shards of a run and for the check of its model, whichever copy it is.

    Raises:
        WeightsError: if its weights are no longer the recipe's.
    """
    recipe, weights = read_packed(folder)
    with _get_lock():
        return open_once(recipe, weights, batch, device, compiled=compiled)


@cache
def _get_lock() -> Lock:
    """Return a lock that is held while opening, so that a thread that needs the same backbone gets the cached one."""
    return Lock()


@lru_cache(maxsize=1)
def open_once(recipe: Recipe, weights: Weights, batch: int | None, device: str, *, compiled: bool) -> Embedder:
    """Open a recipe's backbone, unless it was the last one opened; weights are compared by their digest."""
    from tasks.encoder.backbone.open_backbone import open_backbone

    backbone, lanes = open_backbone(recipe, weights, device, batch, compiled=compiled)
    return Embedder(recipe, backbone, batch or lanes.batch, lanes)


def open_images(
    folder: Path, batch: int | None, views: int = 1, budget: Budget = DEFAULT
) -> Callable[[Sequence[bytes]], Matrix]:
    """Open a packed backbone as a function from encoded images to the vectors that the lake would store.

    The vectors are [n, views * dim], float32: those of the images themselves, followed by those of their views. Each
    image may take what the budget allows.
    """
    embedder = open_packed(folder, batch, "auto", compiled=False)
    return lambda images: np.hstack([embed_images(embedder, images, view, budget) for view in range(views)])
