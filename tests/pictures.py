"""Small labelled images, made from a seed."""

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_image(path: Path, color: str, seed: int) -> Path:
    """Write an 8 x 8 PNG of a noisy color; another seed gives other bytes."""
    noise = np.random.default_rng(seed).integers(-25, 25, (8, 8, 3))
    pixels = np.clip(np.array(COLORS[color]) + noise, 1, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_folder(root: Path, per_class: int = 20, colors: tuple[str, ...] = ("red", "green", "blue")) -> Path:
    """Write ``root/<color>/<number>.png``; all bytes differ."""
    for index, color in enumerate(colors):
        for number in range(per_class):
            write_image(root / color / f"{number:03}.png", color, 1000 * index + number)
    return root
