"""JPEG decoded by the GPU's own decoder (nvJPEG, which torchvision carries), a few images at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from storage.recipe import Transform
from tasks.encoder.pixels.transform import Pixels, plan_cut


def decode_on_gpu(images: Sequence[bytes], transform: Transform) -> list[Pixels | None]:
    """Decode, resize and cut JPEGs of three channels or one; None for each that the decoder refuses.

    The resize is antialiased, in float32, rounded to the nearest level. Without a GPU the CPU goes the same way.

    Returns:
        [height, width, 3], uint8, RGB, each.

    Raises:
        torch.OutOfMemoryError: where the device has no room for them.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoded = [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in images]
    try:
        decoded = decode_jpeg(encoded, ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # one of them is broken: each alone, so that none depends on its company
        if len(images) == 1:
            return [None]
        return [decode_on_gpu([data], transform)[0] for data in images]
    cuts: Pixels = torch.stack([_resize(image, transform) for image in decoded]).cpu().numpy()
    return list(cuts)


def _resize(image: torch.Tensor, transform: Transform) -> torch.Tensor:
    """Resize and cut [3, height, width] to [height, width, 3], uint8, on its device."""
    height, width = transform.crop
    size, (top, left) = plan_cut((image.shape[1], image.shape[2]), transform)
    if size != tuple(image.shape[1:]):
        resized = interpolate(image[None].float(), size, mode=transform.interpolation, antialias=True)[0]
        image = resized.round().clamp(0, 255).to(torch.uint8)
    return image[:, top : top + height, left : left + width].permute(1, 2, 0)
