"""An image as its format means it: opened within a budget, upright, in 8-bit RGB over white."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from storage.formats import FORMATS
from tasks.encoder.pixels.budget import Budget, TimedFile
from tasks.encoder.pixels.icon import ICON, check_icon
from tasks.encoder.pixels.jpeg import JPEG, check_jpeg, open_array, read_frame
from tasks.encoder.pixels.png import SIGNATURE, correct_transparency, drop_metadata, has_odd_transparency
from tasks.encoder.pixels.transform import Pixels

ORIENTATION, PHOTOMETRIC, BITS, TILE_WIDTH, TILE_HEIGHT = 0x0112, 262, 258, 322, 323
BAND = 1 << 22
"""Pixels that are converted and narrowed at once."""
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP = re.compile(r'tiff:Orientation(?:="|>)([0-9])')
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_FORMAT_BYTES = {"WEBP": 16, "AVIF": 20, "JPEG2000": 20}
"""Bytes per pixel that a decoder takes beside the image, as measured by benchmarks.bombs."""

_Box = tuple[float, float, float, float]
_Convert = Callable[[Image.Image], Image.Image]


def open_picture(data: bytes, budget: Budget) -> Image.Image:
    """Open an image without decoding its pixels; metadata do not decide whether it opens.

    Raises:
        Exception: of any kind, where the header is broken or promises more than the budget allows.
    """
    Image.init()  # once in a process: registers every format
    if data.startswith(SIGNATURE):
        data = drop_metadata(data)
    elif data.startswith(ICON):
        check_icon(data)
    elif data.startswith(JPEG) and (frame := read_frame(data)):
        check_jpeg(data, frame, budget)
    return Image.open(TimedFile(data, budget.seconds), formats=FORMATS)


def explain(error: Exception) -> str:
    """Say why an image cannot be decoded, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def estimate_memory(image: Image.Image, data: bytes) -> int:
    """Estimate the bytes that decoding an opened image takes."""
    frame = read_frame(data) if data.startswith(JPEG) else None
    coefficients = max(frame.needed - 3 * frame.width * frame.height, 0) if frame else 0
    pixel = _MODE_BYTES.get(image.mode, 4)
    if data.startswith(SIGNATURE) and image.mode == "RGB" and has_odd_transparency(image, data):
        pixel = 16
    tags = getattr(image, "tag_v2", {})
    if tags.get(ORIENTATION, 1) != 1:
        pixel *= 2  # Pillow turns a TIFF as it loads it
    tile = max(_number(tags.get(TILE_WIDTH)), 1) * max(_number(tags.get(TILE_HEIGHT)), 1) * 8
    return image.width * image.height * (pixel + _FORMAT_BYTES.get(image.format or "", 0)) + coefficients + tile


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def read_orientation(image: Image.Image) -> int:
    """Read how an image is turned, from EXIF or else from XMP; 1 if neither says so in a way that can be read."""
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 - broken metadata raise anything, and do not decide whether pixels count
        value = None
    if value is None:
        text = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or ""
        found = _XMP.search(text.decode("latin-1") if isinstance(text, bytes) else str(text))
        value = int(found[1]) if found else 1
    return value if isinstance(value, int) else 1


