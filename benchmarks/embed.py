"""The engine against the machine's limit and against loops written by hand: ``python -m benchmarks.embed``.

Each turn runs, over the same files: the engine, from files to a Parquet file that is closed and has its name (and,
where DuckDB is installed, on to the commit into a lake); the backbone alone, in the engine's own lanes, on a batch that
lies in memory; reading and decoding alone, by the engine's own readers; an honest loop; the loop that people write,
over a quarter of the files. Loading, exporting, compiling and the start of processes that read are apart, on each side.

Needs torch, torchvision, numpy, pyarrow and Pillow alone; what else is installed is used.
"""

import argparse
import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.measure import Ratio, make_parser, run_benchmark, time_rate
from benchmarks.networks import NETWORKS, Network, get_weights, open_engine
from benchmarks.photos import KEPT, SMALL, make_photos
from storage.locations.home import Home
from storage.locations.path_text import encode_path
from storage.names import SourceName
from storage.recipe import Dtype
from storage.sources.open_image import LocatedImage, Locator, folder_source, hash_image
from storage.vectors.feature_file import Shard
from tasks.embed.pipeline import embed_shard, free_rings
from tasks.embed.read_chunk import Order
from tasks.encoder.embedder import Embedder, count_cores
from tasks.encoder.pixels.decode import decode
from tasks.encoder.runtimes.exported import OPENERS, list_runtimes
from tasks.encoder.runtimes.exported_images import make_lanes
from tasks.encoder.stages import group

BATCHES = {"cpu": 8, "cuda": 256}  # where a lane is fastest: on a core, its layers then fit into the cache
HONEST = {"cpu": 32, "cuda": 256}
IMAGES = {"tf_efficientnet_lite0": 3072, "resnet50": 1024, "vit_b_16": 256}  # half a minute or less on two cores
GPU_IMAGES = 32768  # some seconds: filling the pipeline and emptying it takes tenths
QUICK_IMAGES, QUICK_RUNS = {"cpu": 128, "cuda": 4096}, 3
LONG_NETWORKS, QUICK_NETWORKS = ("resnet50", "tf_efficientnet_lite0"), ("tf_efficientnet_lite0",)
PHOTOS = folder_source(SourceName("photos"), Path("/"))  # the photos are named by absolute paths
OFTEN = 4  # batches a lane, where the backbone runs alone


@dataclass(frozen=True)
class Targets:
    """What the engine must reach: as a share of the limit, times the tuned loop, times the usual one."""

    limit: float
    tuned: float
    usual: float


TARGETS = {
    "float32": Targets(0.93, 2.4, 4.5),  # on AVX2
    "bfloat16": Targets(0.93, 1.5, 6),  # on AVX512-BF16
    "cuda": Targets(0.9, 1.0, 3),
}

Rate = Callable[[], float]
"""Measures one side once: images a second."""


@dataclass(frozen=True)
class Turn:
    """One turn: images a second of each side; ``lake`` is NaN without DuckDB."""

    parquet: float
    lake: float
    forward: float
    decoded: float
    honest: float
    common: float


