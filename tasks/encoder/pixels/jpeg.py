"""JPEG: what its headers say, and decoding by libjpeg-turbo."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from storage.plural import pluralize
from tasks.encoder.pixels.budget import Budget, BudgetError
from tasks.encoder.pixels.transform import Pixels

JPEG = b"\xff\xd8\xff"
MAX_SCANS = 100
"""The most passes over the image that a progressive file may make; libtiff draws the same line."""
PACE = 3e8
"""Samples of a scan that a core decodes a second, at least."""
BLOCK = 64
_START_OF_SCAN, _END = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC = frozenset(range(0xC9, 0xD0))
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_NEXT_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")


@dataclass(frozen=True)
class Frame:
    """A JPEG's own description: its kind (the marker), size, and samples per pixel after subsampling."""

    kind: int
    height: int
    width: int
    samples: float

    @property
    def needed(self) -> int:
        """The bytes that decoding takes: RGB, and all coefficients at once where they come in several passes."""
        coefficients = 2 * self.samples if self.kind in _PROGRESSIVE else 0
        return int(self.height * self.width * (3 + coefficients))


def read_frame(data: bytes) -> Frame | None:
    """Read the frame header; None if there is none."""
    for marker, start, end in list_segments(data):
        if marker in _FRAMES and end - start > 5:  # noqa: PLR2004 - precision, height, width, number of components
            height, width = int.from_bytes(data[start + 1 : start + 3]), int.from_bytes(data[start + 3 : start + 5])
            factors = [data[at] for at in range(start + 7, min(end, start + 6 + 3 * data[start + 5]), 3)]
            sizes = [(factor >> 4, factor & 15) for factor in factors]
            most = max((across for across, _ in sizes), default=1) * max((down for _, down in sizes), default=1)
            return Frame(marker, height, width, sum(across * down for across, down in sizes) / (most or 1))
    return None


def list_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """List each marker with the start and end of its content, over all scans."""
    at = 2
    while match := _NEXT_MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker == _END:
            return
        if marker not in _ALONE:
            end = at + int.from_bytes(data[at : at + 2])
            yield marker, at + 2, end
            at = max(end, at + 2)


def check_jpeg(data: bytes, frame: Frame, budget: Budget) -> None:
    """Refuse a JPEG whose data cannot fill its pixels, or with more passes over them than there is time for.

    Raises:
        ValueError: if it is truncated. Each block of 8 x 8 pixels takes at least one bit, unless coded arithmetically.
        BudgetError: if it has too many scans.
    """
    blocks = math.ceil(frame.height / 8) * math.ceil(frame.width / 8)
    if blocks > 8 * len(data) and frame.kind not in _ARITHMETIC:
        raise ValueError(f"truncated: {pluralize(len(data), 'byte')} cannot hold {frame.width} x {frame.height} pixels")
    scans = data.count(b"\xff\xda")  # thumbnails count as well, so that many are counted again with care
    if scans > MAX_SCANS:
        scans = sum(marker == _START_OF_SCAN for marker, _, _ in list_segments(data))
    if scans > MAX_SCANS:
        raise BudgetError(f"{pluralize(scans, 'scan')} are more than {MAX_SCANS}: may be made to take hours")
    if scans > 1 and scans * frame.height * frame.width * frame.samples > budget.seconds * PACE:
        raise BudgetError(
            f"{pluralize(scans, 'scan')} of {frame.width} x {frame.height} pixels take more than {budget.seconds:g} s"
        )


def decode_jpeg(data: bytes, frame: Frame, smallest: int | None) -> Pixels | None:
    """Decode a JPEG of three channels or one to RGB; None for what Pillow has to decide.

    Args:
        data: The file's bytes.
        frame: Its frame.
        smallest: None to decode every pixel. A number decodes at the smallest of 1/1, 1/2, 1/4 and 1/8 whose shorter
            side is not below it: sizes that the format's cosine transform gives for nothing. Those between them, such
            as 7/8, cost libjpeg-turbo more than they save: it has no vector instructions for them.

    Raises:
        ModuleNotFoundError: if simplejpeg is missing, as on a machine with little but torch.
        ValueError: if the data end before the pixels do.
    """
    import simplejpeg

    try:
        space = simplejpeg.decode_jpeg_header(data)[2]
        if space not in ("YCbCr", "RGB", "Gray"):
            _check_complete(data)
            return None
        size = frame.height, frame.width
        height, width = size if smallest is None else _halve(size, smallest)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
    except ValueError as error:
        refuse_truncated(error)
        return None  # Pillow says what is broken, or is more patient
    return pixels


def _check_complete(data: bytes) -> None:
    """Decode a CMYK image as small as can be: Pillow fills what is missing with grey, without a word."""
    import simplejpeg

    simplejpeg.decode_jpeg(data, "CMYK", min_factor=8)


def refuse_truncated(error: ValueError) -> None:
    """Refuse data that end with an end marker before all pixels have come.

    Raises:
        ValueError: if that is the error.
    """
    if "premature end of data segment" in str(error).lower():
        raise ValueError("image file is truncated: its data end before its pixels") from error


def _halve(size: tuple[int, int], smallest: int) -> tuple[int, int]:
    """Give the size halved up to three times, as long as its shorter side is not below the smallest."""
    by = max((by for by in (2, 4, 8) if math.ceil(min(size) / by) >= smallest), default=1)
    return math.ceil(size[0] / by), math.ceil(size[1] / by)


def may_be_turned(data: bytes) -> bool:
    """Tell whether a JPEG may have an orientation: EXIF or XMP may stand anywhere, and Pillow reads them."""
    return b"Exif\0\0" in data or b"tiff:Orientation" in data


def open_array(pixels: Pixels) -> Image.Image:
    """Make an image of rows."""
    return Image.fromarray(np.ascontiguousarray(pixels))
