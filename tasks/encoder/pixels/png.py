"""PNG: without the metadata for which Pillow would refuse whole pixels; transparent colours of every depth."""

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TURNING = {b"iTXt": b"XML:com.adobe.xmp\0", b"zTXt": b"Raw profile type exif\0", b"tEXt": b"Raw profile type exif\0"}
"""The keywords of text that can say how an image is turned."""
MAX_TEXT = 1 << 20
_GREY, _COLOUR = 0, 2


def drop_metadata(data: bytes) -> bytes:
    """Leave out all chunks that do not decide pixels; a chunk that says how the image is turned stays if it is sound.

    Of an animation the default image stays.
    """
    chunks = list(_list_chunks(data))
    kept = [chunk for chunk in chunks if _decides_pixels(chunk)]
    return data if len(kept) == len(chunks) else b"".join([SIGNATURE, *kept])


def _list_chunks(data: bytes) -> Iterator[memoryview]:
    """List the chunks, each with its length and checksum; what is cut off at the end is a chunk as well."""
    view, at = memoryview(data), len(SIGNATURE)
    while at < len(view):
        end = at + 12 + int.from_bytes(view[at : at + 4])
        yield view[at:end]
        if bytes(view[at + 4 : at + 8]) == b"IEND":
            return
        at = end


def _decides_pixels(chunk: memoryview) -> bool:
    kind = bytes(chunk[4:8])
    critical = kind[:1].isupper() or kind == b"tRNS" or len(kind) < 4  # noqa: PLR2004 - cut off: Pillow says so
    return critical or (kind == b"eXIf" and _is_sound(chunk)) or _turns(kind, chunk)


def _is_sound(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]) and len(chunk) <= MAX_TEXT


def _turns(kind: bytes, chunk: memoryview) -> bool:
    keyword = _TURNING.get(kind)
    if keyword is None or bytes(chunk[8 : 8 + len(keyword)]) != keyword or not _is_sound(chunk):
        return False
    text = bytes(chunk[8 + len(keyword) : -4])
    packed = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1] if text[:1] == b"\1" else b""
    try:
        unpacker = zlib.decompressobj()
        unpacker.decompress(packed, MAX_TEXT - 1)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def has_odd_transparency(image: Image.Image, data: bytes) -> bool:
    """Tell whether a colour is transparent whose depth is not 8 bits: Pillow compares it with 8-bit levels."""
    depth, kind = data[24], data[25]
    return "transparency" in image.info and (depth, kind) in ((2, _GREY), (4, _GREY), (16, _GREY), (16, _COLOUR))


def correct_transparency(image: Image.Image, data: bytes) -> Image.Image:
    """Give an image whose transparent colour has the depth of its pixels; 16-bit grey is left to the conversion."""
    if not has_odd_transparency(image, data):
        return image
    depth, kind = data[24], data[25]
    if kind == _GREY and depth < 8:  # noqa: PLR2004 - bits
        image.info["transparency"] = image.info["transparency"] * 255 // (2**depth - 1)
    elif kind == _COLOUR:
        alpha = _find_opaque(image, data)
        del image.info["transparency"]
        image.putalpha(alpha)
    return image


def _find_opaque(image: Image.Image, data: bytes) -> Image.Image:
    """Compare all 16 bits of each channel with the transparent colour: Pillow keeps the upper ones."""
    color = image.info["transparency"]
    with PngImagePlugin.PngImageFile(io.BytesIO(data)) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # the wrong order gives the lower bytes
        low = np.asarray(lower)
    high = np.asarray(image)
    same = (high == [level >> 8 for level in color]).all(axis=2) & (low == [level & 255 for level in color]).all(axis=2)
    return Image.fromarray(np.where(same, np.uint8(0), np.uint8(255)))
