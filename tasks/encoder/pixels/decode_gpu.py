"""Decoding JPEGs with the GPU's decoder (nvJPEG, which comes with torchvision), several images at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from storage.recipe import Transform
from tasks.encoder.pixels.transform import Pixels, plan_crop


def decode_on_gpu(images: Sequence[bytes], transform: Transform) -> list[Pixels | None]:
    """Decode, resize and crop JPEGs of three channels or one.

    The resize is antialiased, in float32, and rounds to the nearest level. Without a GPU the CPU takes the same steps.

    Returns:
        For each image, [height, width, 3], uint8, RGB, or None if the decoder refuses it.

    Raises:
        torch.OutOfMemoryError: if they do not fit in the device's memory.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoded = [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in images]
    try:
        decoded = decode_jpeg(encoded, ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # one of them is broken: decode each alone, so that none depends on the others
        if len(images) == 1:
            return [None]
        return [decode_on_gpu([data], transform)[0] for data in images]
    crops: Pixels = torch.stack([_resize(image, transform) for image in decoded]).cpu().numpy()
    return list(crops)


def _resize(image: torch.Tensor, transform: Transform) -> torch.Tensor:
    """Resize and crop [3, height, width] to [height, width, 3], uint8, on the same device."""
    height, width = transform.crop
    size, (top, left) = plan_crop((image.shape[1], image.shape[2]), transform)
    if size != tuple(image.shape[1:]):
        resized = interpolate(image[None].float(), size, mode=transform.interpolation, antialias=True)[0]
        image = resized.round().clamp(0, 255).to(torch.uint8)
    return image[:, top : top + height, left : left + width].permute(1, 2, 0)
