"""The version of the decoding rules that decides an image's pixels.

A release that decodes some kinds of image differently raises the version of these kinds, so that their features, and no
others, are computed again.
"""

from PIL import Image

from tasks.encoder.pixels.jpeg import JPEG, may_be_turned
from tasks.encoder.pixels.picture import BITS, PHOTOMETRIC, read_orientation
from tasks.encoder.pixels.png import SIGNATURE, has_odd_transparency

FIRST, SECOND = 1, 2
_HEAD = 1 << 16
"""The first release looked no further for the EXIF of a JPEG, and not at its XMP."""
_DEPTH = 12


def find_decoding_version(image: Image.Image, data: bytes) -> int:
    """Return the version of an opened image, whose pixels need not have been decoded.

    Version 2 are JPEG files turned by EXIF behind their first 64 kB or by XMP alone; 12-bit TIFF, and 16-bit TIFF with
    white as zero; PNG with a transparent colour of 2, 4 or 16 bits.
    """
    if data.startswith(JPEG):
        return SECOND if _is_turned_unseen(image, data) else FIRST
    if data.startswith(SIGNATURE):
        return SECOND if has_odd_transparency(image, data) else FIRST
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") and (tags.get(PHOTOMETRIC) == 0 or tags.get(BITS, (16,))[0] == _DEPTH):
        return SECOND
    return FIRST


def _is_turned_unseen(image: Image.Image, data: bytes) -> bool:
    return may_be_turned(data) and data.find(b"Exif\0\0", 0, _HEAD) < 0 and read_orientation(image) != 1
