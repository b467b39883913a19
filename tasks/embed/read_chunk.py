"""From files to rows of pixels: the unit of work of a reader, in a thread or in a process of its own."""

import time
from dataclasses import dataclass

from storage.errors import ImageError
from storage.recipe import Transform
from storage.sources.open_image import LocatedImage, Source, open_image
from storage.vectors.feature_file import Failure
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.pixels.decode import decode_all
from tasks.encoder.pixels.picture import explain
from tasks.encoder.pixels.transform import Pixels


@dataclass(frozen=True)
class Order:
    """Images of a source to read into the rows from ``start`` on; ``last`` if they complete a batch."""

    source: Source
    transform: Transform
    view: int
    items: tuple[LocatedImage, ...]
    start: int
    last: bool
    budget: Budget = DEFAULT


@dataclass(frozen=True)
class Chunk:
    """The result of an order: its failures by index, the seconds that it took, and the bytes of the files read."""

    order: Order
    failures: dict[int, Failure]
    reading: float = 0.0
    decoding: float = 0.0
    bytes: int = 0


def read_chunk(rows: Pixels, order: Order) -> Chunk:
    """Read and decode the images of an order, each into its row; the row of an image that fails becomes black."""
    began = time.perf_counter()
    read = [_read(order.source, item) for item in order.items]
    good = [data for data in read if not isinstance(data, Failure)]
    reading = time.perf_counter() - began
    decoded = iter(decode_all(good, order.transform, order.view, order.budget))
    failures = {}
    for number, data in enumerate(read):
        result = data if isinstance(data, Failure) else _check_decoded(order.items[number], next(decoded))
        if isinstance(result, Failure):
            failures[number] = result
        rows[order.start + number] = 0 if isinstance(result, Failure) else result
    decoding = time.perf_counter() - began - reading
    return Chunk(order, failures, reading, decoding, sum(len(data) for data in good))


def fail(image: LocatedImage, stage: str, reason: str) -> Failure:
    """Return the failure of an image at a stage."""
    return Failure(image.image_id, image.locator.path, stage, reason)


def _read(source: Source, image: LocatedImage) -> bytes | Failure:
    try:
        return open_image(source, image.locator, image.image_id)
    except ImageError as error:
        return fail(image, "read", error.rule)


def _check_decoded(image: LocatedImage, pixels: Pixels | Exception) -> Pixels | Failure:
    if isinstance(pixels, Exception):
        return fail(image, "decode", explain(pixels))
    return pixels
