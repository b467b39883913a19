"""Canaries: probe images that tell, before a run writes, whether this machine still computes a recipe's numbers."""

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

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")
ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half a unit in the last place of each dtype, relative (IEEE 754; bfloat16 has 8 bits of precision)."""
LAYERS = 64
SAFETY = 2.0
SIZES = ((37, 53), (64, 64), (201, 143), (480, 640))
PACE_ROUNDS = 2


def make_probes() -> list[tuple[Probe, bytes]]:
    """Draw eight images of odd sizes: RGB, grey, palette and alpha as PNG, RGB and grey as JPEG."""
    modes = (("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"))
    sizes = tuple(zip(SIZES, modes, strict=True)) + tuple(
        (size, (mode, "JPEG")) for size, mode in zip(SIZES, ("RGB", "L", "RGB", "RGB"), strict=True)
    )
    drawn = [_draw(seed, size, mode, kind) for seed, (size, (mode, kind)) in enumerate(sizes)]
    return [(Probe(name, data), data) for name, data in drawn]


def tolerate(recipe: Recipe) -> float:
    """Predict how far apart the same vector may lie in two sound computations, relative to its length.

    Rounding errors of independent sign grow with the square root of the number of operations behind one another
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 2.8): here the layers. Rounding to the stored
    precision adds one unit, and decoders may differ by 1 level in 255.
    """
    computed = ROUNDOFF[recipe.dtype] * LAYERS**0.5
    return float(SAFETY * (computed + ROUNDOFF[recipe.stored] + 0.5 / 255))


def make_canaries(embedder: Embedder, images: Sequence[tuple[Probe, bytes]]) -> Canaries:
    """Embed probes for a recipe that has none yet, and measure the pace of full batches."""
    vectors = embed_images(embedder, [data for _, data in images])
    finite = [bool(np.isfinite(vector).all()) for vector in vectors]
    probes = tuple(probe for (probe, _), ok in zip(images, finite, strict=True) if ok)
    return Canaries(probes, vectors[finite], tolerate(embedder.recipe), describe(embedder), measure_pace(embedder))


def compare(embedder: Embedder, known: Canaries, images: Sequence[tuple[Probe, bytes]]) -> None:
    """Embed the probes that are at hand again and compare.

    Raises:
        NumbersChangedError: where one lies beyond the tolerance; names what changed.
    """
    rows = {probe.name: index for index, probe in enumerate(known.probes)}
    vectors = embed_images(embedder, [data for _, data in images])
    expected = known.vectors[[rows[probe.name] for probe, _ in images]]
    far = measure_distances(vectors, expected)
    worst = int(np.argmax(far))
    if not far[worst] <= known.tolerance:  # NaN is beyond it, too
        raise NumbersChangedError(
            f"recipe {embedder.recipe.recipe_id}",
            f"gives other vectors here than when it was made: probe {images[worst][0].name} lies {far[worst]:.2g} of "
            f"its length away, {known.tolerance:.2g} is allowed; {_tell_changes(known.made_with, describe(embedder))}",
            "Go back to what it was made with, or embed all anew beside the old with --new-recipe",
        )


def measure_pace(embedder: Embedder) -> float:
    """Give images a second of full batches in all lanes."""
    height, width = embedder.recipe.transform.crop
    round_ = [np.zeros((embedder.batch, height, width, 3), np.uint8)] * embedder.lanes.count
    list(embedder.pool.map(embedder.backbone, round_))  # the first pays for allocations
    began = time.perf_counter()
    list(embedder.pool.map(embedder.backbone, round_ * PACE_ROUNDS))
    return PACE_ROUNDS * len(round_) * embedder.batch / (time.perf_counter() - began)


def describe(embedder: Embedder) -> dict[str, str]:
    """Name what the numbers may depend on: libraries, and the device with its driver."""
    found = {"device": embedder.lanes.device}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "none"
    return found


def _tell_changes(then: dict[str, str], now: dict[str, str]) -> str:
    changed = [
        f"{name} {then.get(name)} -> {now.get(name)}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    return f"since then changed: {', '.join(changed)}" if changed else "no library and no device changed since"


def _draw(seed: int, size: tuple[int, int], mode: str, kind: str) -> tuple[str, bytes]:
    """Draw smooth colours with noise over them."""
    height, width = size
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(rows / (5 + 9 * channel) + columns / 7 + seed) for channel in range(3)]
    pixels = np.stack(waves, axis=2) + random.normal(0, 12, (height, width, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if mode == "RGBA":
        image.putalpha(Image.fromarray((columns * 255 // width).astype(np.uint8)))
    data = io.BytesIO()
    image.convert(mode).save(data, kind)
    return f"{kind.lower()}-{mode.lower()}-{width}x{height}", data.getvalue()
