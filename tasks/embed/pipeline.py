"""The embedding engine: one bounded pipeline from files to Parquet.

Readers decode chunks of images into a ring of batches; lanes (threads) run the backbone on a batch in place; a writer
(a thread) writes the vectors to Parquet. The coordinator waits for one of them at a time, so its waits show which one
is the bottleneck.
"""

import math
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
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.stages import Meter, group, map_ahead

MIN_CHUNK = 8  # images per chunk: passing them to readers one by one would cost more than reading them
MAX_CHUNKS = 8  # per batch
PROCESSES_FROM = 4096  # images: with fewer, reader processes do not repay the seconds that they take to start
GPU_DECODERS = 2  # threads that decode on the GPU: more would wait for each other
WRITES_AHEAD = 2


@dataclass(frozen=True)
class EmbeddedBatch:
    """The result of embedding some images: vectors [n, dim], float32, in the order of the ids, and failures."""

    image_ids: tuple[str, ...]
    matrix: Matrix
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Ring:
    """Readers whose rows are divided into slots of one batch each, enough to read ahead while all lanes run."""

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
    budget: Budget = DEFAULT,
    seconds: float = math.inf,
) -> Shard:
    """Embed images of a source and write their vectors as one Parquet file, not yet part of the lake.

    Begins no batch after so many ``seconds``, whatever pace was expected: a crash must not cost more.

    Raises:
        LakeError: if the file cannot be written.
        BackboneError: if not even one image fits in memory.
    """
    began = time.perf_counter()
    meter, calls, finished, failures = Meter(), 0, 0, list[Failure]()
    recipe = embedder.recipe
    with FeatureFile(home, recipe.recipe_id, recipe.dim) as file, ThreadPoolExecutor(1, "writer") as writer:

        def write(part: EmbeddedBatch) -> EmbeddedBatch:
            file.write(part.image_ids, part.matrix)
            return part

        parts = embed_files(source, embedder, items, readers, meter, budget, began + seconds)
        for part in map_ahead(writer, write, parts, WRITES_AHEAD, meter, "write"):
            failures += part.failures
            calls += len(part.image_ids) + sum(failure.stage == "embed" for failure in part.failures)
            finished += len(part.image_ids) + len(part.failures)
            advance(len(part.image_ids) + len(part.failures))
    return Shard(
        recipe.recipe_id,
        source.name,
        file.path,
        tuple(failures),
        calls,
        time.perf_counter() - began,
        meter.bytes,
        meter.divide_waits(),
        finished,
    )


def embed_files(
    source: Source,
    embedder: Embedder,
    items: Sequence[LocatedImage],
    readers: int,
    meter: Meter,
    budget: Budget = DEFAULT,
    deadline: float = math.inf,
) -> Iterator[EmbeddedBatch]:
    """Embed files in order, batch by batch, in memory that does not grow with their number.

    Begins no batch after the deadline, in seconds of ``time.perf_counter``, except the first.
    """
    ring = _take_ring(embedder, readers, len(items))
    orders = _make_orders(source, embedder.recipe, items, ring, budget, deadline)
    chunks = map_ahead(ring.readers.pool, ring.readers.read, orders, ring.ahead, meter, "decode")
    batches = _gather(chunks, meter)
    run = partial(_embed_batch, embedder, ring)
    for slot, vectors in map_ahead(embedder.pool, run, batches, embedder.lanes.count, meter, "backbone"):
        ring.free.append(slot)
        yield vectors
    free_rings(embedder).append(ring)  # not after an exception: a reader may still write into it


@lru_cache(maxsize=1)
def free_rings(embedder: Embedder) -> deque[Ring]:  # noqa: ARG001 - the cache's key
    """Return an embedder's rings that no shard is using; they are reused, because opening readers takes seconds."""
    return deque()


def _take_ring(embedder: Embedder, readers: int, images: int) -> Ring:
    """Take a free ring that suits, or open a new one with its readers."""
    transform, lanes = embedder.recipe.transform, embedder.lanes
    readers = min(readers, GPU_DECODERS) if lanes.processes and transform.decoder == "gpu" else readers
    processes = lanes.processes and images >= PROCESSES_FROM and transform.decoder != "gpu"
    rings = free_rings(embedder)
    while rings:
        ring = rings.pop()
        if ring.readers.count == readers and (ring.readers.processes or not processes):
            return ring
    chunk = max(MIN_CHUNK, embedder.batch // MAX_CHUNKS)
    ahead = max(readers, (lanes.count + 2) * embedder.batch // chunk)
    slots = lanes.count + ahead * chunk // embedder.batch + 3  # running; read ahead; begun, gathered, and taken next
    opened = Readers(readers, transform, slots * embedder.batch, lanes.pin, processes=processes)
    return Ring(opened, embedder.batch, chunk, ahead, deque(range(slots)))


def _make_orders(
    source: Source, recipe: Recipe, items: Sequence[LocatedImage], ring: Ring, budget: Budget, deadline: float
) -> Iterator[Order]:
    """Divide each batch's items into orders, which fill its slot, until the deadline."""
    for number, batch in enumerate(group(items, ring.batch)):
        if number and time.perf_counter() > deadline:
            return
        start = ring.free.popleft() * ring.batch
        for at in range(0, len(batch), ring.chunk):
            chunk, last = tuple(batch[at : at + ring.chunk]), at + ring.chunk >= len(batch)
            yield Order(source, recipe.transform, recipe.view, chunk, start + at, last, budget)


def _gather(chunks: Iterator[Chunk], meter: Meter) -> Iterator[list[Chunk]]:
    """Collect the chunks of each batch."""
    gathered = list[Chunk]()
    for chunk in chunks:
        meter.count(chunk.reading, chunk.decoding, chunk.bytes)
        gathered.append(chunk)
        if chunk.order.last:
            yield gathered
            gathered = []


def _embed_batch(embedder: Embedder, ring: Ring, chunks: Sequence[Chunk]) -> tuple[int, EmbeddedBatch]:
    """Run a batch in its slot; return the slot, which is free again, and the vectors."""
    start = chunks[0].order.start
    items = [item for chunk in chunks for item in chunk.order.items]
    unread = {chunk.order.start - start + at: failure for chunk in chunks for at, failure in chunk.failures.items()}
    pixels = ring.readers.rows[start : start + ring.batch]
    pixels[len(items) :] = 0
    if len(unread) == len(items):
        return start // ring.batch, EmbeddedBatch(
            (), np.empty((0, embedder.recipe.dim), np.float32), tuple(unread.values())
        )
    matrix = run_backbone(embedder, pixels, len(items))
    finite = [bool(np.isfinite(vector).all()) for vector in matrix]
    reason = f"not finite when computed in {embedder.recipe.dtype} and stored as {embedder.recipe.stored}"
    read = [at for at in range(len(items)) if at not in unread]
    failures = [*unread.values(), *(fail(items[at], "embed", reason) for at in read if not finite[at])]
    good = [at for at in read if finite[at]]
    image_ids = tuple(items[at].image_id for at in good)
    return start // ring.batch, EmbeddedBatch(image_ids, matrix[good], tuple(failures))
