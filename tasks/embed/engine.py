"""The embedding engine: decode in threads, run the backbone on batches of one size, round, write."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from storage.paths import Home, text_to_path
from storage.progress import Advance
from storage.recipe import Recipe
from storage.vectors import Failure, Matrix, Shard, write_features
from tasks.embed.decode import Pixels, decode

Backbone = Callable[[Pixels], Matrix]
"""From pixels [n, height, width, 3], uint8, to vectors [n, dim], float32."""

Item = tuple[str, str]
"""An image to embed: (image_id, path below the root of its source)."""

Decoded = tuple[Item, Pixels | Failure]
"""What reading an item gave."""


@dataclass(frozen=True)
class Embedder:
    """A recipe with its backbone, and the one batch size that it runs at."""

    recipe: Recipe
    backbone: Backbone
    batch: int


@dataclass(frozen=True)
class Vectors:
    """What embedding some images gave: vectors [n, dim] in the order of their ids, and failures."""

    image_ids: tuple[str, ...]
    matrix: Matrix
    failures: tuple[Failure, ...]


def embed_shard(
    home: Home, source: str, root: Path, embedder: Embedder, items: Sequence[Item], decoders: int, advance: Advance
) -> Shard:
    """Embed images of a source and write their vectors as one Parquet file, not yet part of the lake."""
    began = time.perf_counter()
    recipe_id = embedder.recipe.recipe_id
    vectors = embed_files(root, embedder, items, decoders, advance)
    file = write_features(home, recipe_id, vectors.image_ids, vectors.matrix) if vectors.image_ids else None
    calls = len(vectors.image_ids) + sum(failure.stage == "embed" for failure in vectors.failures)
    return Shard(recipe_id, source, file, vectors.failures, calls, time.perf_counter() - began)


def embed_files(root: Path, embedder: Embedder, items: Sequence[Item], decoders: int, advance: Advance) -> Vectors:
    """Embed files: threads read and decode ahead, by three batches at most, while the backbone runs."""
    done = Vectors((), np.empty((0, embedder.recipe.dim), np.float32), ())
    parts: list[Vectors] = [done]
    with ThreadPoolExecutor(decoders) as pool:
        decoded = _read_ahead(pool, lambda item: _read(root, item, embedder.recipe), items, 3 * embedder.batch)
        for batch in _group(decoded, embedder.batch):
            parts.append(_embed_batch(embedder, batch))
            advance(len(batch))
    return Vectors(
        tuple(image_id for part in parts for image_id in part.image_ids),
        np.concatenate([part.matrix for part in parts]),
        tuple(failure for part in parts for failure in part.failures),
    )


def embed_images(embedder: Embedder, images: Sequence[bytes]) -> Matrix:
    """Embed images given as bytes, by the code that fills the lake; a row each.

    Raises:
        Exception: of any kind, at the first that cannot be decoded.
    """
    pixels = [decode(data, embedder.recipe.transform) for data in images]
    starts = range(0, len(pixels), embedder.batch)
    parts = [run_backbone(embedder, pixels[start : start + embedder.batch]) for start in starts]
    return np.concatenate([np.empty((0, embedder.recipe.dim), np.float32), *parts])


def run_backbone(embedder: Embedder, pixels: Sequence[Pixels]) -> Matrix:
    """Run one batch, filled up with black images so that a vector does not depend on how many came with it.

    Args:
        embedder: The backbone.
        pixels: At most ``embedder.batch`` images [height, width, 3], uint8.

    Returns:
        [len(pixels), dim], float32, rounded to the recipe's stored precision.
    """
    batch = np.zeros((embedder.batch, *embedder.recipe.transform.crop, 3), np.uint8)
    batch[: len(pixels)] = pixels
    vectors = embedder.backbone(batch)[: len(pixels)]
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and a failure
        return vectors.astype(embedder.recipe.stored).astype(np.float32)


def _embed_batch(embedder: Embedder, batch: Sequence[Decoded]) -> Vectors:
    failures = [result for _, result in batch if isinstance(result, Failure)]
    good = [(item, result) for item, result in batch if not isinstance(result, Failure)]
    if not good:
        return Vectors((), np.empty((0, embedder.recipe.dim), np.float32), tuple(failures))
    matrix = run_backbone(embedder, [pixels for _, pixels in good])
    finite = [bool(np.isfinite(vector).all()) for vector in matrix]
    reason = f"not finite in {embedder.recipe.dtype}, stored as {embedder.recipe.stored}"
    failures += [Failure(*item, "embed", reason) for (item, _), ok in zip(good, finite, strict=True) if not ok]
    ids = tuple(item[0] for (item, _), ok in zip(good, finite, strict=True) if ok)
    return Vectors(ids, matrix[finite], tuple(failures))


def _read(root: Path, item: Item, recipe: Recipe) -> Decoded:
    image_id, path = item
    try:
        data = (root / text_to_path(path)).read_bytes()
    except OSError as error:
        return item, Failure(image_id, path, "read", error.strerror or type(error).__name__)
    if UUID(bytes=hashlib.sha256(data).digest()[:16]) != UUID(image_id):
        return item, Failure(image_id, path, "read", "bytes changed after the scan")
    try:
        return item, decode(data, recipe.transform)
    except Exception as error:  # noqa: BLE001 - broken pixels raise anything; the failure is recorded
        return item, Failure(image_id, path, "decode", " ".join(str(error).split()) or type(error).__name__)


def _read_ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[Item], Decoded],
    items: Sequence[Item],
    ahead: int,
) -> Iterator[Decoded]:
    """Map in order with a bounded number of results waiting."""
    waiting: deque[Future[Decoded]] = deque()
    for item in items:
        waiting.append(pool.submit(read, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _group(results: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    group: list[Decoded] = []
    for result in results:
        group.append(result)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
