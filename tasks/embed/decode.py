"""From an image's bytes to the pixels that the backbone gets."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.recipe import Transform

Pixels = npt.NDArray[np.uint8]

LONGEST = 100
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(data: bytes, transform: Transform) -> Pixels:
    """Decode, turn upright, resize and cut one image; the first frame where there are several.

    Returns:
        [height, width, 3], uint8, RGB.

    Raises:
        Exception: of any kind, where the bytes are broken or their pixels have no agreed range.
    """
    Image.init()  # once in a process: registers every format
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(_cut(_to_rgb(upright), transform))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Give RGB: alpha over white, 16 bit scaled to 8."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)
        return Image.fromarray((deep >> 8).astype(np.uint8), "L").convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no agreed range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _cut(image: Image.Image, transform: Transform) -> Image.Image:
    height, width = transform.crop
    resampling = _RESAMPLING[transform.interpolation]
    if transform.squash:
        return image.resize((width, height), resampling)
    short, long = sorted(image.size)
    if long > LONGEST * short:  # resized, it would take gigabytes
        raise ValueError(f"{image.width} x {image.height} is longer than {LONGEST} times its width")
    # Rounded as torchvision rounds, so that the libraries' own transforms give the same pixels.
    size = [int(transform.resize * side / short) for side in image.size]
    left, top = (round((size[0] - width) / 2), round((size[1] - height) / 2))
    return image.resize((size[0], size[1]), resampling).crop((left, top, left + width, top + height))
