"""Read an image file's identity and header; its pixels are not decoded."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from storage.errors import ImageError
from storage.plural import pluralize
from storage.progress import Advance
from storage.sources.open_image import Locator, Source, hash_image, open_image
from storage.tables.scans import READS
from tasks.encoder.pixels.budget import Budget, BudgetError
from tasks.encoder.pixels.decoding_version import find_decoding_version
from tasks.encoder.pixels.picture import explain, open_picture
from tasks.ingest.settings import IngestSettings

SHORT = ("not an image", "empty file")
"""Reasons that need no introduction."""


@dataclass(frozen=True)
class ProbedFile:
    """A row of ``READS``: the image that a file holds, or the stage and reason of its failure."""

    path: str
    image_id: bytes | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    bytes: int | None = None
    stage: str | None = None
    reason: str | None = None
    decoding: int | None = None


def read_files(source: Source, paths: Sequence[str], settings: IngestSettings, advance: Advance) -> pa.Table:
    """Read, hash and probe files in threads, calling ``advance`` after each.

    Returns:
        One row of ``READS`` per path, in order.
    """
    Image.init()  # registers every format; not safe to do in threads
    with ThreadPoolExecutor(settings.readers) as pool:
        probed = []
        for file in pool.map(lambda path: probe(source, Locator(path), settings.max_pixels), paths):
            probed.append(file)
            advance(1)
    return pa.Table.from_pylist([vars(file) for file in probed], READS)


def probe(source: Source, locator: Locator, max_pixels: int) -> ProbedFile:
    """Read one file's identity, and the format, size and mode from its header."""
    try:
        data = open_image(source, locator)
    except ImageError as error:
        return ProbedFile(locator.path, stage="read", reason=error.rule)
    return _probe_header(locator.path, data, max_pixels)


def _probe_header(path: str, data: bytes, max_pixels: int) -> ProbedFile:
    try:
        with open_picture(data, Budget()) as image:
            format_, mode, (width, height) = image.format, image.mode, image.size
            decoding = find_decoding_version(image, data)
    except Image.DecompressionBombError:
        return ProbedFile(
            path, stage="probe", reason=f"more than {pluralize(max_pixels, 'pixel')}: may be a decompression bomb"
        )
    except BudgetError as error:
        return ProbedFile(path, stage="probe", reason=str(error))
    except Exception as error:  # noqa: BLE001 - a broken header raises anything; the failure is recorded
        reason = explain(error) if data else "empty file"
        return ProbedFile(path, stage="probe", reason=reason if reason in SHORT else f"broken header: {reason}")
    if width * height > max_pixels:
        reason = f"{width} x {height} is more than {pluralize(max_pixels, 'pixel')}: may be a decompression bomb"
        return ProbedFile(path, stage="probe", reason=reason)
    return ProbedFile(path, hash_image(data).bytes, format_, width, height, mode, len(data), decoding=decoding)
