"""The geometry of resizing and cropping, which all decoders share."""

import numpy as np
import numpy.typing as npt

from storage.recipe import Transform

Pixels = npt.NDArray[np.uint8]


def plan_crop(size: tuple[int, int], transform: Transform) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (height, width) to resize an image to, and the crop's (top, left), in pixels, rounded like torchvision."""
    crop_height, crop_width = transform.crop
    if transform.squash:
        return transform.crop, (0, 0)
    short = min(size)
    height, width = (int(transform.resize * side / short) for side in size)
    return (height, width), (round((height - crop_height) / 2), round((width - crop_width) / 2))
