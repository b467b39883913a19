"""The engine against daft and Ray Data: ``python -m benchmarks.others``.

Each embeds the same files through the same network in the same dtype into Parquet, as its own documentation of batch
inference over images has it: a class that loads the network once, called with batches. Each side first goes over a few
files, which pays for its start: processes, imports, the network. Where it starts anew for the real pass, as an actor
pool does, the time until its first batch is taken off. ``--quick`` leaves Ray Data out: its start alone takes longer.
"""

import argparse
import functools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embed import BATCHES, identify, time_engine
from benchmarks.loops import load_plain
from benchmarks.measure import Ratio, interleave, make_parser, run_benchmark
from benchmarks.networks import NETWORKS, get_weights, make_recipe, open_engine
from benchmarks.photos import KEPT, make_photos
from storage.recipe import Dtype
from tasks.encoder.backbone.open_backbone import fast_dtype
from tasks.encoder.embedder import count_cores

NAME = "tf_efficientnet_lite0"
FILES, QUICK_FILES = 1_000, 128
BATCH = 32
MORE = 1.2


class Model:
    """A network with its transform, as both libraries' documentation has it: loaded once, called with a batch."""

    def __init__(self, dtype: Dtype, mark: str) -> None:
        from torchvision.transforms import v2

        network, weights = NETWORKS[NAME], get_weights(NETWORKS[NAME])
        transform = make_recipe(network, weights, dtype).transform
        self.dtype = getattr(torch, dtype)
        self.network = load_plain(network.architecture, weights).to(self.dtype)
        self.mark = Path(mark)
        self.steps = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize(transform.resize, v2.InterpolationMode(transform.interpolation), antialias=True),
                v2.CenterCrop(list(transform.crop)),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(transform.mean), list(transform.std)),
            ]
        )

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Give the vectors of images [height, width, 3]."""
        if not self.mark.exists():
            self.mark.touch()
        batch = torch.stack([self.steps(image) for image in images]).to(self.dtype)
        with torch.inference_mode():
            vectors: np.ndarray = self.network(batch).float().numpy()
        return vectors


class RayModel(Model):
    """As Ray Data calls it."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Put vectors in the images' place."""
        return {"path": batch["path"], "vector": self.embed(list(batch["image"]))}


def main() -> None:
    """Let the three take turns."""
    run_benchmark(make_parser(__doc__), measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Run the sides in turns over the same files."""
    files, runs = (QUICK_FILES, 1) if options.quick else (FILES, options.runs)
    dtype = fast_dtype("cpu")
    paths = make_photos(files)
    embedder, items = open_engine(NETWORKS[NAME], dtype, "cpu", BATCHES["cpu"], compiled=False), identify(paths)
    time_engine(embedder, items[:BATCH])
    sides = {"daft": open_daft(dtype)} | ({} if options.quick else {"ray data": open_ray(dtype)})
    turns = interleave(
        runs,
        lambda: time_engine(embedder, items)[0],
        *(functools.partial(time_other, side, paths) for side in sides.values()),
    )
    return [
        Ratio(f"{NAME} / {name}", tuple((turn[0], turn[1 + place]) for turn in turns), MORE, "images/s")
        for place, name in enumerate(sides)
    ]


def time_other(embed: Callable[[Sequence[Path], str, Path], None], paths: Sequence[Path]) -> float:
    """Embed the files; give images a second from the moment in which the first batch is called."""
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        mark = Path(folder) / "first-batch"
        embed(paths, str(Path(folder) / "vectors"), mark)
        return len(paths) / (time.time() - mark.stat().st_mtime)


def open_daft(dtype: Dtype) -> Callable[[Sequence[Path], str, Path], None]:
    """Embed by daft: download, decode, and a class with a batch method."""
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    import daft
    from daft.functions import decode_image, download

    @daft.cls
    class DaftModel(Model):
        @daft.method.batch(return_dtype=daft.DataType.list(daft.DataType.float32()), batch_size=BATCH)
        def run(self, images: Any) -> list[np.ndarray]:  # noqa: ANN401 - daft.Series, or an expression
            return list(self.embed(images.to_pylist()))

    def embed(paths: Sequence[Path], to: str, mark: Path) -> None:
        model = DaftModel(dtype, str(mark))
        files = daft.from_pydict({"path": [str(path) for path in paths]})
        images = files.with_column("image", decode_image(download(files["path"]), mode="RGB"))
        vectors: Any = model.run(images["image"])  # an expression, as daft wraps it
        images.select(images["path"], vectors.alias("vector")).write_parquet(to)

    return embed


def open_ray(dtype: Dtype) -> Callable[[Sequence[Path], str, Path], None]:
    """Embed by Ray Data: read_images, and map_batches over an actor a core; one more core is told, for the readers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    cores = count_cores()
    ray.init(num_cpus=cores + 1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def embed(paths: Sequence[Path], to: str, mark: Path) -> None:
        images = ray.data.read_images([str(path) for path in paths], mode="RGB", include_paths=True)
        pool = ray.data.ActorPoolStrategy(size=cores)
        made = images.map_batches(
            RayModel, fn_constructor_args=(dtype, str(mark)), batch_size=BATCH, compute=pool, num_cpus=1
        )
        made.write_parquet(to)

    return embed


if __name__ == "__main__":
    main()
