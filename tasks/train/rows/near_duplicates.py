"""Near-duplicates: images with similar features, by cosine, one of which looks like a part of the other.

The look is the correlation of small grey pictures (Lewis, Fast normalized cross-correlation, 1995), over windows of
several sizes, mirrored or not: it finds copies that were compressed, scaled, recolored, cropped or mirrored.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from storage.progress import Advance
from storage.recipe import Transform
from storage.sources.copies import ImageCopy
from storage.sources.open_image import open_image
from storage.vectors.feature_file import Matrix
from tasks.encoder.pixels.budget import PROVEN
from tasks.encoder.pixels.decode import decode

ROWS = 1024
NEIGHBOURS = 10
MIN_COSINE = 0.3
"""The minimum cosine of near-duplicates, which spares comparing the looks of most pairs."""
MIN_CORRELATION = 0.92
"""The minimum correlation of near-duplicates; benchmarks.duplicates measures what it finds and what it confuses."""
SIDE, THUMBNAIL = 16, 48
"""Pixels along each side of a window, and of the thumbnail that it is cut from."""
SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""The sizes of the windows, as shares of the image's sides."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""The weights of red, green and blue in grey (ITU-R BT.601), as in most grey copies."""
CACHED = 4096
"""Images whose windows stay in memory, at 47 kB each."""
_THUMBNAIL = Transform(
    THUMBNAIL,
    (THUMBNAIL, THUMBNAIL),
    squash=True,
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    decoder="scaled",
)

Thumbnail = npt.NDArray[np.uint8]
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
    points, count = normalise(features), min(NEIGHBOURS, len(features) - 1)
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
        points = normalise(features[:end])
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


def normalise(features: Matrix) -> Matrix:
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
    def read_thumbnail(position: int) -> Thumbnail | None:
        copy = copies[position]
        return _read_thumbnail(copy, image_ids[position]) if copy else None

    @lru_cache(CACHED)
    def read_windows(position: int) -> Matrix | None:
        thumbnail = read_thumbnail(position)
        return None if thumbnail is None else describe_windows(thumbnail)

    def looks_same(first: int, second: int) -> bool:
        one, other = read_windows(first), read_windows(second)
        return one is not None and other is not None and correlate(one, other) >= MIN_CORRELATION

    return looks_same


def make_thumbnail(data: bytes) -> Thumbnail:
    """Decode an image to grey levels [THUMBNAIL, THUMBNAIL], squashed to a square.

    Raises:
        Exception: of any kind, if the image is broken.
    """
    levels: Thumbnail = (decode(data, _THUMBNAIL, budget=PROVEN) @ LUMA).astype(np.uint8)
    return levels


def describe_windows(thumbnail: Thumbnail) -> Matrix:
    """Cut windows of several sizes out of a thumbnail, the first of which is all of it.

    Returns:
        [windows, SIDE * SIDE], float32, each of mean 0 and unit length: brightness and contrast no longer matter.
    """
    down, across = _make_weights()
    cut = (down @ thumbnail.astype(np.float32) @ across.transpose(0, 2, 1)).reshape(len(down), -1)
    cut -= cut.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    windows: Matrix = np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > SIDE)  # flat: like no other
    return windows


def correlate(one: Matrix, other: Matrix) -> float:
    """Return the largest correlation between an image and a window of the other, mirrored or not."""
    return max(float((windows @ whole).max()) for windows, whole in ((one, _mirror(other)), (other, _mirror(one))))


def _mirror(windows: Matrix) -> Matrix:
    """Return the whole image beside its mirror image [SIDE * SIDE, 2]."""
    whole = windows[0].reshape(SIDE, SIDE)
    return np.stack([whole.ravel(), whole[:, ::-1].ravel()], axis=1)


@cache
def _make_weights() -> tuple[Matrix, Matrix]:
    """Return the averages that make rows and columns of each window [windows, SIDE, THUMBNAIL]."""
    spans = [(scale, at * (1 - scale) / 2) for scale in SCALES for at in (range(3) if scale < 1 else range(1))]
    places = [
        (_average(scale, top), _average(scale, left)) for scale, top in spans for other, left in spans if other == scale
    ]
    return np.stack([down for down, _ in places]), np.stack([across for _, across in places])


def _average(scale: float, start: float) -> Matrix:
    """Return the weights that average a part of THUMBNAIL levels to SIDE [SIDE, THUMBNAIL]."""
    edges = (start + scale * np.arange(SIDE + 1) / SIDE) * THUMBNAIL
    levels = np.arange(THUMBNAIL)
    shares = np.minimum(edges[1:, None], levels + 1) - np.maximum(edges[:-1, None], levels)
    weights: Matrix = (shares.clip(0) / shares.clip(0).sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


def _read_thumbnail(copy: ImageCopy, image_id: str) -> Thumbnail | None:
    try:
        return make_thumbnail(open_image(*copy, image_id))
    except Exception:  # noqa: BLE001 - broken images raise exceptions of any kind
        return None