def main() -> None:
    """Measure the networks one after the other."""
    parser = make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, help="by default as many as take half a minute on two cores")
    parser.add_argument("--generated", action="store_true", help="drawn images, where npm does not give the photos")
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Measure each network that is installed; with ``--quick`` one, not compiled, over few images, in fewer turns."""
    names = options.networks or (QUICK_NETWORKS if options.quick else LONG_NETWORKS)
    there = [name for name in names if NETWORKS[name].is_here]
    for name in set(names) - set(there):
        print(f"{name} is left out: {NETWORKS[name].architecture.partition('/')[0]} is not installed")
    return [ratio for name in there for ratio in measure_network(name, options)]


def measure_network(name: str, options: argparse.Namespace) -> list[Ratio]:
    """Open all sides, run each once, then let them take turns."""
    from tasks.encoder.backbone.open_backbone import fast_dtype, find_device

    device = find_device(options.device)
    kind = device.partition(":")[0]
    many = GPU_IMAGES if kind == "cuda" else IMAGES[name]
    images = options.images or (QUICK_IMAGES[kind] if options.quick else many)
    paths = make_photos(images, SMALL, generated=options.generated)
    dtype = fast_dtype(device)
    embedder = open_faster(NETWORKS[name], dtype, device, paths, compiled=not options.quick)
    items = identify(paths)
    warm_up(embedder, items)
    sides: list[Rate] = [
        functools.partial(time_forward, embedder, paths),
        functools.partial(time_decode, embedder, items),
        *open_loops(name, embedder, device, paths, compiled=not options.quick),
    ]
    print(f"{name}: {dtype} on {embedder.lanes.device}, {len(paths)} files of {SMALL[0]} x {SMALL[1]}")
    for side in sides[:-1]:  # the last is slow, and has nothing to warm up
        side()
    runs = min(options.runs, QUICK_RUNS) if options.quick else options.runs
    turns = list[Turn]()
    for number in range(runs):
        turns.append(Turn(*time_engine(embedder, items), *(side() for side in sides)))
        rates = ", ".join(f"{side} {rate:.0f}" for side, rate in asdict(turns[-1]).items())
        print(f"turn {number + 1} of {runs}, images/s: {rates}")
    return to_ratios(name, turns, TARGETS[dtype if kind == "cpu" else kind])


def open_faster(network: Network, dtype: Dtype, device: str, paths: Sequence[Path], *, compiled: bool) -> Embedder:
    """Open the engine as a long run opens it: in the runtime that turns out to be the fastest."""
    batch = BATCHES[device.partition(":")[0]]
    plain = open_engine(network, dtype, device, batch, compiled=False)
    sides = {"torch": plain, **open_exported(plain)}
    if compiled:
        sides["torch, compiled"] = open_engine(network, dtype, device, batch, compiled=True)
    for _ in range(2):  # the first time fills caches
        paces = {name: time_forward(side, paths) for name, side in sides.items()}
    print(f"{network.architecture}, images/s: {', '.join(f'{name} {pace:.0f}' for name, pace in paces.items())}")
    return sides[max(paces, key=lambda name: paces[name])]


def open_exported(plain: Embedder) -> dict[str, Embedder]:
    """Export the backbone, if it can be, and open it in every installed runtime."""
    if plain.lanes.export is None or importlib.util.find_spec("onnx") is None:
        return {}
    model = KEPT / "weights" / f"{plain.recipe.recipe_id}.onnx"
    if not model.exists():
        plain.lanes.export(model)
    opened = dict[str, Embedder]()
    for runtime in list_runtimes():
        lanes = make_lanes(runtime, plain.batch)
        backbone = OPENERS[runtime](model, lanes.count, count_cores() // lanes.count)
        opened[runtime] = Embedder(plain.recipe, backbone, plain.batch, lanes)
    return opened


def identify(paths: Sequence[Path]) -> list[LocatedImage]:
    """List the files as the engine gets them from a scan."""
    return [LocatedImage(str(hash_image(path.read_bytes())), Locator(encode_path(str(path)))) for path in paths]


def time_engine(embedder: Embedder, items: Sequence[LocatedImage]) -> tuple[float, float]:
    """Embed all items as one shard; give images a second until the Parquet file is closed, and until it is committed.

    Raises:
        SystemExit: where an image failed.
    """
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        home = Home(Path(folder))
        commit = open_commit(home)
        began = time.perf_counter()
        shard = embed_shard(home, PHOTOS, embedder, items, count_cores(), lambda _: None)
        written = time.perf_counter()
        committed = commit(shard)
        seconds = written - began, time.perf_counter() - began
    if shard.failures:
        raise SystemExit(f"{len(shard.failures)} images failed: {shard.failures[0]}")
    return len(items) / seconds[0], len(items) / seconds[1] if committed else float("nan")


def open_commit(home: Home) -> Callable[[Shard], bool]:
    """Make a lake, and give what commits a shard into it; without DuckDB, what does nothing."""
    if importlib.util.find_spec("duckdb") is None:
        return lambda _: False
    from storage.lake.attach import open_lake
    from storage.tables.features import commit_shard

    open_lake(home).close()

    def commit(shard: Shard) -> bool:
        with open_lake(home) as lake:
            return bool(commit_shard(lake, shard, datetime.now(UTC)))

    return commit


def time_forward(embedder: Embedder, paths: Sequence[Path]) -> float:
    """Run the backbone on one batch, again and again, in all of the engine's lanes."""
    batch = np.stack([decode(path.read_bytes(), embedder.recipe.transform) for path in paths[: embedder.batch]])
    work = [batch] * (OFTEN * embedder.lanes.count)
    return time_rate(len(work) * len(batch), lambda: list(embedder.pool.map(embedder.backbone, work)))


