"""From an image's bytes to the backbone's input pixels."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from storage.recipe import Transform
from tasks.encoder.pixels.budget import DEFAULT, Budget, hold_memory
from tasks.encoder.pixels.jpeg import JPEG, Frame, check_jpeg, decode_jpeg, may_be_turned, read_frame
from tasks.encoder.pixels.picture import Picture, estimate_memory, load_picture, open_picture, read_orientation
from tasks.encoder.pixels.pnm import is_scaled, read_scaled
from tasks.encoder.pixels.transform import Pixels, plan_crop
from tasks.encoder.pixels.views import crop_window, draw_window

LONGEST = 100
_SMOOTH = ("bilinear", "bicubic")
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(data: bytes, transform: Transform, view: int = 0, budget: Budget = DEFAULT) -> Pixels:
    """Decode, turn upright, resize and crop one image; of an animation, its first frame.

    A view above 0 is a random window of the image instead of its center.

    Plain JPEGs go through libjpeg-turbo, and upright ones through an antialiased resize of bytes, which release the
    interpreter's lock. Their pixels differ from Pillow's by at most 1 level. Pillow decodes everything else.

    Returns:
        [height, width, 3], uint8, RGB.

    Raises:
        Exception: of any kind, if the bytes are broken, their pixels have no defined range, or decoding would take
            more than the budget.
    """
    (result,) = decode_all([data], transform, view, budget)
    if isinstance(result, Exception):
        raise result
    return result


def decode_all(
    images: Sequence[bytes], transform: Transform, view: int = 0, budget: Budget = DEFAULT
) -> list[Pixels | Exception]:
    """Decode several images, each as if it were alone; the result for a broken one is its exception."""
    done: dict[int, Pixels | None] = {}
    if transform.decoder == "gpu" and not view:
        from tasks.encoder.pixels.decode_gpu import decode_on_gpu

        fit = [at for at, data in enumerate(images) if _fits_gpu(data, transform, budget)]
        done = dict(zip(fit, decode_on_gpu([images[at] for at in fit], transform), strict=True)) if fit else {}
    return [_decode_alone(data, transform, view, budget, done.get(at)) for at, data in enumerate(images)]


def _decode_alone(
    data: bytes, transform: Transform, view: int, budget: Budget, done: Pixels | None
) -> Pixels | Exception:
    try:
        return _decode(data, transform, view, budget) if done is None else done
    except Exception as error:  # noqa: BLE001 - broken pixels raise anything; the caller records or raises it
        return error


def _decode(data: bytes, transform: Transform, view: int, budget: Budget) -> Pixels:
    frame = read_frame(data) if data.startswith(JPEG) else None
    if frame:
        check_jpeg(data, frame, budget)
        if _is_plain(frame):
            with hold_memory(frame.needed, budget):
                picture, smooth = _decode_jpeg(data, frame, transform, budget)
                if picture and smooth and not view and isinstance(picture.stored, np.ndarray):
                    return _resize(picture.stored, transform)
                if picture:
                    return _render(picture, data, transform, view)
    if is_scaled(data):
        with hold_memory(4 * len(data), budget):
            return _render(Picture(read_scaled(data), convert=lambda part: part.convert("RGB")), data, transform, view)
    with open_picture(data, budget) as image, hold_memory(estimate_memory(image, data), budget):
        return _render(load_picture(image, data), data, transform, view)


def _decode_jpeg(data: bytes, frame: Frame, transform: Transform, budget: Budget) -> tuple[Picture | None, bool]:
    """Decode a JPEG of three channels or one; tell whether it lies upright and is to be resized as torch can.

    With the ``scaled`` decoder, at a fraction of its size if it is.
    """
    orientation = 1
    if may_be_turned(data):
        with open_picture(data, budget) as image:
            orientation = read_orientation(image)
    smooth = orientation == 1 and transform.interpolation in _SMOOTH
    scaled = transform.decoder == "scaled" and smooth
    try:
        pixels = decode_jpeg(data, frame, max(transform.resize, *transform.crop) if scaled else None)
    except ModuleNotFoundError:  # Pillow yields the same pixels to 1 level, slower
        if scaled:
            raise
        pixels = None
    picture = None if pixels is None else Picture(pixels, orientation)
    return picture, smooth and transform.decoder != "gpu"


def _is_plain(frame: Frame) -> bool:
    """Tell whether a JPEG has a size that Pillow takes, too."""
    size = frame.height, frame.width
    return 0 < frame.height * frame.width <= (Image.MAX_IMAGE_PIXELS or 0) and max(size) <= LONGEST * min(size)


def _fits_gpu(data: bytes, transform: Transform, budget: Budget) -> bool:
    """Tell whether the GPU decodes an image: an upright JPEG of three channels or one, with all of its data."""
    import simplejpeg

    frame = read_frame(data) if data.startswith(JPEG) and transform.interpolation in _SMOOTH else None
    if frame is None or not _is_plain(frame) or b"\xff\xd9" not in data[-64:]:
        return False
    try:
        check_jpeg(data, frame, budget)
        if simplejpeg.decode_jpeg_header(data)[2] not in ("YCbCr", "RGB", "Gray"):
            return False
        if not may_be_turned(data):
            return True
        with open_picture(data, budget) as image:
            return read_orientation(image) == 1
    except Exception:  # noqa: BLE001 - decoding it alone says what is wrong
        return False


def _render(picture: Picture, data: bytes, transform: Transform, view: int) -> Pixels:
    if view:
        window = draw_window(data, view, picture.size)
        return np.asarray(crop_window(picture, window, transform.crop, _RESAMPLING[transform.interpolation]))
    return np.asarray(_crop(picture, transform))


def _resize(pixels: Pixels, transform: Transform) -> Pixels:
    """Resize and crop, to within 1 level of Pillow's pixels.

    Bilinear uses torch's kernel for bytes, which follows Pillow's with 16-bit coefficients. Its bicubic coefficients,
    some of them negative, would be 2 levels off in one pixel of a million, so Pillow computes the crop's pixels.
    """
    height, width = transform.crop
    size, (top, left) = plan_crop((pixels.shape[0], pixels.shape[1]), transform)
    if transform.interpolation == "bilinear":
        return _interpolate(pixels, size)[top : top + height, left : left + width]
    rows, columns = (side / to for side, to in zip(pixels.shape[:2], size, strict=True))
    how = _RESAMPLING[transform.interpolation]
    narrow = Picture(pixels).narrow(width, how, (left * columns, (left + width) * columns))
    return np.asarray(narrow.resize((width, height), how, (0, top * rows, width, (top + height) * rows)))


def _interpolate(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize like ``torch.nn.functional.interpolate``, which would convert a single image to planar colors."""
    import torch

    if size == pixels.shape[:2]:
        return pixels
    resized: Pixels = np.empty((*size, 3), np.uint8)
    image, into = (torch.from_numpy(each[None]).permute(0, 3, 1, 2) for each in (pixels, resized))  # channels last
    torch.ops.aten._upsample_bilinear2d_aa(image, size, align_corners=False, out=into)  # noqa: SLF001 - no public name
    return resized


def _crop(picture: Picture, transform: Transform) -> Image.Image:
    size = picture.size
    if not transform.squash and max(size) > LONGEST * min(size):  # resized, it would take gigabytes
        raise ValueError(f"{size[0]} x {size[1]}: one side is more than {LONGEST} times the other")
    height, width = transform.crop
    (tall, wide), (top, left) = plan_crop((size[1], size[0]), transform)
    resized = picture.resize((wide, tall), _RESAMPLING[transform.interpolation])
    return resized.crop((left, top, left + width, top + height))
