"""The images of a request to a served model: base64 in its usual spellings, data URIs, or plain bytes."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

REMEDY = "send the file's bytes as base64 text or as a data URI"
_DATA_URI = re.compile(r"data:[^,]*,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
_NULL = ("None", "nan", "<NA>")
"""What MLflow makes of null in the ``inputs`` and ``instances`` formats; no image has so short a text."""


class RequestError(ValueError):
    """A value of a request that is no image; its text says why and what to send."""


def read_request_image(value: object) -> bytes:
    """Return the bytes of an image in a request.

    Args:
        value: The file's bytes; its base64 text, standard or URL-safe, padded or not; or a data URI. Text may come as
            bytes.

    Raises:
        RequestError: if the value is null, empty, or neither.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _read_bytes(bytes(value))
    if not isinstance(value, str):
        null = value is None or value != value or type(value).__name__ == "NAType"  # noqa: PLR0124 - NaN
        raise RequestError(f"image is null: {REMEDY}" if null else f"image is of type {type(value).__name__}: {REMEDY}")
    text = value.strip()
    if text in _NULL:
        raise RequestError(f"image is null: {REMEDY}")
    return _refuse_empty(_read_data_uri(text) if _DATA_URI.match(text) else _read_base64("".join(text.split())))


def _read_bytes(data: bytes) -> bytes:
    _refuse_empty(data)
    if _DATA_URI.match(data[:99].decode("latin-1")):
        return _refuse_empty(_read_data_uri(data.decode("latin-1")))
    try:  # no image format consists of base64 characters only
        return _read_base64(data.decode("ascii"))
    except (RequestError, UnicodeDecodeError):
        return data


def _read_data_uri(text: str) -> bytes:
    head, _, content = text.partition(",")
    plain = unquote_to_bytes(content)
    return _read_base64("".join(plain.decode("latin-1").split())) if head.lower().endswith(";base64") else plain


def _read_base64(text: str) -> bytes:
    bare = text.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"image is not base64: {REMEDY}") from error


def _refuse_empty(data: bytes) -> bytes:
    if not data:
        raise RequestError(f"image is empty: {REMEDY}")
    return data