def warm_up(embedder: Embedder, items: Sequence[LocatedImage]) -> None:
    """Run the engine once, and wait for the processes that read for it, where there are any."""
    time_engine(embedder, items)
    readers = free_rings(embedder)[-1].readers
    list(readers.pool.map(lambda _: readers.get_process(None), range(readers.count)))


def time_decode(embedder: Embedder, items: Sequence[LocatedImage]) -> float:
    """Read and decode alone, by the engine's readers, into its ring."""
    ring, transform = free_rings(embedder)[-1], embedder.recipe.transform
    places = len(ring.readers.rows) - ring.chunk
    orders = [
        Order(PHOTOS, transform, 0, tuple(some), number * ring.chunk % places, last=True)
        for number, some in enumerate(group(items, ring.chunk))
    ]
    return time_rate(len(items), lambda: list(ring.readers.pool.map(ring.readers.read, orders)))


def open_loops(
    name: str, embedder: Embedder, device: str, paths: Sequence[Path], *, compiled: bool
) -> tuple[Rate, Rate]:
    """Open the honest loop, with the number of workers that suits it best here, and the loop that people write."""
    import torch

    from benchmarks.loops import Loop, load_plain, make_honest, read_fast, read_pillow, run_common

    transform, weights = embedder.recipe.transform, get_weights(NETWORKS[name])
    place, cores, to = torch.device(device), count_cores(), KEPT / "by-hand.parquet"
    network = load_plain(NETWORKS[name].architecture, weights)
    loop = Loop(network, read_fast(transform), place, HONEST[place.type], cores)
    honest = make_honest(loop, transform, getattr(torch, embedder.recipe.dtype), compiled=compiled)
    plain = load_plain(NETWORKS[name].architecture, weights).to(place)
    common = functools.partial(run_common, Loop(plain, read_pillow(transform), place, 32, cores))
    few, workers = paths[: len(paths) // 4], cores
    if place.type == "cpu":  # where workers may cost more than they give
        honest(few, to)
        workers = max((cores, 1), key=lambda count: time_rate(len(few), lambda: honest(few, to, workers=count)))
        print(f"{name}: the honest loop is fastest with {workers} workers")
    return (
        lambda: time_rate(len(paths), lambda: honest(paths, to, workers=workers)),
        lambda: time_rate(len(few), lambda: common(few, to)),
    )


def to_ratios(name: str, turns: Sequence[Turn], targets: Targets) -> list[Ratio]:
    """Set the engine against each of the other sides."""
    kind = "cuda" if targets is TARGETS["cuda"] else "cpu"
    unit = "images/s"
    limits = [
        min(turn.forward, turn.decoded) if kind == "cuda" else 1 / (1 / turn.forward + 1 / turn.decoded)
        for turn in turns
    ]
    decode_bound = kind == "cuda" and sum(turn.decoded < turn.forward for turn in turns) * 2 > len(turns)

    def against(what: str, ours: Sequence[float], theirs: Sequence[float], target: float) -> Ratio:
        return Ratio(f"{name}: {what}", tuple(zip(ours, theirs, strict=True)), target, unit)

    tuned = 1.5 if decode_bound else targets.tuned
    parquet, lake = [turn.parquet for turn in turns], [turn.lake for turn in turns]
    ratios = [
        against("files to Parquet / limit", parquet, limits, targets.limit),
        against("files to Parquet / tuned loop", parquet, [turn.honest for turn in turns], tuned),
        against("files to Parquet / usual loop", parquet, [turn.common for turn in turns], targets.usual),
    ]
    committed = [against("files to lake / limit", lake, limits, targets.limit)] if lake[0] == lake[0] else []
    return ratios + committed


if __name__ == "__main__":
    main()
