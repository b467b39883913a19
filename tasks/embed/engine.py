"""The embedding engine: one bounded pipeline from files to Parquet.

Readers decode a few images at once into a ring of batches; lanes (threads) run the backbone on a batch where it lies; a
writer (a thread) makes Parquet of the vectors. The coordinator waits for one of them at a time, so that its waits tell
which one bounds the rest.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from storage.errors import BackboneError
from storage.paths import Home
from storage.progress import Advance
from storage.recipe import Recipe
from storage.vectors import Failure, FeatureFile, Matrix, Shard
from tasks.embed.decode import Pixels, decode
from tasks.embed.readers import Pin, Readers
from tasks.embed.reading import Chunk, Item, Order
from tasks.embed.stages import Meter, group, map_ahead

CHUNK = 8  # images that a reader takes at once, at least: handing each over alone would cost more than reading it
CHUNKS = 8  # in a batch, at most
APART = 4096  # images from which on processes of their own repay the seconds in which they start
GPU_DECODERS = 2  # threads that have the GPU decode: more wait for each other
WRITES = 2

logger = logging.getLogger(__name__)

Backbone = Callable[[Pixels], Matrix]
"""From pixels [n, height, width, 3], uint8, to vectors [n, dim], float32; MemoryError where n is too many."""


def _stay() -> None:
    """Enter a lane as it is, or leave memory so."""


def _pin_nothing(_: Pixels) -> Callable[[], None]:
    return _stay


@dataclass(frozen=True)
class Lanes:
    """How many batches run beside each other, what the thread of each does before its first, on which device.

    ``batch`` is the number of images that suits the device. ``pin`` prepares the ring for copies to it. ``apart`` tells
    that threads cannot decode as fast as it computes.
    """

    count: int = 1
    enter: Callable[[], None] = _stay
    device: str = "none"
    batch: int = 8
    pin: Pin = _pin_nothing
    apart: bool = False


@dataclass
class Embedder:
    """A recipe with its backbone, and the lanes that run it on batches of one size.

    Lanes and rings stay from one shard to the next. ``batch`` is halved where memory does not suffice.
    """

    recipe: Recipe
    backbone: Backbone
    batch: int
    lanes: Lanes = Lanes()
    pool: ThreadPoolExecutor = field(init=False, repr=False)
    rings: "deque[Ring]" = field(default_factory=deque, init=False, repr=False)

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
class Ring:
    """Readers, and their rows in slots of a batch each: enough for all that is read ahead and all that lanes run."""

    readers: Readers
    batch: int
    chunk: int
    ahead: int
    free: deque[int]


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
    ring = _take_ring(embedder, readers, len(items))
    orders = _take_orders(root, embedder.recipe, items, ring)
    chunks = map_ahead(ring.readers.pool, ring.readers.read, orders, ring.ahead, meter, "decode")
    batches = _gather(chunks, meter)
    run = partial(_embed_batch, embedder, ring)
    for slot, vectors in map_ahead(embedder.pool, run, batches, embedder.lanes.count, meter, "backbone"):
        ring.free.append(slot)
        yield vectors
    embedder.rings.append(ring)  # not where something broke: some reader may still write into it


def _take_ring(embedder: Embedder, readers: int, images: int) -> Ring:
    """Take the ring of the last shard, where nobody else has it and it suits; else open one, with its readers."""
    transform, lanes = embedder.recipe.transform, embedder.lanes
    readers = min(readers, GPU_DECODERS) if lanes.apart and transform.decoder == "gpu" else readers
    apart = lanes.apart and images >= APART and transform.decoder != "gpu"
    while embedder.rings:
        kept = embedder.rings.pop()
        if kept.readers.count == readers and (kept.readers.apart or not apart):
            return kept
    chunk = size_chunk(embedder.batch)
    ahead = max(readers, (lanes.count + 2) * embedder.batch // chunk)
    slots = lanes.count + ahead * chunk // embedder.batch + 3  # run; ahead; the one begun, gathered, and taken next
    opened = Readers(readers, transform, slots * embedder.batch, lanes.pin, apart=apart)
    return Ring(opened, embedder.batch, chunk, ahead, deque(range(slots)))


def _take_orders(root: Path, recipe: Recipe, items: Sequence[Item], ring: Ring) -> Iterator[Order]:
    """Share each batch's items out among orders, which fill its slot."""
    for batch in group(items, ring.batch):
        start = ring.free.popleft() * ring.batch
        for at in range(0, len(batch), ring.chunk):
            some, last = tuple(batch[at : at + ring.chunk]), at + ring.chunk >= len(batch)
            yield Order(root, recipe.transform, recipe.view, some, start + at, last)


