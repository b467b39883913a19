"""Where images lie, and how they look as small pictures within a page."""

import base64
import hashlib
import io
import uuid
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.locations.path_text import decode_path

SIDE = 160


def show(place: str | None, image_id: str | None) -> str:
    """Give an image as HTML, or say that it cannot be shown: its file is gone, broken, or holds another image now.

    Args:
        place: where the image lies, as text; None where nowhere.
        image_id: what it has to be; None where that does not matter.
    """
    data = _read(place, image_id)
    thumbnail = _shrink(data) if data else None
    if thumbnail is None:
        return "(cannot be shown)"
    return f'<img alt="{escape(image_id or place or "")}" src="{to_uri("jpeg", thumbnail)}">'


def to_uri(kind: str, data: bytes) -> str:
    """Write a picture so that a page can hold it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _read(place: str | None, image_id: str | None) -> bytes | None:
    path = Path(decode_path(place)) if place else None
    if path is None or not path.is_file():
        return None
    data = path.read_bytes()
    same = image_id is None or hashlib.sha256(data).digest()[:16] == uuid.UUID(image_id).bytes
    return data if same else None


def _shrink(data: bytes) -> bytes | None:
    Image.init()
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(file, "JPEG", quality=80)
    except Exception:  # noqa: BLE001 - broken pixels raise anything; the page says that there is nothing to show
        return None
    return file.getvalue()
