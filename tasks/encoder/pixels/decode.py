"""From an image's bytes to the backbone's input pixels."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.recipe import Transform
from tasks.encoder.pixels.transform import Pixels, plan_crop
from tasks.encoder.pixels.views import crop_window, draw_window

LONGEST = 100
JPEG, EXIF, ORIENTATION = b"\xff\xd8\xff", b"Exif\0\0", 0x0112
HEADER = 1 << 16  # a JPEG's EXIF is in its first segments, of at most this size
_SMOOTH = ("bilinear", "bicubic")
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(data: bytes, transform: Transform, view: int = 0) -> Pixels:
    """Decode, turn upright, resize and crop one image; of an animation, its first frame.

    A view above 0 is a random window of the image instead of its center.

    Plain JPEGs go through libjpeg-turbo and an antialiased resize of bytes, which release the interpreter's lock. Their
    pixels differ from Pillow's by at most 1 level. Pillow decodes everything else.

    Returns:
        [height, width, 3], uint8, RGB.

    Raises:
        Exception: of any kind, if the bytes are broken or their pixels have no defined range.
    """
    (result,) = decode_all([data], transform, view)
    if isinstance(result, Exception):
        raise result
    return result


def decode_all(images: Sequence[bytes], transform: Transform, view: int = 0) -> list[Pixels | Exception]:
    """Decode several images, each as if it were alone; the result for a broken one is its exception."""
    done: dict[int, Pixels | None] = {}
    if transform.decoder == "gpu" and not view:
        from tasks.encoder.pixels.decode_gpu import decode_on_gpu

        plain = [at for at, data in enumerate(images) if _is_fast(data, transform) and _read_plain_size(data)]
        done = dict(zip(plain, decode_on_gpu([images[at] for at in plain], transform), strict=True)) if plain else {}
    return [_decode_alone(data, transform, view, done.get(at)) for at, data in enumerate(images)]


def _decode_alone(data: bytes, transform: Transform, view: int, done: Pixels | None) -> Pixels | Exception:
    try:
        return _decode(data, transform, view) if done is None else done
    except Exception as error:  # noqa: BLE001 - broken pixels raise anything; the caller records or raises it
        return error


def _decode(data: bytes, transform: Transform, view: int) -> Pixels:
    if transform.decoder != "gpu" and _is_fast(data, transform):
        pixels = _decode_jpeg(data, transform)
        if pixels is not None:
            return _crop_view(Image.fromarray(pixels), data, transform, view) if view else _resize(pixels, transform)
    Image.init()  # registers every format, once per process
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        upright = _to_rgb(ImageOps.exif_transpose(image))
        return _crop_view(upright, data, transform, view) if view else np.asarray(_crop(upright, transform))


def _crop_view(image: Image.Image, data: bytes, transform: Transform, view: int) -> Pixels:
    window = draw_window(data, view, image.size)
    return np.asarray(crop_window(image, window, transform.crop, _RESAMPLING[transform.interpolation]))


def _is_fast(data: bytes, transform: Transform) -> bool:
    """Return whether an image may take the fast path: an upright JPEG, with an interpolation that torch offers too."""
    return data.startswith(JPEG) and transform.interpolation in _SMOOTH and not _is_rotated(data)


def _is_rotated(data: bytes) -> bool:
    """Return whether EXIF says to rotate or flip the image."""
    at = data.find(EXIF, 0, HEADER)
    if at < 0:
        return False
    Image.init()
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return bool(image.getexif().get(ORIENTATION, 1) != 1)


def _decode_jpeg(data: bytes, transform: Transform) -> Pixels | None:
    """Decode a JPEG of three channels or one; None if it is left to Pillow.

    The ``scaled`` decoder decodes at the smallest of 1/1, 1/2, 1/4 and 1/8 whose shorter side is not below the
    transform's: JPEG's cosine transform yields these sizes for free. Sizes in between, such as 7/8, cost libjpeg-turbo
    more than they save, because it has no vector instructions for them.
    """
    try:
        import simplejpeg
    except ModuleNotFoundError:  # a machine with little but torch; Pillow yields the same pixels to 1 level, slower
        if transform.decoder == "full":
            return None
        raise
    size = _read_plain_size(data)
    if size is None:
        return None
    height, width = size if transform.decoder == "full" else _halve(size, max(transform.resize, *transform.crop))
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
    except ValueError:  # broken: Pillow is more tolerant, or has the better message
        return None
    return pixels


def _halve(size: tuple[int, int], smallest: int) -> tuple[int, int]:
    """Halve a size up to three times, as long as its shorter side is not below ``smallest``."""
    factor = max((factor for factor in (2, 4, 8) if math.ceil(min(size) / factor) >= smallest), default=1)
    return math.ceil(size[0] / factor), math.ceil(size[1] / factor)


def _read_plain_size(data: bytes) -> tuple[int, int] | None:
    """Read (height, width) from a JPEG's header; None unless it has three channels or one and Pillow takes its size."""
    import simplejpeg

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    plain = space in ("YCbCr", "RGB", "Gray") and height * width <= (Image.MAX_IMAGE_PIXELS or 0)
    return (height, width) if plain and max(height, width) <= LONGEST * min(height, width) else None


def _resize(pixels: Pixels, transform: Transform) -> Pixels:
    """Resize and crop, to within 1 level of Pillow's pixels.

    Bilinear uses torch's kernel for bytes, which follows Pillow's with 16-bit coefficients. Its bicubic coefficients,
    some of them negative, would be 2 levels off in one pixel of a million, so Pillow computes the crop's pixels.
    """
    height, width = transform.crop
    size, (top, left) = plan_crop((pixels.shape[0], pixels.shape[1]), transform)
    if transform.interpolation == "bilinear":
        return _interpolate(pixels, size)[top : top + height, left : left + width]
    y_scale, x_scale = (before / after for before, after in zip(pixels.shape[:2], size, strict=True))
    columns = (left * x_scale, 0, (left + width) * x_scale, pixels.shape[0])
    rows = (0, top * y_scale, width, (top + height) * y_scale)
    resampling = _RESAMPLING[transform.interpolation]
    narrow = Image.fromarray(pixels).resize((width, pixels.shape[0]), resampling, columns)
    return np.asarray(narrow.resize((width, height), resampling, rows))


def _interpolate(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize like ``torch.nn.functional.interpolate``, which would convert a single image to planar colors."""
    import torch

    if size == pixels.shape[:2]:
        return pixels
    resized: Pixels = np.empty((*size, 3), np.uint8)
    image, out = (torch.from_numpy(array[None]).permute(0, 3, 1, 2) for array in (pixels, resized))  # channels last
    torch.ops.aten._upsample_bilinear2d_aa(image, size, align_corners=False, out=out)  # noqa: SLF001 - no public name
    return resized


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: alpha is composited over white, 16 bits are scaled to 8."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)
        return Image.fromarray((deep >> 8).astype(np.uint8), "L").convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no defined range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _crop(image: Image.Image, transform: Transform) -> Image.Image:
    if not transform.squash and max(image.size) > LONGEST * min(image.size):  # resized, it would take gigabytes
        raise ValueError(f"{image.width} x {image.height}: one side is more than {LONGEST} times the other")
    height, width = transform.crop
    resize, (top, left) = plan_crop((image.height, image.width), transform)
    resized = image.resize(resize[::-1], _RESAMPLING[transform.interpolation])
    return resized.crop((left, top, left + width, top + height))
