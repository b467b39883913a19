"""Decoding and resizing on one core, against torchvision's Pillow transform: ``python -m benchmarks.decode``."""

import argparse
import io
from collections.abc import Callable, Sequence

from PIL import Image

from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, time_rate
from benchmarks.networks import NETWORKS, get_weights, make_recipe
from benchmarks.photos import LARGE, SMALL, make_photos
from storage.recipe import Decoder, Transform
from tasks.encoder.pixels.decode import decode

FILES, QUICK_FILES = 300, 60
TARGETS = {SMALL: 1.9, LARGE: 3.0}
BOTH: tuple[Decoder, ...] = ("full", "scaled")


def main() -> None:
    """Measure both sizes with both decoders."""
    parser = make_parser(__doc__)
    parser.add_argument("--generated", action="store_true", help="drawn images, where npm does not give the photos")
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Decode the same bytes, which lie in memory, on both sides; bilinear, as ResNet-50 was trained."""
    import torch

    torch.set_num_threads(1)
    count = QUICK_FILES if options.quick else FILES
    return [
        measure_one(size, decoder, count, options.runs, generated=options.generated)
        for size in TARGETS
        for decoder in BOTH
    ]


def measure_one(size: tuple[int, int], decoder: Decoder, count: int, runs: int, *, generated: bool) -> Ratio:
    """Measure one size with one decoder."""
    files = [path.read_bytes() for path in make_photos(count, size, generated=generated)]
    network = NETWORKS["resnet50"]
    transform = make_recipe(network, get_weights(network), "float32", decoder).transform
    ours, theirs = open_ours(files, transform), open_theirs(files, transform)
    ours(), theirs()
    name = f"{size[0]}x{size[1]}, decoder {decoder}, images/s a core"
    return Ratio(name, compare(runs, ours, theirs), TARGETS[size], "images/s")


def open_ours(files: Sequence[bytes], transform: Transform) -> Callable[[], float]:
    """Give what decodes the files by the engine's code, in one thread."""
    return lambda: time_rate(len(files), lambda: [decode(data, transform) for data in files])


def open_theirs(files: Sequence[bytes], transform: Transform) -> Callable[[], float]:
    """Give what decodes the files by Pillow and torchvision, as far as bytes of the same size, in one thread."""
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(transform.interpolation)
    steps = v2.Compose([v2.Resize(transform.resize, mode), v2.CenterCrop(list(transform.crop)), v2.PILToTensor()])
    return lambda: time_rate(len(files), lambda: [steps(Image.open(io.BytesIO(data)).convert("RGB")) for data in files])


if __name__ == "__main__":
    main()
