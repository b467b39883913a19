"""An exported backbone as a function from encoded images to vectors, for served models and where they are made."""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from storage.errors import WeightsError
from storage.recipe import read_recipe
from storage.vectors.feature_file import Matrix
from tasks.encoder.backbone.weights import digest_file
from tasks.encoder.embedder import Embedder, Lanes, count_cores, embed_images
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.runtimes.onnx_runtime import open_onnxruntime

MAX_LANES, BATCH = 8, 8


def check_exported(model: Path, expected: str) -> Path:
    """Return an ONNX file, whose bytes several versions of a model share, if they are still the expected ones.

    Raises:
        WeightsError: if they are not.
    """
    if digest_file(model) != expected:
        raise WeightsError(f"backbone {model}", "has other bytes than were registered", "Restore it from a backup")
    return model


def make_lanes(runtime: str, batch: int) -> Lanes:
    """Return one lane per core, up to eight, for an exported backbone."""
    device = f"{platform.machine()} {runtime} {version(runtime)}"
    return Lanes(min(count_cores(), MAX_LANES), device=device, batch=batch)


def open_exported_images(
    folder: Path, model: Path, batch: int | None, views: int = 1, budget: Budget = DEFAULT
) -> Callable[[Sequence[bytes]], Matrix]:
    """Open an ONNX file as :func:`tasks.encoder.pack.open_images` opens a packed backbone, without torch.

    Args:
        folder: The packed backbone, of which only the recipe is read.
        model: The ONNX file.
        batch: The fixed batch size; by default 8.
        views: How many views to embed; the first is the image itself.
        budget: What decoding one image may take.
    """
    recipe = read_recipe((folder / "recipe.json").read_text(encoding="utf-8"))
    lanes = make_lanes("onnxruntime", batch or BATCH)
    backbone = open_onnxruntime(model, lanes.count, count_cores() // lanes.count)
    embedder = Embedder(recipe, backbone, lanes.batch, lanes)
    return lambda images: np.hstack([embed_images(embedder, images, view, budget) for view in range(views)])
