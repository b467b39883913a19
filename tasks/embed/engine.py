"""The embedding engine: one bounded pipeline from files to Parquet.

Readers (threads) read and decode a few images at once; lanes (threads) run the backbone on batches of one size; a
writer (a thread) makes Parquet of the vectors. The coordinator waits for one of them at a time, so that its waits tell
which one bounds the rest.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from uuid import UUID

import numpy as np

from storage.errors import BackboneError
from storage.paths import Home, text_to_path
from storage.progress import Advance
from storage.recipe import Recipe
from storage.vectors import Failure, FeatureFile, Matrix, Shard
from tasks.embed.decode import Pixels, decode, decode_all
from tasks.embed.stages import Meter, group, map_ahead

CHUNK = 8  # images that a reader takes at once: handing each over alone would cost more than reading it
WRITES = 2

logger = logging.getLogger(__name__)

Backbone = Callable[[Pixels], Matrix]
"""From pixels [n, height, width, 3], uint8, to vectors [n, dim], float32; MemoryError where n is too many."""

Item = tuple[str, str]
"""An image to embed: (image_id, path below the root of its source)."""

Decoded = tuple[Item, Pixels | Failure]
"""What reading an item gave."""


def _stay() -> None:
    """Enter a lane as it is."""


@dataclass(frozen=True)
class Lanes:
    """How many batches run beside each other, what the thread of each does before its first, on which device.

    ``batch`` is the number of images that suits the device.
    """

    count: int = 1
    enter: Callable[[], None] = _stay
    device: str = "none"
    batch: int = 8


@dataclass
class Embedder:
    """A recipe with its backbone, and the lanes that run it on batches of one size.

    The lanes stay from one shard to the next. ``batch`` is halved where memory does not suffice.
    """

    recipe: Recipe
    backbone: Backbone
    batch: int
    lanes: Lanes = Lanes()
    pool: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the lanes, whose threads start with the first batch."""
        self.pool = ThreadPoolExecutor(self.lanes.count, "lane", self.lanes.enter)


@dataclass(frozen=True)
class Vectors:
    """What embedding some images gave: vectors [n, dim] in the order of their ids, and failures."""

    image_ids: tuple[str, ...]
    matrix: Matrix
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Chunk:
    """What a reader made of a few items, and its cost."""

    results: list[Decoded]
    reading: float
    decoding: float
    bytes: int


def embed_shard(
    home: Home, source: str, root: Path, embedder: Embedder, items: Sequence[Item], readers: int, advance: Advance
) -> Shard:
    """Embed images of a source and write their vectors as one Parquet file, not yet part of the lake.

    Raises:
        LakeError: where the file cannot be written.
        BackboneError: where not even one image fits into memory.
    """
    began = time.perf_counter()
    meter, calls, failures = Meter(), 0, list[Failure]()
    recipe = embedder.recipe
    with FeatureFile(home, recipe.recipe_id, recipe.dim) as file, ThreadPoolExecutor(1, "writer") as writer:

        def write(part: Vectors) -> Vectors:
            file.write(part.image_ids, part.matrix)
            return part

        parts = embed_files(root, embedder, items, readers, meter)
        for part in map_ahead(writer, write, parts, WRITES, meter, "write"):
            failures += part.failures
            calls += len(part.image_ids) + sum(failure.stage == "embed" for failure in part.failures)
            advance(len(part.image_ids) + len(part.failures))
    seconds = time.perf_counter() - began
    return Shard(recipe.recipe_id, source, file.path, tuple(failures), calls, seconds, meter.bytes, meter.share_out())


