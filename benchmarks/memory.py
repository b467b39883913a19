"""The engine's peak memory over many images, against over few: ``python -m benchmarks.memory``.

Each size is a process of its own, which embeds 500 x 375 photos in shards, as a run does. The backbone ends behind its
first layer, so that many images take minutes: the same buffers are filled as often, and oftener a second.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from benchmarks.embed import PHOTOS, identify
from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, run_python
from benchmarks.networks import NETWORKS, get_weights, make_recipe
from benchmarks.photos import KEPT, SMALL, make_photos
from storage.locations.home import Home
from tasks.embed.claim import LARGEST
from tasks.embed.pipeline import embed_shard
from tasks.encoder.embedder import Embedder, count_cores
from tasks.encoder.stages import group

FEW, MANY, QUICK_MANY = 1_000, 100_000, 8_000
FILES = 1_000  # distinct ones; more images come by again and again
BATCH = 32
FLAT = 1.1


def main() -> None:
    """Compare the peaks of two sizes; with ``--embed`` be one of the processes."""
    parser = make_parser(__doc__)
    parser.add_argument("--embed", type=int, metavar="IMAGES", help="embed so many and end: what is measured")
    options = parser.parse_args()
    if options.embed:
        print(json.dumps(embed(options.embed)))
    else:
        run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Run both sizes in turns."""
    many, runs = (QUICK_MANY, 1) if options.quick else (MANY, options.runs)
    make_photos(FILES)
    pairs = compare(runs, lambda: measure_peak(many), lambda: measure_peak(FEW))
    return [Ratio(f"peak of {many:,} images / of {FEW:,}", pairs, FLAT, "MB", at_most=True)]


def measure_peak(images: int) -> float:
    """Give the peak of a process that embeds so many images, in MB."""
    return run_python("-m", "benchmarks.memory", "--embed", str(images)).peak_mb


def embed(images: int) -> int:
    """Embed so many images in shards of the largest size; give how many shards they were."""
    from tasks.encoder.backbone.open_backbone import open_backbone

    network = NETWORKS["tf_efficientnet_lite0"]
    weights = get_weights(network)
    recipe = replace(make_recipe(network, weights, "float32"), cut="conv_stem", shape=(32,))
    backbone, lanes = open_backbone(recipe, weights, "cpu", BATCH)
    embedder = Embedder(recipe, backbone, BATCH, lanes)
    shards = list(group(islice(cycle(identify(make_photos(FILES, SMALL))), images), LARGEST))
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        for shard in shards:
            embed_shard(Home(Path(folder)), PHOTOS, embedder, shard, count_cores(), lambda _: None)
    return len(shards)


if __name__ == "__main__":
    main()
