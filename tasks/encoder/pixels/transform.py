"""Resizing and cropping, as numbers: what every decoder has in common."""

import numpy as np
import numpy.typing as npt

from storage.recipe import Transform

Pixels = npt.NDArray[np.uint8]


def plan_cut(size: tuple[int, int], transform: Transform) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give (height, width) to resize to, and (top, left) of the cut, rounded as torchvision rounds."""
    height, width = transform.crop
    if transform.squash:
        return transform.crop, (0, 0)
    short = min(size)
    tall, wide = (int(transform.resize * side / short) for side in size)
    return (tall, wide), (round((tall - height) / 2), round((wide - width) / 2))