def embed_files(root: Path, embedder: Embedder, items: Sequence[Item], readers: int, meter: Meter) -> Iterator[Vectors]:
    """Embed files, in order, a batch at a time; bounded in memory whatever their number."""
    ahead = max(readers, (embedder.lanes.count + 2) * embedder.batch // CHUNK)
    with ThreadPoolExecutor(readers, "reader") as pool:
        read = partial(_read_chunk, root, embedder.recipe)
        chunks = map_ahead(pool, read, group(items, CHUNK), ahead, meter, "decode")
        batches = group(chain.from_iterable(_count(chunks, meter)), embedder.batch)
        run = partial(_embed_batch, embedder)
        yield from map_ahead(embedder.pool, run, batches, embedder.lanes.count, meter, "backbone")


def embed_images(embedder: Embedder, images: Sequence[bytes], view: int = 0) -> Matrix:
    """Embed images given as bytes, or a view of each, by the code and in the lanes that fill the lake; a row each.

    Raises:
        Exception: of any kind, at the first that cannot be decoded.
    """
    pixels = (decode(data, embedder.recipe.transform, view) for data in images)
    batches = group(pixels, embedder.batch)
    parts = map_ahead(
        embedder.pool, partial(run_backbone, embedder), batches, embedder.lanes.count, Meter(), "backbone"
    )
    return np.concatenate([np.empty((0, embedder.recipe.dim), np.float32), *parts])


def is_image(data: bytes, image_id: str) -> bool:
    """Tell whether bytes are those of an image."""
    return hashlib.sha256(data).digest()[:16] == UUID(image_id).bytes


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_backbone(embedder: Embedder, pixels: Sequence[Pixels]) -> Matrix:
    """Run images in batches of one size, halving it where memory does not suffice.

    Args:
        embedder: The backbone.
        pixels: Images [height, width, 3], uint8.

    Returns:
        [len(pixels), dim], float32, rounded to the recipe's stored precision.

    Raises:
        BackboneError: where not even one image fits into memory.
    """
    size = embedder.batch
    try:
        parts = [_run_filled(embedder, pixels[at : at + size], size) for at in range(0, len(pixels), size)]
    except MemoryError as error:
        _halve(embedder, size, error)
        return run_backbone(embedder, pixels)
    return np.concatenate(parts)


def _run_filled(embedder: Embedder, pixels: Sequence[Pixels], size: int) -> Matrix:
    """Run one batch, filled up with black images so that a vector does not depend on how many came with it."""
    batch = np.zeros((size, *embedder.recipe.transform.crop, 3), np.uint8)
    batch[: len(pixels)] = pixels
    vectors = embedder.backbone(batch)[: len(pixels)]
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and a failure
        return vectors.astype(embedder.recipe.stored).astype(np.float32)


def _halve(embedder: Embedder, size: int, error: MemoryError) -> None:
    """Halve the batch, unless another lane has done so since ``size`` was tried."""
    if size == 1:
        raise BackboneError(
            f"backbone {embedder.recipe.architecture}",
            f"does not fit into memory with one image ({' '.join(str(error).split())[:200]})",
            "Take a smaller one, or another --embed.device",
        ) from error
    if embedder.batch == size:
        embedder.batch = size // 2
        logger.warning("%d images at once do not fit into memory: going on with %d", size, size // 2)


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


def _count(chunks: Iterator[_Chunk], meter: Meter) -> Iterator[list[Decoded]]:
    for chunk in chunks:
        meter.count(chunk.reading, chunk.decoding, chunk.bytes)
        yield chunk.results


def _read_chunk(root: Path, recipe: Recipe, items: Sequence[Item]) -> _Chunk:
    began = time.perf_counter()
    read = [(item, _read(root, item)) for item in items]
    good = [(item, data) for item, data in read if not isinstance(data, Failure)]
    reading = time.perf_counter() - began
    pixels = decode_all([data for _, data in good], recipe.transform, recipe.view)
    results: dict[Item, Pixels | Failure] = {item: data for item, data in read if isinstance(data, Failure)}
    results |= {item: _judge(item, each) for (item, _), each in zip(good, pixels, strict=True)}
    decoding = time.perf_counter() - began - reading
    return _Chunk([(item, results[item]) for item in items], reading, decoding, sum(len(data) for _, data in good))


def _read(root: Path, item: Item) -> bytes | Failure:
    image_id, path = item
    try:
        data = (root / text_to_path(path)).read_bytes()
    except OSError as error:
        return Failure(image_id, path, "read", error.strerror or type(error).__name__)
    if not is_image(data, image_id):
        return Failure(image_id, path, "read", "bytes changed after the scan")
    return data


def _judge(item: Item, pixels: Pixels | Exception) -> Pixels | Failure:
    if isinstance(pixels, Exception):
        return Failure(*item, "decode", " ".join(str(pixels).split()) or type(pixels).__name__)
    return pixels
