"""The embedder: a recipe's backbone, which turns pixels or encoded images into vectors."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from storage.errors import BackboneError
from storage.plural import pluralize
from storage.recipe import Recipe
from storage.vectors.feature_file import Matrix
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.transform import Pixels
from tasks.encoder.stages import Meter, group, map_ahead

Backbone = Callable[[Pixels], Matrix]
"""From pixels [n, height, width, 3], uint8, to vectors [n, dim], float32; raises MemoryError if n is too large."""


Pin = Callable[[Pixels], Callable[[], None]]
"""Prepares rows of pixels for copies to a device; returns the function that undoes it."""

logger = logging.getLogger(__name__)


def _do_nothing() -> None:
    """No-op default for ``enter``, and for what ``pin`` returns."""


def _pin_nothing(_: Pixels) -> Callable[[], None]:
    return _do_nothing


@dataclass(frozen=True)
class Lanes:
    """How batches run concurrently on a device.

    Attributes:
        count: Batches that run at the same time, each in its own thread.
        enter: Called by each thread before its first batch.
        device: The device's name and version, as recorded with canaries.
        batch: The number of images per batch that suits the device.
        pin: Prepares the ring for copies to the device.
        processes: Whether images are decoded in processes, because threads cannot decode as fast as the device
            computes.
        export: Writes the backbone as an ONNX file; None if only torch computes its numbers.
    """

    count: int = 1
    enter: Callable[[], None] = _do_nothing
    device: str = "none"
    batch: int = 8
    pin: Pin = _pin_nothing
    processes: bool = False
    export: Callable[[Path], None] | None = None


@dataclass(eq=False)
class Embedder:
    """A recipe with its backbone, and the lanes that run it on batches of one size.

    The lanes stay open from one shard to the next. ``batch`` is halved if a batch does not fit in memory.
    """

    recipe: Recipe
    backbone: Backbone
    batch: int
    lanes: Lanes = Lanes()
    pool: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the lanes; their threads start with the first batch."""
        self.pool = ThreadPoolExecutor(self.lanes.count, "lane", self.lanes.enter)


def embed_images(embedder: Embedder, images: Sequence[bytes], view: int = 0, budget: Budget = DEFAULT) -> Matrix:
    """Embed encoded images, or a view of each, with the same code and lanes that fill the lake.

    Args:
        embedder: The backbone.
        images: The encoded images.
        view: The view; 0 for the images themselves.
        budget: What decoding one of them may take.

    Returns:
        Vectors [n, dim], float32, rounded to the recipe's stored precision.

    Raises:
        Exception: of any kind, if an image cannot be decoded.
    """
    pixels = (decode(data, embedder.recipe.transform, view, budget) for data in images)
    batches = (np.stack(batch) for batch in group(pixels, embedder.batch))
    parts = map_ahead(
        embedder.pool, partial(run_backbone, embedder), batches, embedder.lanes.count, Meter(), "backbone"
    )
    return np.concatenate([np.empty((0, embedder.recipe.dim), np.float32), *parts])


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_backbone(embedder: Embedder, pixels: Pixels, count: int | None = None) -> Matrix:
    """Run images in batches of one size, which is halved if memory does not suffice.

    Args:
        embedder: The backbone.
        pixels: Images [n, height, width, 3], uint8.
        count: The number of images to return vectors for; the others only fill a batch. All by default.

    Returns:
        Vectors [count, dim], float32, rounded to the recipe's stored precision.

    Raises:
        BackboneError: if not even one image fits in memory.
    """
    size, count = embedder.batch, len(pixels) if count is None else count
    try:
        parts = [_run_padded(embedder, pixels[at : at + size], size) for at in range(0, count, size)]
    except MemoryError as error:
        _halve(embedder, size, error)
        return run_backbone(embedder, pixels, count)
    return np.concatenate(parts)[:count]


def _run_padded(embedder: Embedder, pixels: Pixels, size: int) -> Matrix:
    """Run one batch, padded with black images so that a vector does not depend on the number of images."""
    if len(pixels) < size:
        pixels = np.concatenate([pixels, np.zeros((size - len(pixels), *pixels.shape[1:]), np.uint8)])
    vectors = embedder.backbone(pixels)
    with np.errstate(over="ignore"):  # a value too large for float16 becomes infinite, which is recorded as a failure
        return vectors.astype(embedder.recipe.stored).astype(np.float32)


def _halve(embedder: Embedder, size: int, error: MemoryError) -> None:
    """Halve the batch, unless another lane has done so since this size was tried."""
    if size == 1:
        raise BackboneError(
            f"backbone {embedder.recipe.architecture}",
            f"does not fit in memory with one image ({' '.join(str(error).split())[:200]})",
            "Choose a smaller one, or another --embed.device",
        ) from error
    if embedder.batch == size:
        embedder.batch = size // 2
        batch = pluralize(size, "image")
        logger.warning("a batch of %s does not fit in memory: continuing with %d", batch, size // 2)
