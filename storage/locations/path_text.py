"""Paths as text: whatever bytes a file system allows in a name, as UTF-8 that every database accepts, and back."""

import os
import re


def encode_path(path: str) -> str:
    r"""Encode a path as valid UTF-8: invalid bytes become ``\xNN``, a backslash becomes two."""
    if path.isascii() and "\\" not in path:
        return path
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def decode_path(text: str) -> str:
    """Undo :func:`encode_path`."""
    if "\\" not in text:
        return text
    raw = re.sub(rb"\\(?:x([0-9a-f]{2})|\\)", _unescape, text.encode())
    return os.fsdecode(raw)


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)]) if match[1] else b"\\"
