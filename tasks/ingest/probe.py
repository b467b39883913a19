"""From a file to its identity and its header; the pixels are not decoded."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from storage.formats import FORMATS
from storage.locations.path_text import decode_path
from storage.progress import Advance
from storage.tables.scans import READS
from tasks.ingest.settings import IngestSettings


@dataclass(frozen=True)
class ProbedFile:
    """What reading a file gave, a row of ``READS``: an image, or the stage and reason of a failure."""

    path: str
    image_id: bytes | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    bytes: int | None = None
    stage: str | None = None
    reason: str | None = None


def read_files(root: Path, paths: Sequence[str], settings: IngestSettings, advance: Advance) -> pa.Table:
    """ProbedFile, hash and probe files in threads, telling ``advance`` of each.

    Returns:
        A row of ``READS`` for each path, in order.
    """
    Image.init()  # registers every format, which is not done in threads
    with ThreadPoolExecutor(settings.readers) as pool:
        reads = []
        for read in pool.map(lambda path: probe(root, path, settings.max_pixels), paths):
            reads.append(read)
            advance(1)
    return pa.Table.from_pylist([vars(read) for read in reads], READS)


def probe(root: Path, path: str, max_pixels: int) -> ProbedFile:
    """ProbedFile one file: its identity, and format, size and mode from its header.

    An image's identity is the first 128 bits of the SHA-256 (FIPS 180-4) of its bytes.
    """
    try:
        with (root / decode_path(path)).open("rb") as file:
            identity = hashlib.file_digest(file, "sha256").digest()[:16]
            size = file.tell()
            file.seek(0)
            return _probe_header(path, file, identity, size, max_pixels)
    except OSError as error:
        return ProbedFile(path, stage="read", reason=error.strerror or type(error).__name__)


def _probe_header(path: str, file: BinaryIO, identity: bytes, size: int, max_pixels: int) -> ProbedFile:
    try:
        with Image.open(file, formats=FORMATS) as image:
            kind, mode, (width, height) = image.format, image.mode, image.size
    except Image.DecompressionBombError:
        return ProbedFile(path, stage="probe", reason=f"more than {max_pixels} pixels: may be a decompression bomb")
    except UnidentifiedImageError:
        return ProbedFile(path, stage="probe", reason="no image" if size else "empty file")
    except Exception as error:  # noqa: BLE001 - a broken header raises anything; the failure is recorded
        return ProbedFile(path, stage="probe", reason=f"broken header: {error or type(error).__name__}")
    if width * height > max_pixels:
        reason = f"{width} x {height} is more than {max_pixels} pixels: may be a decompression bomb"
        return ProbedFile(path, stage="probe", reason=reason)
    return ProbedFile(path, identity, kind, width, height, mode, size)
