"""Thumbnails as data URIs, so that a page needs no other file."""

import base64
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from storage.errors import ImageError
from storage.formats import FORMATS
from storage.sources.copies import ImageCopy
from storage.sources.open_image import open_image

SIDE = 240
"""Pixels of a thumbnail's longer side: sharp on a screen of two pixels to a point."""
TINY = 64
"""Images with no longer side are enlarged pixel by pixel."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI; ``tiny`` if the image itself is no larger than an icon."""

    uri: str
    tiny: bool


def make_thumbnail(copy: ImageCopy | None, image_id: str) -> Thumbnail | None:
    """Make an image's thumbnail; None if its file is gone, broken, or holds another image now."""
    if copy is None:
        return None
    try:
        return _shrink(open_image(*copy, image_id))
    except ImageError:
        return None


def to_uri(kind: str, data: bytes) -> str:
    """Encode a picture as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _shrink(data: bytes) -> Thumbnail | None:
    Image.init()
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            tiny = max(image.size) <= TINY
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # large JPEGs decode at an eighth of their size, or a quarter
            small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(file, "JPEG", quality=80)
    except Exception:  # noqa: BLE001 - broken pixels raise anything; the page says that there is nothing to show
        return None
    return Thumbnail(to_uri("jpeg", file.getvalue()), tiny)
