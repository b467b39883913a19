"""Near-duplicates: images alike in features, by the cosine between them, and in looks, by a perceptual hash."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.locations.path_text import decode_path
from storage.progress import Advance
from storage.vectors.feature_file import Matrix

if TYPE_CHECKING:
    import imagehash

ROWS = 1024
NEAREST = 10
CLOSE = 0.95
"""The least cosine of near-duplicates."""
NEAR = 10
"""The most of 64 bits in which the hashes of two pictures that look the same differ."""

Numbers = npt.NDArray[np.int64]
Same = Callable[[int, int], bool]
"""Whether two images, by their numbers, look the same."""


@dataclass(frozen=True)
class Nearest:
    """For each of n images its k nearest others, nearest first: their numbers and cosines [n, k]."""

    numbers: Numbers
    cosines: Matrix


def find_nearest(features: Matrix, advance: Advance) -> Nearest:
    """Compare every image with every other: n^2 products of vectors, a few rows at a time.

    Args:
        features: [n, dim], n at least 2.
        advance: is told how many images are done.
    """
    points, count = _point(features), min(NEAREST, len(features) - 1)
    numbers, cosines = np.empty((len(points), count), np.int64), np.empty((len(points), count), np.float32)
    for start in range(0, len(points), ROWS):
        part = slice(start, min(start + ROWS, len(points)))
        found = points[part] @ points.T
        found[np.arange(len(found)), np.arange(part.start, part.stop)] = -np.inf  # itself
        nearest = np.argpartition(-found, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(found, nearest, axis=1), axis=1, kind="stable")
        numbers[part] = np.take_along_axis(nearest, order, axis=1)
        cosines[part] = np.take_along_axis(found, numbers[part], axis=1)
        advance(len(found))
    return Nearest(numbers, cosines)


def meet_earlier(features: Matrix, arrivals: Numbers, closest: float, advance: Advance) -> Iterator[Numbers]:
    """Give for each image in turn the numbers of the earlier ones that are at least so close.

    Features are standardised over those that had arrived by then, so that an answer stays as images are added.

    Args:
        features: [n, dim], by arrival.
        arrivals: when each arrived, rising [n].
        closest: a cosine.
        advance: is told how many images are done.
    """
    starts = np.flatnonzero(np.diff(arrivals, prepend=-1))
    for first, end in pairwise([*starts.tolist(), len(features)]):
        points = _point(features[:end])
        for start in range(first, end, ROWS):
            stop = min(start + ROWS, end)
            found = points[start:stop] @ points[:stop].T
            yield from (np.flatnonzero(row[:at] >= closest) for at, row in enumerate(found, start))
            advance(stop - start)


def pair_up(nearest: Nearest, closest: float) -> list[tuple[int, int, float]]:
    """List the pairs of images (first, second, cosine) that are at least so close, closest first."""
    rows, columns = np.nonzero(nearest.cosines >= closest)
    pairs = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        other = int(nearest.numbers[row, column])
        pairs[min(row, other), max(row, other)] = float(nearest.cosines[row, column])
    return sorted(((*pair, cosine) for pair, cosine in pairs.items()), key=lambda found: (-found[2], found[:2]))


def _point(features: Matrix) -> Matrix:
    """Standardise features and give their directions [n, dim]."""
    standard = features - features.mean(axis=0)
    scale = standard.std(axis=0)
    standard /= np.where(scale > 0, scale, 1)
    lengths = np.linalg.norm(standard, axis=1, keepdims=True)
    pointed: Matrix = np.divide(standard, lengths, out=np.zeros_like(standard), where=lengths > 0)
    return pointed


def compare_files(places: Sequence[str | None]) -> Same:
    """Give the comparison of two images by the numbers of their places; one that cannot be read looks like none."""

    @cache
    def look(number: int) -> "imagehash.ImageHash | None":
        place = places[number]
        return _hash(Path(decode_path(place))) if place else None

    def same(first: int, second: int) -> bool:
        one, other = look(first), look(second)
        return one is not None and other is not None and one - other <= NEAR

    return same


def _hash(path: Path) -> "imagehash.ImageHash | None":
    """Hash a picture's low frequencies (Zauner, Implementation and benchmarking of perceptual image hash functions)."""
    import imagehash

    Image.init()
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS) as image:
            return imagehash.phash(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # noqa: BLE001 - broken pixels raise anything; such an image looks like no other
        return None
