"""Reading features: ``python -m benchmarks.reading [--rows N] [--runs N] [--quick] [--json]``.

Features of 512 numbers are read into one matrix for PyTorch, beside ``pyarrow.parquet.read_table`` of the same files.
Then crops of real photographs are embedded by the network that comes with Frostline: what a vector takes on disk, and
how near it is to what the backbone gave.
"""

import argparse
import io
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, time_rate
from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home
from storage.names import SourceName
from storage.recipe import Recipe, Transform
from storage.tables.features import commit_shard
from storage.tables.recipes import save_recipe
from storage.vectors.feature_file import Matrix, Shard, write_features
from storage.vectors.features_reader import find_features

DIM, ROWS_A_FILE = 512, 20_000
TRANSFORM = Transform(8, (8, 8), squash=False, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
RECIPE = Recipe("timm/none", "0" * 64, "avgpool", "average", TRANSFORM, "float32", "float16", (DIM,))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Measure pace, size and nearness."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--photos", type=int, default=400)
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Measure them; with ``--quick``, 100,000 rows and 64 photos."""
    rows, photos = (100_000, 64) if options.quick else (options.rows, options.photos)
    with tempfile.TemporaryDirectory() as folder:
        pace = measure_pace(Path(folder) / "pace", rows, options.runs)
        return [pace, *measure_size(Path(folder) / "size", photos)]


def measure_pace(root: Path, rows: int, runs: int) -> Ratio:
    """Read the same features by the lake and by pyarrow, in turns, the first time of each apart."""
    with open_lake(open_home(root)) as lake:
        save_recipe(lake, {}, RECIPE, NOW)
        for start in range(0, rows, ROWS_A_FILE):
            image_ids = [f"{number:032x}" for number in range(start, start + ROWS_A_FILE)]
            commit(lake, image_ids, make_vectors(start))
        files = [piece.file for piece in find_features(lake, RECIPE.recipe_id).pieces]
        size = rows * DIM * 4 / 1e9
        pairs = compare(
            runs + 1,
            lambda: time_rate(size, lambda: find_features(lake, RECIPE.recipe_id).to_numpy()),
            lambda: time_rate(size, lambda: read_plainly(files)),
        )[1:]
    return Ratio("features -> one matrix / pyarrow read_table to numpy", pairs, 0.9, "GB/s")


def measure_size(root: Path, photos: int) -> list[Ratio]:
    """Embed crops of photographs; compare the file with raw float32, and the vectors with the backbone's."""
    from tasks.embed.find_recipe import resolve
    from tasks.embed.settings import EmbedSettings
    from tasks.encoder.embedder import embed_images
    from tasks.encoder.pack import open_packed, pack_backbone

    home = open_home(root)
    resolved = resolve(home, EmbedSettings())
    recipe = resolved.recipe
    pack_backbone(recipe, resolved.weights, home.backbones / recipe.recipe_id)
    embedder = open_packed(home.backbones / recipe.recipe_id, 32, "auto", compiled=False)
    images = crop_photos(photos)
    kept = embed_images(embedder, images)
    raw = embed_images(replace(embedder, recipe=replace(recipe, stored="float32")), images)
    with open_lake(home) as lake:
        save_recipe(lake, resolved.request, recipe, NOW)
        commit(lake, [f"{number:032x}" for number in range(photos)], kept, recipe)
        features = find_features(lake, recipe.recipe_id)
        read = features.to_numpy().matrix
    size = Path(features.pieces[0].file).stat().st_size / photos
    lengths = np.linalg.norm(read, axis=1) * np.linalg.norm(raw, axis=1)
    cosine = float(((read * raw).sum(axis=1) / lengths).min())
    whole = 4.0 * recipe.dim
    return [
        Ratio("bytes a vector / raw float32", ((size, whole),), 0.5, "bytes", at_most=True),
        Ratio("lowest cosine to what the backbone gave", ((cosine, 1.0),), 0.99999, f"cosine of {photos}"),
    ]


def make_vectors(seed: int) -> Matrix:
    """Make what pooled activations are like: none negative, half of them zero, as precise as float16."""
    normal = np.random.default_rng(seed).standard_normal((ROWS_A_FILE, DIM), np.float32)
    return np.maximum(normal, 0).astype(np.float16).astype(np.float32)


def commit(lake: Lake, image_ids: list[str], vectors: Matrix, recipe: Recipe = RECIPE) -> None:
    """Commit vectors as one file."""
    file = write_features(lake.home, recipe.recipe_id, image_ids, vectors)
    commit_shard(lake, Shard(recipe.recipe_id, SourceName("photos"), file, (), len(image_ids), 1.0), NOW)


def crop_photos(count: int) -> list[bytes]:
    """Cut 256 x 256 JPEGs out of scikit-learn's two photographs, at places drawn from a seed."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    random = np.random.default_rng(0)
    crops = []
    for number in range(count):
        photo = photos[number % len(photos)]
        y, x = (int(random.integers(0, size - 256)) for size in photo.shape[:2])
        file = io.BytesIO()
        Image.fromarray(photo[y : y + 256, x : x + 256]).save(file, "JPEG", quality=92)
        crops.append(file.getvalue())
    return crops


def read_plainly(files: list[str]) -> Matrix:
    """Read the files as pyarrow's documentation has it."""
    vectors = pq.read_table(files, columns=["vector"], partitioning=None)["vector"]
    matrix: Matrix = vectors.combine_chunks().flatten().to_numpy().reshape(len(vectors), -1)
    return matrix


if __name__ == "__main__":
    main()
