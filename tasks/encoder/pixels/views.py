"""Views: random windows of an image, mirrored or not, which its bytes and the view's number decide."""

import hashlib
import math
from dataclasses import dataclass

from PIL import Image

SMALLEST = 0.35
"""The least share of the image's area that a window has."""
LONGEST = 4 / 3
"""The most that a window is longer than wide, or wider than long."""


@dataclass(frozen=True)
class Window:
    """A part of an image: (left, top, right, bottom) in pixels, not whole ones, and whether to mirror it."""

    box: tuple[float, float, float, float]
    mirrored: bool


def draw_window(data: bytes, view: int, size: tuple[int, int]) -> Window:
    """Draw a window by area, ratio and place (Szegedy et al., Going deeper with convolutions, 2015, section 6).

    Chance comes from SHA-512 of the image's id and the view's number, so that it is the same on every machine and with
    every release of every library.

    Args:
        data: the image's bytes.
        view: from 1.
        size: (width, height), pixels.
    """
    digest = hashlib.sha512(hashlib.sha256(data).digest()[:16] + view.to_bytes(8)).digest()
    area, ratio, across, down, side = (int.from_bytes(digest[at : at + 8]) / 2**64 for at in range(0, 40, 8))
    width, height = size
    pixels = (SMALLEST + (1 - SMALLEST) * area) * width * height
    wider = math.exp((2 * ratio - 1) * math.log(LONGEST))
    wide, tall = min(width, math.sqrt(pixels * wider)), min(height, math.sqrt(pixels / wider))
    left, top = across * (width - wide), down * (height - tall)
    return Window((left, top, left + wide, top + tall), mirrored=side < 0.5)  # noqa: PLR2004 - every other one


def cut_window(image: Image.Image, window: Window, crop: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Resize a window to (height, width)."""
    resized = image.resize((crop[1], crop[0]), how, window.box)
    return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if window.mirrored else resized
