"""From an image's bytes to the pixels that the backbone gets."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from storage.formats import FORMATS
from storage.recipe import Transform
from tasks.encoder.pixels.transform import Pixels, plan_cut
from tasks.encoder.pixels.views import cut_window, draw_window

LONGEST = 100
JPEG, EXIF, ORIENTATION = b"\xff\xd8\xff", b"Exif\0\0", 0x0112
HEADER = 1 << 16  # a JPEG's EXIF stands in its first segments, of at most this size
_SMOOTH = ("bilinear", "bicubic")
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(data: bytes, transform: Transform, view: int = 0) -> Pixels:
    """Decode, turn upright, resize and cut one image; the first frame where there are several.

    A view above 0 is a random window of the image instead of its middle.

    Plain JPEG goes through libjpeg-turbo and an antialiased resize of bytes, which let go of the interpreter's lock.
    They differ from Pillow's pixels by at most 1. Pillow decides the rest.

    Returns:
        [height, width, 3], uint8, RGB.

    Raises:
        Exception: of any kind, where the bytes are broken or their pixels have no agreed range.
    """
    (result,) = decode_all([data], transform, view)
    if isinstance(result, Exception):
        raise result
    return result


def decode_all(images: Sequence[bytes], transform: Transform, view: int = 0) -> list[Pixels | Exception]:
    """Decode several images, each as if it were alone; one that is broken gives its error."""
    done: dict[int, Pixels | None] = {}
    if transform.decoder == "gpu" and not view:
        from tasks.encoder.pixels.decode_gpu import decode_on_gpu

        fit = [at for at, data in enumerate(images) if _is_smooth(data, transform) and _read_plain_size(data)]
        done = dict(zip(fit, decode_on_gpu([images[at] for at in fit], transform), strict=True)) if fit else {}
    return [_decode_alone(data, transform, view, done.get(at)) for at, data in enumerate(images)]


def _decode_alone(data: bytes, transform: Transform, view: int, done: Pixels | None) -> Pixels | Exception:
    try:
        return _decode(data, transform, view) if done is None else done
    except Exception as error:  # noqa: BLE001 - broken pixels raise anything; the caller records or raises it
        return error


def _decode(data: bytes, transform: Transform, view: int) -> Pixels:
    if transform.decoder != "gpu" and _is_smooth(data, transform):
        pixels = _decode_jpeg(data, transform)
        if pixels is not None:
            return _cut_view(Image.fromarray(pixels), data, transform, view) if view else _resize(pixels, transform)
    Image.init()  # once in a process: registers every format
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        upright = _to_rgb(ImageOps.exif_transpose(image))
        return _cut_view(upright, data, transform, view) if view else np.asarray(_cut(upright, transform))


def _cut_view(image: Image.Image, data: bytes, transform: Transform, view: int) -> Pixels:
    window = draw_window(data, view, image.size)
    return np.asarray(cut_window(image, window, transform.crop, _RESAMPLING[transform.interpolation]))


def _is_smooth(data: bytes, transform: Transform) -> bool:
    """Tell whether an image is a JPEG that lies upright, to be resized as torch can."""
    return data.startswith(JPEG) and transform.interpolation in _SMOOTH and not _is_turned(data)


def _is_turned(data: bytes) -> bool:
    """Tell whether EXIF may turn the image; few files carry it, and Pillow reads it."""
    at = data.find(EXIF, 0, HEADER)
    if at < 0:
        return False
    Image.init()
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return bool(image.getexif().get(ORIENTATION, 1) != 1)


def _decode_jpeg(data: bytes, transform: Transform) -> Pixels | None:
    """Decode a JPEG of three channels or one; None for what is Pillow's to decide.

    With the ``scaled`` decoder, at the smallest of 1/1, 1/2, 1/4 and 1/8 whose shorter side is not below the
    transform's: sizes that the format's cosine transform gives for nothing. Those between them, such as 7/8, cost
    libjpeg-turbo more than they save: it has no vector instructions for them.
    """
    try:
        import simplejpeg
    except ModuleNotFoundError:  # a machine with little but torch; Pillow gives the same pixels, to 1 level, slower
        if transform.decoder == "full":
            return None
        raise
    size = _read_plain_size(data)
    if size is None:
        return None
    height, width = size if transform.decoder == "full" else _halve(size, max(transform.resize, *transform.crop))
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
    except ValueError:  # broken: Pillow says how, or is more patient
        return None
    return pixels


def _halve(size: tuple[int, int], smallest: int) -> tuple[int, int]:
    """Give the size halved up to three times, as long as its shorter side is not below the smallest."""
    by = max((by for by in (2, 4, 8) if math.ceil(min(size) / by) >= smallest), default=1)
    return math.ceil(size[0] / by), math.ceil(size[1] / by)


def _read_plain_size(data: bytes) -> tuple[int, int] | None:
    """Give (height, width) by the header of a JPEG of three channels or one, of a size that Pillow takes, too."""
    import simplejpeg

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    plain = space in ("YCbCr", "RGB", "Gray") and height * width <= (Image.MAX_IMAGE_PIXELS or 0)
    return (height, width) if plain and max(height, width) <= LONGEST * min(height, width) else None


def _resize(pixels: Pixels, transform: Transform) -> Pixels:
    """Resize and cut, to Pillow's pixels within 1 level.

    Bilinear goes through torch's kernel for bytes, which follows Pillow's with coefficients of 16 bits. Bicubic ones,
    some of them negative, would be 2 levels off in one of a million: Pillow itself makes the cut's pixels, no others.
    """
    height, width = transform.crop
    size, (top, left) = plan_cut((pixels.shape[0], pixels.shape[1]), transform)
    if transform.interpolation == "bilinear":
        return _interpolate(pixels, size)[top : top + height, left : left + width]
    rows, columns = (side / to for side, to in zip(pixels.shape[:2], size, strict=True))
    across = (left * columns, 0, (left + width) * columns, pixels.shape[0])
    down = (0, top * rows, width, (top + height) * rows)
    how = _RESAMPLING[transform.interpolation]
    narrow = Image.fromarray(pixels).resize((width, pixels.shape[0]), how, across)
    return np.asarray(narrow.resize((width, height), how, down))


def _interpolate(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize as ``torch.nn.functional.interpolate`` does, which would take the colours of a single image apart."""
    import torch

    if size == pixels.shape[:2]:
        return pixels
    resized: Pixels = np.empty((*size, 3), np.uint8)
    image, into = (torch.from_numpy(each[None]).permute(0, 3, 1, 2) for each in (pixels, resized))  # channels last
    torch.ops.aten._upsample_bilinear2d_aa(image, size, align_corners=False, out=into)  # noqa: SLF001 - no public name
    return resized


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
    if not transform.squash and max(image.size) > LONGEST * min(image.size):  # resized, it would take gigabytes
        raise ValueError(f"{image.width} x {image.height} is longer than {LONGEST} times its width")
    height, width = transform.crop
    (tall, wide), (top, left) = plan_cut((image.height, image.width), transform)
    resized = image.resize((wide, tall), _RESAMPLING[transform.interpolation])
    return resized.crop((left, top, left + width, top + height))
