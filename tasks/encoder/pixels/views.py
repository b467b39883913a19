"""Views: random windows of an image, mirrored or not, determined by its bytes and the view's number."""

import hashlib
import math
from dataclasses import dataclass

from PIL import Image

from tasks.encoder.pixels.picture import Picture

SMALLEST = 0.35
"""The smallest share of the image's area that a window covers."""
LONGEST = 4 / 3
"""The largest ratio of a window's longer to its shorter side."""


@dataclass(frozen=True)
class Window:
    """A part of an image: (left, top, right, bottom) in fractional pixels, and whether to mirror it."""

    box: tuple[float, float, float, float]
    mirrored: bool


def draw_window(data: bytes, view: int, size: tuple[int, int]) -> Window:
    """Draw a window by area, aspect ratio and position (Szegedy et al., Going Deeper with Convolutions, 2015, sec. 6).

    The random numbers come from the SHA-512 of the image's id and the view's number, so they are the same on every
    machine and with every release of every library.

    Args:
        data: The image's bytes.
        view: The view's number, from 1.
        size: (width, height) of the image, in pixels.
    """
    digest = hashlib.sha512(hashlib.sha256(data).digest()[:16] + view.to_bytes(8)).digest()
    area, ratio, x, y, mirror = (int.from_bytes(digest[at : at + 8]) / 2**64 for at in range(0, 40, 8))
    image_width, image_height = size
    pixels = (SMALLEST + (1 - SMALLEST) * area) * image_width * image_height
    aspect = math.exp((2 * ratio - 1) * math.log(LONGEST))
    width, height = min(image_width, math.sqrt(pixels * aspect)), min(image_height, math.sqrt(pixels / aspect))
    left, top = x * (image_width - width), y * (image_height - height)
    return Window((left, top, left + width, top + height), mirrored=mirror < 0.5)  # noqa: PLR2004 - half of them


def crop_window(picture: Picture, window: Window, crop: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    """Crop a window out of a picture and resize it to ``crop`` (height, width)."""
    resized = picture.resize((crop[1], crop[0]), resampling, window.box)
    return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if window.mirrored else resized
