"""Near-duplicates found and confused, on photos and altered copies of them: ``python -m benchmarks.duplicates``.

A kind of alteration counts as found if 9 of 10 of its copies are. Unrelated are all pairs of different photos, although
some of them show the same food.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.measure import run_figures
from benchmarks.networks import NETWORKS, get_weights, make_recipe
from benchmarks.photos import open_originals
from storage.vectors.feature_file import Matrix
from tasks.encoder.embedder import Embedder, embed_images
from tasks.train.rows.near_duplicates import (
    MIN_CORRELATION,
    MIN_COSINE,
    correlate,
    describe_windows,
    make_thumbnail,
    normalise,
)

QUICK, EVERY = 60, 3
ENOUGH = 0.9


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut out a part, given as shares of the sides."""
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 30": lambda image: image,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "grey": lambda image: image.convert("L"),
    "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "30 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "turned by 3 degrees": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "middle 90 %": lambda image: crop(image, 0.05, 0.05, 0.95, 0.95),
    "middle 80 %": lambda image: crop(image, 0.1, 0.1, 0.9, 0.9),
    "corner of 85 %": lambda image: crop(image, 0, 0, 0.85, 0.85),
    "mirrored": ImageOps.mirror,
}


def main() -> None:
    """Print the share of copies found for each kind, and of unrelated pairs confused."""
    run_figures(__doc__, measure, describe)


def describe(rows: dict[str, float]) -> Iterator[str]:
    """Yield a line for each share, and one that counts the kinds that are found."""
    for name, share in rows.items():
        yield f"{name:28} {share:.5f}"
    yield f"{'kinds found':28} {sum(rows[name] >= ENOUGH for name in ALTERATIONS)} of {len(ALTERATIONS)}"


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Compare each photo with its altered copies, and with all other photos."""
    photos = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in open_originals()]
    photos = photos[:QUICK] if options.quick else photos
    chosen = range(0, len(photos), EVERY)
    files = [encode(photo, 95) for photo in photos]
    altered = {
        name: [encode(alter(photos[at]), 30 if "JPEG" in name else 90) for at in chosen]
        for name, alter in ALTERATIONS.items()
    }
    features = normalise(embed([*files, *(data for copies in altered.values() for data in copies)]))
    looks = [describe_windows(make_thumbnail(data)) for data in files]
    rows, start = {}, len(files)
    for name, copies in altered.items():
        found = [
            is_duplicate(features[at], features[start + number], looks[at], describe_windows(make_thumbnail(data)))
            for number, (at, data) in enumerate(zip(chosen, copies, strict=True))
        ]
        rows[name], start = float(np.mean(found)), start + len(copies)
        print(name, rows[name], file=sys.stderr)
    pairs = list(combinations(range(len(files)), 2))
    confused = sum(is_duplicate(features[one], features[other], looks[one], looks[other]) for one, other in pairs)
    return {**rows, "unrelated pairs confused": confused / len(pairs)}


def is_duplicate(one: Matrix, other: Matrix, look: Matrix, other_look: Matrix) -> bool:
    """Apply the test of splits and reviews to two images."""
    return float(one @ other) >= MIN_COSINE and correlate(look, other_look) >= MIN_CORRELATION


def encode(image: Image.Image, quality: int) -> bytes:
    """Write a JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def embed(images: Sequence[bytes]) -> Matrix:
    """Embed images with the default backbone."""
    from tasks.encoder.backbone.open_backbone import open_backbone

    network = NETWORKS["tf_efficientnet_lite0"]
    weights = get_weights(network)
    recipe = make_recipe(network, weights, "float32")
    backbone, lanes = open_backbone(recipe, weights, "cpu", 32)
    return embed_images(Embedder(recipe, backbone, 32, lanes), images)


if __name__ == "__main__":
    main()
