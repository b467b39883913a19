"""Icons: the sizes of the images inside, which their directory need not tell."""

from collections.abc import Iterator

from storage.plural import pluralize
from tasks.encoder.pixels.budget import BudgetError
from tasks.encoder.pixels.png import SIGNATURE

ICON = b"\0\0\1\0"
MAX_PIXELS = 4096 * 4096
"""The most pixels of an icon's image: the format means 256 x 256, and some files hold more."""


def check_icon(data: bytes) -> None:
    """Refuse an icon with an image inside that is far larger than icons are; Pillow would decode it at once.

    Raises:
        BudgetError: naming its size.
    """
    for width, height in _list_sizes(data):
        if width * height > MAX_PIXELS:
            raise BudgetError(
                f"an image of {width} x {height} inside the icon is more than {pluralize(MAX_PIXELS, 'pixel')}: "
                "may be a decompression bomb"
            )


def _list_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    for at in range(6, 6 + 16 * int.from_bytes(data[4:6], "little"), 16):
        start = int.from_bytes(data[at + 12 : at + 16], "little")
        if data[start : start + 8] == SIGNATURE:
            yield int.from_bytes(data[start + 16 : start + 20]), int.from_bytes(data[start + 20 : start + 24])
        else:  # a bitmap, with its mask below it
            width, height = (int.from_bytes(data[start + n : start + n + 4], "little", signed=True) for n in (4, 8))
            yield abs(width), abs(height) // 2
