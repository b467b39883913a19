"""Binary PGM and PPM whose levels do not end at 255: Pillow reads them byte by byte, in Python."""

import re

import numpy as np
from PIL import Image

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([56])" + _GAP + rb"(\d{1,10})" + _GAP + rb"(\d{1,10})" + _GAP + rb"(\d{1,5})\s")
FULL = 255


def is_scaled(data: bytes) -> bool:
    """Tell whether levels have to be scaled to 0..255."""
    match = _HEADER.match(data)
    return match is not None and int(match[4]) != FULL


def read_scaled(data: bytes) -> Image.Image:
    """Read a binary PGM or PPM, scaling its levels as Pillow does, rounded to the nearest.

    Raises:
        ValueError: if it has fewer pixels than its header says, or an impossible range.
    """
    match = _HEADER.match(data)
    if match is None or not 0 < int(match[4]) < 1 << 16:
        raise ValueError("broken header")
    width, height, most = (int(match[number]) for number in (2, 3, 4))
    channels, kind = (1 if match[1] == b"5" else 3), np.dtype(np.uint8 if most <= FULL else ">u2")
    count = width * height * channels
    if not count or len(data) - match.end() < count * kind.itemsize:
        raise ValueError("image file is truncated" if count else "has no pixels")
    levels = np.rint(np.arange(1 << 8 * kind.itemsize) / most * FULL).clip(0, FULL).astype(np.uint8)
    pixels = levels[np.frombuffer(data, kind, count, match.end())]
    return Image.fromarray(pixels.reshape(height, width) if channels == 1 else pixels.reshape(height, width, 3))
