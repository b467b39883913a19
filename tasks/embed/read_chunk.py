"""From files to pixels in their places: what a reader does at once, in a thread or in a process of its own."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from storage.locations.path_text import decode_path
from storage.recipe import Transform
from storage.vectors.feature_file import Failure
from tasks.encoder.pixels.decode import decode_all
from tasks.encoder.pixels.transform import Pixels

Item = tuple[str, str]
"""An image to embed: (image_id, path below the root of its source)."""


@dataclass(frozen=True)
class Order:
    """Images of a source to read into the rows from ``at`` on; ``last``, where they end a batch."""

    root: Path
    transform: Transform
    view: int
    items: tuple[Item, ...]
    at: int
    last: bool


@dataclass(frozen=True)
class Chunk:
    """What a reader made of an order: its failures, by their number in it; seconds, and bytes of the good files."""

    order: Order
    failures: dict[int, Failure]
    reading: float = 0.0
    decoding: float = 0.0
    bytes: int = 0


def read_chunk(rows: Pixels, order: Order) -> Chunk:
    """Read and decode the images of an order, each into its row; the row of one that fails becomes black."""
    began = time.perf_counter()
    read = [_read(order.root, item) for item in order.items]
    good = [data for data in read if not isinstance(data, Failure)]
    reading = time.perf_counter() - began
    decoded = iter(decode_all(good, order.transform, order.view))
    failures = {}
    for number, data in enumerate(read):
        made = data if isinstance(data, Failure) else _judge(order.items[number], next(decoded))
        if isinstance(made, Failure):
            failures[number] = made
        rows[order.at + number] = 0 if isinstance(made, Failure) else made
    decoding = time.perf_counter() - began - reading
    return Chunk(order, failures, reading, decoding, sum(len(data) for data in good))


def matches_id(data: bytes, image_id: str) -> bool:
    """Tell whether bytes are those of an image."""
    return hashlib.sha256(data).digest()[:16] == UUID(image_id).bytes


def _read(root: Path, item: Item) -> bytes | Failure:
    image_id, path = item
    try:
        data = (root / decode_path(path)).read_bytes()
    except OSError as error:
        return Failure(image_id, path, "read", error.strerror or type(error).__name__)
    if not matches_id(data, image_id):
        return Failure(image_id, path, "read", "bytes changed after the scan")
    return data


def _judge(item: Item, pixels: Pixels | Exception) -> Pixels | Failure:
    if isinstance(pixels, Exception):
        return Failure(*item, "decode", " ".join(str(pixels).split()) or type(pixels).__name__)
    return pixels
