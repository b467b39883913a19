"""The embedding engine: one bounded pipeline from files to Parquet.

Readers decode a few images at once into a ring of batches; lanes (threads) run the backbone on a batch where it lies; a
writer (a thread) makes Parquet of the vectors. The coordinator waits for one of them at a time, so that its waits tell
which one bounds the rest.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from storage.locations.home import Home
from storage.progress import Advance
from storage.recipe import Recipe
from storage.sources.open_image import LocatedImage, Source
from storage.vectors.feature_file import Failure, FeatureFile, Matrix, Shard
from tasks.embed.read_chunk import Chunk, Order, fail
from tasks.embed.readers import Readers
from tasks.encoder.embedder import Embedder, run_backbone
from tasks.encoder.stages import Meter, group, map_ahead

CHUNK = 8  # images that a reader takes at once, at least: handing each over alone would cost more than reading it
CHUNKS = 8  # in a batch, at most
APART = 4096  # images from which on processes of their own repay the seconds in which they start
GPU_DECODERS = 2  # threads that have the GPU decode: more wait for each other
WRITES = 2


@dataclass(frozen=True)
class EmbeddedBatch:
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
    home: Home,
    source: Source,
    embedder: Embedder,
    items: Sequence[LocatedImage],
    readers: int,
    advance: Advance,
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

        def write(part: EmbeddedBatch) -> EmbeddedBatch:
            file.write(part.image_ids, part.matrix)
            return part

        parts = embed_files(source, embedder, items, readers, meter)
        for part in map_ahead(writer, write, parts, WRITES, meter, "write"):
            failures += part.failures
            calls += len(part.image_ids) + sum(failure.stage == "embed" for failure in part.failures)
            advance(len(part.image_ids) + len(part.failures))
    seconds = time.perf_counter() - began
    return Shard(
        recipe.recipe_id, source.name, file.path, tuple(failures), calls, seconds, meter.bytes, meter.share_out()
    )


def embed_files(
    source: Source, embedder: Embedder, items: Sequence[LocatedImage], readers: int, meter: Meter
) -> Iterator[EmbeddedBatch]:
    """Embed files, in order, a batch at a time; bounded in memory whatever their number."""
    ring = _take_ring(embedder, readers, len(items))
    orders = _take_orders(source, embedder.recipe, items, ring)
    chunks = map_ahead(ring.readers.pool, ring.readers.read, orders, ring.ahead, meter, "decode")
    batches = _gather(chunks, meter)
    run = partial(_embed_batch, embedder, ring)
    for slot, vectors in map_ahead(embedder.pool, run, batches, embedder.lanes.count, meter, "backbone"):
        ring.free.append(slot)
        yield vectors
    free_rings(embedder).append(ring)  # not where something broke: some reader may still write into it


@lru_cache(maxsize=1)
def free_rings(embedder: Embedder) -> deque[Ring]:  # noqa: ARG001 - the cache's key
    """Return the rings that the shards of an embedder left for the next one: opening readers takes seconds."""
    return deque()


def _take_ring(embedder: Embedder, readers: int, images: int) -> Ring:
    """Take the ring of the last shard, where nobody else has it and it suits; else open one, with its readers."""
    transform, lanes = embedder.recipe.transform, embedder.lanes
    readers = min(readers, GPU_DECODERS) if lanes.apart and transform.decoder == "gpu" else readers
    apart = lanes.apart and images >= APART and transform.decoder != "gpu"
    rings = free_rings(embedder)
    while rings:
        kept = rings.pop()
        if kept.readers.count == readers and (kept.readers.apart or not apart):
            return kept
    chunk = size_chunk(embedder.batch)
    ahead = max(readers, (lanes.count + 2) * embedder.batch // chunk)
    slots = lanes.count + ahead * chunk // embedder.batch + 3  # run; ahead; the one begun, gathered, and taken next
    opened = Readers(readers, transform, slots * embedder.batch, lanes.pin, apart=apart)
    return Ring(opened, embedder.batch, chunk, ahead, deque(range(slots)))


def _take_orders(source: Source, recipe: Recipe, items: Sequence[LocatedImage], ring: Ring) -> Iterator[Order]:
    """Share each batch's items out among orders, which fill its slot."""
    for batch in group(items, ring.batch):
        start = ring.free.popleft() * ring.batch
        for at in range(0, len(batch), ring.chunk):
            some, last = tuple(batch[at : at + ring.chunk]), at + ring.chunk >= len(batch)
            yield Order(source, recipe.transform, recipe.view, some, start + at, last)


def _gather(chunks: Iterator[Chunk], meter: Meter) -> Iterator[list[Chunk]]:
    """Gather the chunks of each batch."""
    gathered = list[Chunk]()
    for chunk in chunks:
        meter.count(chunk.reading, chunk.decoding, chunk.bytes)
        gathered.append(chunk)
        if chunk.order.last:
            yield gathered
            gathered = []


def size_chunk(batch: int) -> int:
    """Give the number of images that a reader takes at once."""
    return max(CHUNK, batch // CHUNKS)


def _embed_batch(embedder: Embedder, ring: Ring, chunks: Sequence[Chunk]) -> tuple[int, EmbeddedBatch]:
    """Run a batch where it lies; give its slot, which is free again, and its vectors."""
    start = chunks[0].order.at
    items = [item for chunk in chunks for item in chunk.order.items]
    unread = {chunk.order.at - start + at: failure for chunk in chunks for at, failure in chunk.failures.items()}
    pixels = ring.readers.rows[start : start + ring.batch]
    pixels[len(items) :] = 0
    if len(unread) == len(items):
        return start // ring.batch, EmbeddedBatch(
            (), np.empty((0, embedder.recipe.dim), np.float32), tuple(unread.values())
        )
    matrix = run_backbone(embedder, pixels, len(items))
    finite = [bool(np.isfinite(vector).all()) for vector in matrix]
    reason = f"not finite in {embedder.recipe.dtype}, stored as {embedder.recipe.stored}"
    read = [at for at in range(len(items)) if at not in unread]
    failures = [*unread.values(), *(fail(items[at], "embed", reason) for at in read if not finite[at])]
    good = [at for at in read if finite[at]]
    return start // ring.batch, EmbeddedBatch(tuple(items[at][0] for at in good), matrix[good], tuple(failures))
