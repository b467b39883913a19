"""Near-duplicates: images with similar features, by cosine, that look the same, by a perceptual hash."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.progress import Advance
from storage.sources.copies import ImageCopy
from storage.sources.open_image import open_image
from storage.vectors.feature_file import Matrix

if TYPE_CHECKING:
    import imagehash

ROWS = 1024
NEIGHBOURS = 10
MIN_COSINE = 0.95
"""The minimum cosine of near-duplicates."""
MAX_HASH_DISTANCE = 10
"""The maximum number of bits, of 64, by which the hashes of near-duplicates differ."""

Positions = npt.NDArray[np.int64]
LooksSame = Callable[[int, int], bool]
"""Whether two images, given by position, look the same."""


@dataclass(frozen=True)
class Nearest:
    """The k nearest others of each of n images, nearest first: their positions and cosines [n, k]."""

    positions: Positions
    cosines: Matrix


def find_nearest(features: Matrix, advance: Advance) -> Nearest:
    """Compare every image with every other, a block of rows at a time.

    Args:
        features: Features [n, dim], with n at least 2.
        advance: Called with the number of images done.
    """
    points, count = _normalise(features), min(NEIGHBOURS, len(features) - 1)
    positions, cosines = np.empty((len(points), count), np.int64), np.empty((len(points), count), np.float32)
    for start in range(0, len(points), ROWS):
        part = slice(start, min(start + ROWS, len(points)))
        products = points[part] @ points.T
        products[np.arange(len(products)), np.arange(part.start, part.stop)] = -np.inf  # the image itself
        nearest = np.argpartition(-products, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(products, nearest, axis=1), axis=1, kind="stable")
        positions[part] = np.take_along_axis(nearest, order, axis=1)
        cosines[part] = np.take_along_axis(products, positions[part], axis=1)
        advance(len(products))
    return Nearest(positions, cosines)


def find_earlier_neighbours(
    features: Matrix, arrivals: Positions, min_cosine: float, advance: Advance
) -> Iterator[Positions]:
    """Yield for each image the positions of the earlier ones with at least this cosine.

    Features are standardised over the images that had arrived by then, so that later images change no earlier result.

    Args:
        features: Features [n, dim], by arrival.
        arrivals: Arrival times, ascending [n].
        min_cosine: The minimum cosine.
        advance: Called with the number of images done.
    """
    starts = np.flatnonzero(np.diff(arrivals, prepend=-1))
    for first, end in pairwise([*starts.tolist(), len(features)]):
        points = _normalise(features[:end])
        for start in range(first, end, ROWS):
            stop = min(start + ROWS, end)
            cosines = points[start:stop] @ points[:stop].T
            yield from (np.flatnonzero(row[:at] >= min_cosine) for at, row in enumerate(cosines, start))
            advance(stop - start)


def list_close_pairs(nearest: Nearest, min_cosine: float) -> list[tuple[int, int, float]]:
    """List the pairs of images (first, second, cosine) with at least this cosine, closest first."""
    rows, columns = np.nonzero(nearest.cosines >= min_cosine)
    pairs = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        other = int(nearest.positions[row, column])
        pairs[min(row, other), max(row, other)] = float(nearest.cosines[row, column])
    return sorted(((*pair, cosine) for pair, cosine in pairs.items()), key=lambda pair: (-pair[2], pair[:2]))


def _normalise(features: Matrix) -> Matrix:
    """Standardise features and scale them to unit length [n, dim]."""
    standard = features - features.mean(axis=0)
    scale = standard.std(axis=0)
    standard /= np.where(scale > 0, scale, 1)
    lengths = np.linalg.norm(standard, axis=1, keepdims=True)
    units: Matrix = np.divide(standard, lengths, out=np.zeros_like(standard), where=lengths > 0)
    return units


def make_file_comparison(image_ids: Sequence[str], copies: Sequence[ImageCopy | None]) -> LooksSame:
    """Compare images by position, reading their files; an unreadable image looks like no other."""

    @cache
    def read_hash(position: int) -> "imagehash.ImageHash | None":
        copy = copies[position]
        return _hash(copy, image_ids[position]) if copy else None

    def looks_same(first: int, second: int) -> bool:
        one, other = read_hash(first), read_hash(second)
        return one is not None and other is not None and one - other <= MAX_HASH_DISTANCE

    return looks_same


def _hash(copy: ImageCopy, image_id: str) -> "imagehash.ImageHash | None":
    """Hash an image's low frequencies (Zauner, Implementation and benchmarking of perceptual image hash functions)."""
    import imagehash

    Image.init()
    try:
        with Image.open(io.BytesIO(open_image(*copy, image_id)), formats=FORMATS) as image:
            return imagehash.phash(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # noqa: BLE001 - broken images raise exceptions of any kind
        return None