@dataclass(frozen=True)
class Picture:
    """Decoded pixels with what makes them upright RGB, band by band, so that a large image is never copied whole.

    Attributes:
        stored: The pixels as they are stored: an image, or rows of RGB.
        orientation: How they are turned, as EXIF counts.
        convert: Makes RGB of a part.
        check_time: Raises an error once the time for decoding is over; called before each band.
    """

    stored: Image.Image | Pixels
    orientation: int = 1
    convert: _Convert = field(default=lambda part: part)
    check_time: Callable[[], None] = field(default=lambda: None)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), upright."""
        width, height = self._stored_size
        return (height, width) if self.orientation in (5, 6, 7, 8) else (width, height)

    @property
    def _stored_size(self) -> tuple[int, int]:
        if isinstance(self.stored, Image.Image):
            return self.stored.size
        return self.stored.shape[1], self.stored.shape[0]

    def rows(self, top: int, bottom: int) -> Image.Image:
        """Return rows of the upright image in RGB."""
        self.check_time()
        part = self.convert(self._crop(top, bottom))
        method = _METHODS.get(self.orientation)
        return part if method is None else part.transpose(method)

    def resize(self, size: tuple[int, int], how: Image.Resampling, box: _Box | None = None) -> Image.Image:
        """Resize the upright image, or a box of it, to (width, height).

        Pillow resizes across first, then down, each row by itself: band by band gives the same pixels.
        """
        width, height = self.size
        left, top, right, bottom = box or (0, 0, width, height)
        count = max(1, BAND // width)
        if count >= height:
            return self.rows(0, height).resize(size, how, (left, top, right, bottom))
        return self.narrow(size[0], how, (left, right)).resize(size, how, (0, top, size[0], bottom))

    def narrow(self, width: int, how: Image.Resampling, sides: tuple[float, float]) -> Image.Image:
        """Resize the part between two sides to a width, leaving the height as it is."""
        height = self.size[1]
        count = max(1, BAND // self.size[0])
        narrow = Image.new("RGB", (width, height))
        for at in range(0, height, count):
            band = self.rows(at, min(at + count, height))
            narrow.paste(band.resize((width, band.height), how, (sides[0], 0, sides[1], band.height)), (0, at))
        return narrow

    def _crop(self, top: int, bottom: int) -> Image.Image:
        """Cut out of the stored pixels what becomes these rows once it is turned."""
        width, height = self._stored_size
        box = {
            1: (0, top, width, bottom),
            2: (0, top, width, bottom),
            3: (0, height - bottom, width, height - top),
            4: (0, height - bottom, width, height - top),
            5: (top, 0, bottom, height),
            6: (top, 0, bottom, height),
            7: (width - bottom, 0, width - top, height),
            8: (width - bottom, 0, width - top, height),
        }.get(self.orientation, (0, top, width, bottom))
        if not isinstance(self.stored, Image.Image):
            return open_array(self.stored[box[1] : box[3], box[0] : box[2]])
        return self.stored if box == (0, 0, width, height) else self.stored.crop(box)


def load_picture(image: Image.Image, data: bytes) -> Picture:
    """Decode an opened image.

    Raises:
        Exception: of any kind, where the pixels are broken or have no defined range.
    """
    file = getattr(image, "fp", None)
    check_time = file.check_time if isinstance(file, TimedFile) else lambda: None
    convert = _choose_conversion(image)  # before loading, which drops a TIFF's tags
    image.load()  # before the orientation, which may stand behind the pixels
    orientation = read_orientation(image)
    if data.startswith(SIGNATURE):
        image = correct_transparency(image, drop_metadata(data))
    return Picture(image, orientation, convert, check_time)


def _choose_conversion(image: Image.Image) -> _Convert:
    if image.mode.startswith("I;16"):
        return _choose_deep(image)
    if image.mode == "I" and image.format == "PPM":  # Pillow scales its levels to 16 bits
        return lambda part: _to_grey(np.asarray(part) >> 8)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no defined range")
    return _to_rgb


def _choose_deep(image: Image.Image) -> _Convert:
    """Scale grey of more than 8 bits by its own depth, from black to white, with its transparent level white."""
    tags = getattr(image, "tag_v2", {})
    depth = tags.get(BITS, (16,))[0]
    white_is_zero = PHOTOMETRIC in tags and tags[PHOTOMETRIC] == 0
    clear = image.info.get("transparency")

    def convert(part: Image.Image) -> Image.Image:
        deep = np.asarray(part).astype(np.uint16)
        levels = (deep >> (depth - 8)).astype(np.uint8)
        if white_is_zero:
            levels = ~levels
        if isinstance(clear, int):
            levels[deep == clear] = 255
        return _to_grey(levels)

    return convert


def _to_grey(levels: npt.NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Give RGB, with what is transparent over white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
