"""Canaries: probe images that show, before a run writes, whether this machine still computes a recipe's numbers."""

import io
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from PIL import Image

from storage.errors import NumbersChangedError
from storage.recipe import Recipe
from storage.tables.canaries import Canaries, Probe
from storage.vectors.feature_file import measure_distances
from tasks.encoder.embedder import Embedder, embed_images
from tasks.encoder.pixels.budget import PROVEN

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")
ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Each dtype's unit roundoff (IEEE 754; bfloat16 has 8 bits of precision)."""
LAYERS = 64
SAFETY_FACTOR = 2.0
SIZES = ((37, 53), (64, 64), (201, 143), (480, 640))
PACE_ROUNDS = 2


def make_probes() -> list[tuple[Probe, bytes]]:
    """Draw eight images of odd sizes: RGB, gray, palette and alpha as PNG, RGB and gray as JPEG."""
    modes = (("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"))
    specs = tuple(zip(SIZES, modes, strict=True)) + tuple(
        (size, (mode, "JPEG")) for size, mode in zip(SIZES, ("RGB", "L", "RGB", "RGB"), strict=True)
    )
    images = [_draw(seed, size, mode, format_) for seed, (size, (mode, format_)) in enumerate(specs)]
    return [(Probe(name, data), data) for name, data in images]


def get_tolerance(recipe: Recipe) -> float:
    """Return how much the same vector may differ between two correct computations, relative to its length.

    Rounding errors of independent sign grow with the square root of the number of consecutive operations, here layers
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 2.8). Rounding to the stored precision adds
    one unit, and decoders may differ by 1 level in 255.
    """
    computed = ROUNDOFF[recipe.dtype] * LAYERS**0.5
    return float(SAFETY_FACTOR * (computed + ROUNDOFF[recipe.stored] + 0.5 / 255))


def make_canaries(embedder: Embedder, images: Sequence[tuple[Probe, bytes]]) -> Canaries:
    """Embed the probes of a recipe that has no canaries yet, and measure the pace of full batches.

    Args:
        embedder: The recipe's embedder.
        images: The probes with their encoded images.
    """
    vectors = embed_images(embedder, [data for _, data in images], budget=PROVEN)
    finite = [bool(np.isfinite(vector).all()) for vector in vectors]
    probes = tuple(probe for (probe, _), ok in zip(images, finite, strict=True) if ok)
    return Canaries(
        probes, vectors[finite], get_tolerance(embedder.recipe), describe_environment(embedder), measure_pace(embedder)
    )


def compare(embedder: Embedder, canaries: Canaries, images: Sequence[tuple[Probe, bytes]]) -> None:
    """Embed the available probes again and compare their vectors with the recorded ones.

    Raises:
        NumbersChangedError: if a vector differs by more than the tolerance; its message names what changed.
    """
    rows = {probe.name: index for index, probe in enumerate(canaries.probes)}
    vectors = embed_images(embedder, [data for _, data in images], budget=PROVEN)
    expected = canaries.vectors[[rows[probe.name] for probe, _ in images]]
    distances = measure_distances(vectors, expected)
    worst = int(np.argmax(distances))
    if not distances[worst] <= canaries.tolerance:  # also true for NaN
        changes = _describe_changes(canaries.made_with, describe_environment(embedder))
        raise NumbersChangedError(
            f"recipe {embedder.recipe.recipe_id}",
            f"yields other vectors here than when it was made: probe {images[worst][0].name} differs by "
            f"{distances[worst]:.2g} of its length, {canaries.tolerance:.2g} is allowed; {changes}",
            "Restore what it was made with, or embed everything again under a new recipe with --new-recipe",
        )


def measure_pace(embedder: Embedder) -> float:
    """Return images per second for full batches in all lanes."""
    height, width = embedder.recipe.transform.crop
    round_ = [np.zeros((embedder.batch, height, width, 3), np.uint8)] * embedder.lanes.count
    list(embedder.pool.map(embedder.backbone, round_))  # not timed: it allocates memory
    began = time.perf_counter()
    list(embedder.pool.map(embedder.backbone, round_ * PACE_ROUNDS))
    return PACE_ROUNDS * len(round_) * embedder.batch / (time.perf_counter() - began)


def describe_environment(embedder: Embedder) -> dict[str, str]:
    """Return the versions of everything that the numbers may depend on: libraries, and the device with its driver."""
    versions = {"device": embedder.lanes.device}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "none"
    return versions


def _describe_changes(before: dict[str, str], after: dict[str, str]) -> str:
    changed = [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return f"changed since then: {', '.join(changed)}" if changed else "no library or device has changed since then"


def _draw(seed: int, size: tuple[int, int], mode: str, format_: str) -> tuple[str, bytes]:
    """Draw smooth colors with noise; return the image's name and its encoded bytes."""
    height, width = size
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(rows / (5 + 9 * channel) + columns / 7 + seed) for channel in range(3)]
    pixels = np.stack(waves, axis=2) + random.normal(0, 12, (height, width, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if mode == "RGBA":
        image.putalpha(Image.fromarray((columns * 255 // width).astype(np.uint8)))
    data = io.BytesIO()
    image.convert(mode).save(data, format_)
    return f"{format_.lower()}-{mode.lower()}-{width}x{height}", data.getvalue()
