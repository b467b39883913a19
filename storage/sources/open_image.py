"""The one function that reads an image's bytes, and the types that say which image."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from storage.errors import ImageError
from storage.locations.path_text import decode_path, encode_path
from storage.names import SourceName

REMEDY = "Put it back, or scan its source again"


@dataclass(frozen=True)
class Source:
    """Where images come from: its name, and its root folder as text (see ``encode_path``)."""

    name: SourceName
    location: str


@dataclass(frozen=True)
class Locator:
    """How one image is reached inside its source: the path below the root, as text (see ``encode_path``)."""

    path: str


class LocatedImage(NamedTuple):
    """An image of a source, and how to reach it there."""

    image_id: str
    locator: Locator


def folder_source(name: SourceName, root: Path) -> Source:
    """Name a folder as a source."""
    return Source(name, encode_path(str(root)))


def open_image(source: Source, locator: Locator, image_id: str | None = None) -> bytes:
    """Read an image's bytes.

    Args:
        source: Where the image comes from.
        locator: How it is reached there.
        image_id: The identity that the bytes must have; not checked by default.

    Raises:
        ImageError: if the file cannot be read, or holds other bytes than the image's. Its ``rule`` is the reason.
    """
    try:
        data = Path(decode_path(source.location), decode_path(locator.path)).read_bytes()
    except OSError as error:
        raise _refuse(source, locator, error.strerror or type(error).__name__) from error
    if image_id is not None and hash_image(data) != UUID(image_id):
        raise _refuse(source, locator, "bytes changed after the scan")
    return data


def hash_image(data: bytes) -> UUID:
    """Compute an image's identity: the first 128 bits of the SHA-256 (FIPS 180-4) of its bytes."""
    return UUID(bytes=hashlib.sha256(data).digest()[:16])


def _refuse(source: Source, locator: Locator, reason: str) -> ImageError:
    return ImageError(f"image {source.location}/{locator.path}", reason, REMEDY)