def _gather(chunks: Iterator[Chunk], meter: Meter) -> Iterator[list[Chunk]]:
    """Gather the chunks of each batch."""
    gathered = list[Chunk]()
    for chunk in chunks:
        meter.count(chunk.reading, chunk.decoding, chunk.bytes)
        gathered.append(chunk)
        if chunk.order.last:
            yield gathered
            gathered = []


def embed_images(embedder: Embedder, images: Sequence[bytes], view: int = 0) -> Matrix:
    """Embed images given as bytes, or a view of each, by the code and in the lanes that fill the lake; a row each.

    Raises:
        Exception: of any kind, at the first that cannot be decoded.
    """
    pixels = (decode(data, embedder.recipe.transform, view) for data in images)
    batches = (np.stack(batch) for batch in group(pixels, embedder.batch))
    parts = map_ahead(
        embedder.pool, partial(run_backbone, embedder), batches, embedder.lanes.count, Meter(), "backbone"
    )
    return np.concatenate([np.empty((0, embedder.recipe.dim), np.float32), *parts])


def size_chunk(batch: int) -> int:
    """Give the number of images that a reader takes at once."""
    return max(CHUNK, batch // CHUNKS)


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_backbone(embedder: Embedder, pixels: Pixels, count: int | None = None) -> Matrix:
    """Run images in batches of one size, halving it where memory does not suffice.

    Args:
        embedder: The backbone.
        pixels: Images [n, height, width, 3], uint8.
        count: How many of them are asked for, the others being there to fill a batch; all, by default.

    Returns:
        [count, dim], float32, rounded to the recipe's stored precision.

    Raises:
        BackboneError: where not even one image fits into memory.
    """
    size, count = embedder.batch, len(pixels) if count is None else count
    try:
        parts = [_run_filled(embedder, pixels[at : at + size], size) for at in range(0, count, size)]
    except MemoryError as error:
        _halve(embedder, size, error)
        return run_backbone(embedder, pixels, count)
    return np.concatenate(parts)[:count]


def _run_filled(embedder: Embedder, pixels: Pixels, size: int) -> Matrix:
    """Run one batch, filled up with black images so that a vector does not depend on how many came with it."""
    if len(pixels) < size:
        pixels = np.concatenate([pixels, np.zeros((size - len(pixels), *pixels.shape[1:]), np.uint8)])
    vectors = embedder.backbone(pixels)
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


def _embed_batch(embedder: Embedder, ring: Ring, chunks: Sequence[Chunk]) -> tuple[int, Vectors]:
    """Run a batch where it lies; give its slot, which is free again, and its vectors."""
    start = chunks[0].order.at
    items = [item for chunk in chunks for item in chunk.order.items]
    unread = {chunk.order.at - start + at: failure for chunk in chunks for at, failure in chunk.failures.items()}
    pixels = ring.readers.rows[start : start + ring.batch]
    pixels[len(items) :] = 0
    if len(unread) == len(items):
        return start // ring.batch, Vectors((), np.empty((0, embedder.recipe.dim), np.float32), tuple(unread.values()))
    matrix = run_backbone(embedder, pixels, len(items))
    finite = [bool(np.isfinite(vector).all()) for vector in matrix]
    reason = f"not finite in {embedder.recipe.dtype}, stored as {embedder.recipe.stored}"
    read = [at for at in range(len(items)) if at not in unread]
    failures = [*unread.values(), *(Failure(*items[at], "embed", reason) for at in read if not finite[at])]
    good = [at for at in read if finite[at]]
    return start // ring.batch, Vectors(tuple(items[at][0] for at in good), matrix[good], tuple(failures))
