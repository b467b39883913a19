"""Whether two files look the same, by a perceptual hash."""

import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.paths import text_to_path

if TYPE_CHECKING:
    import imagehash

Same = Callable[[int, int], bool]
"""Whether two images, by their numbers, look the same."""

NEAR = 10
"""The most of 64 bits in which the hashes of two pictures that look the same differ."""


def compare_files(places: Sequence[str | None]) -> Same:
    """Give the comparison of two images by the numbers of their places; one that cannot be read looks like none."""

    @cache
    def look(number: int) -> "imagehash.ImageHash | None":
        place = places[number]
        return _hash(Path(text_to_path(place))) if place else None

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
