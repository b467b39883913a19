"""The vectors against float32, eager, by Pillow, on a CPU: ``python -m benchmarks.accuracy``.

Over 463 photos as they come and 37 enlarged ones, through the embedded weights of tf_efficientnet_lite0, or through
other networks, whose weights are random where none are at hand: the lowest cosine, for each dtype; and how often the
product's softmax head, trained on the reference's vectors, decides the same about ours. Classes are kinds of food, by
the first letter of a file's name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.loops import Loop, load_plain, read_pillow
from benchmarks.measure import Ratio, make_parser, run_benchmark
from benchmarks.networks import NETWORKS, Network, get_weights, open_engine
from benchmarks.photos import LARGE, make_photos, open_originals
from storage.recipe import Dtype, Transform
from storage.vectors.feature_file import Matrix
from tasks.encoder.embedder import embed_images
from tasks.heads.heads import Classifier
from tasks.train.fit.candidates import fit_heads
from tasks.train.settings import TrainSettings

NETWORK = "tf_efficientnet_lite0"
PHOTOS, QUICK_PHOTOS = 500, 50
LOWEST: dict[Dtype, float] = {"float32": 0.9999, "bfloat16": 0.998}
AGREEING = 0.995
KINDS = {letter: kind for kind in ("ABGH", "C", "DF", "E", "P") for letter in kind}


def main() -> None:
    """Measure both dtypes; nothing here takes turns, so n is one."""
    parser = make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[NETWORK])
    parser.add_argument("--device", default="auto")
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Take the photos, and compare network by network."""
    originals = open_originals()
    paths = originals + make_photos(PHOTOS - len(originals), LARGE)
    paths = paths[:: PHOTOS // QUICK_PHOTOS] if options.quick else paths
    return [ratio for name in options.networks for ratio in measure_network(name, options.device, paths)]


def measure_network(name: str, device: str, paths: Sequence[Path]) -> list[Ratio]:
    """Compare the engine's vectors, as the lake would have them, with the reference's."""
    network = NETWORKS[name]
    reference = embed_reference(network, paths)
    kinds = np.array([KINDS.get(path.name[0], "") for path in paths])
    head = fit_head(reference[kinds != ""], kinds[kinds != ""])
    ratios = []
    for dtype, lowest in LOWEST.items():
        ours = embed_images(
            open_engine(network, dtype, device, 8, compiled=False), [path.read_bytes() for path in paths]
        )
        cosine, agreeing = find_lowest_cosine(ours, reference), count_agreeing(head, ours, reference)
        ratios.append(
            Ratio(f"{name}, {dtype}: lowest cosine over {len(paths)} photos", ((cosine, 1.0),), lowest, "cosine")
        )
        ratios.append(
            Ratio(
                f"{name}, {dtype}: decisions that agree",
                ((agreeing, len(paths)),),
                AGREEING,
                f"of {len(paths)} decisions",
            )
        )
    return ratios


def embed_reference(network: Network, paths: Sequence[Path]) -> Matrix:
    """Embed by Pillow, in float32, eager, unrounded, on the CPU."""
    weights = get_weights(network)
    transform = Transform(256, (224, 224), False, network.interpolation, network.mean, network.std)  # noqa: FBT003
    plain = load_plain(network.architecture, weights)
    loop = Loop(plain, read_pillow(transform), torch.device("cpu"), 32, 0)
    with torch.inference_mode():
        vectors: Matrix = torch.cat([plain(images) for images in loop.feed(paths)]).numpy()
    return vectors


def fit_head(vectors: Matrix, kinds: np.ndarray) -> Classifier:
    """Train the product's head on two of three rows; the third chooses the strength of L2."""
    validation = np.arange(len(kinds)) % 3 == 2  # noqa: PLR2004 - every third
    train = vectors[~validation], kinds[~validation]
    return fit_heads(train, (vectors[validation], kinds[validation]), TrainSettings())[0].head


def find_lowest_cosine(ours: Matrix, theirs: Matrix) -> float:
    """Find the pair of rows that point apart most."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1, dtype=np.float64) / lengths).min())


def count_agreeing(head: Classifier, ours: Matrix, theirs: Matrix) -> float:
    """Count the rows about which a head decides the same."""
    mine, other = (head.probabilities(vectors).argmax(axis=1) for vectors in (ours, theirs))
    return float((mine == other).sum())


if __name__ == "__main__":
    main()
