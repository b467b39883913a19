"""Rounds of relabelling and training with the store, against the backbone every time: ``python -m benchmarks.relabel``.

Photos are embedded once into a lake. In each round one in a hundred gets another class and heads of four kinds are
trained and evaluated: with the store by what ``frostline review --apply`` and ``frostline train`` do, without it by
embedding all photos anew, in this process, by the same engine, and training on what that gives. The store's own first
embedding, which is one of the other side's, is in no round. The backbone stays open on both sides.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.increment import add
from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, time_rate
from benchmarks.photos import make_photos
from flows.progress import show_progress
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home, open_home
from storage.names import LabelSetName, SourceName
from storage.queries.image_facts import list_facts
from storage.sources.open_image import folder_source
from storage.tables.features import commit_shard
from storage.tables.missing import FeatureRequest, list_missing
from storage.tables.recipes import save_recipe
from storage.tables.review_labels import save_decisions
from storage.tables.scans import commit_scan
from storage.tables.trainings import list_labelled
from tasks.embed.find_recipe import resolve
from tasks.embed.pipeline import embed_files, embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.embedder import Embedder, count_cores
from tasks.encoder.pack import open_packed, pack_backbone
from tasks.encoder.stages import Meter
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tasks.train.fit.candidates import fit_heads
from tasks.train.measure.evaluate import evaluate
from tasks.train.rows.deal import Placements, deal
from tasks.train.settings import TrainSettings
from tasks.train.train import TrainingData, train_head

FILES, QUICK_FILES = 2_000, 300
ROUNDS, QUICK_ROUNDS = 10, 2
SHARE = 100
CLASSES = tuple(f"class-{number}" for number in range(5))
LESS = 15.0
TRAIN = TrainSettings(heads=("softmax", "ridge", "prototypes", "knn"))


def main() -> None:
    """Relabel and train in turns."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.set_defaults(runs=ROUNDS)
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Fill a lake, then take turns."""
    files, rounds = (QUICK_FILES, QUICK_ROUNDS) if options.quick else (options.files, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        home, source = open_home(Path(folder) / "home"), Path(folder) / "photos"
        add(source, make_photos(files))
        began = time.perf_counter()
        recipe_id, embedder = fill(home, source)
        print(f"first embedding of {files} photos: {time.perf_counter() - began:.1f} s")
        seeds = iter(range(2 * rounds))
        pairs = compare(
            rounds,
            lambda: time_rate(1, partial(train_stored, home, recipe_id, next(seeds))),
            lambda: time_rate(1, partial(train_anew, home, recipe_id, source, embedder, next(seeds))),
        )
    return [
        Ratio(
            f"relabel {files // SHARE} of {files:,}, train 4 kinds: with the store / without", pairs, LESS, "rounds/s"
        )
    ]


def fill(home: Home, source: Path) -> tuple[str, Embedder]:
    """Ingest and embed a folder as a run does, less Prefect."""
    now, resolved = datetime.now(UTC), resolve(home, EmbedSettings())
    recipe = resolved.recipe
    found = scan(home, SourceName(source.name), source, IngestSettings(), show_progress)
    with open_lake(home) as lake:
        commit_scan(lake, found, now)
        save_recipe(lake, resolved.request, recipe, now)
        items = list_missing(lake, FeatureRequest(recipe.recipe_id, SourceName(source.name)), 10**9)
    pack_backbone(recipe, resolved.weights, home.backbones / recipe.recipe_id)
    embedder = open_packed(home.backbones / recipe.recipe_id, None, "auto", compiled=False)
    shard = embed_shard(
        home, folder_source(SourceName(source.name), source), embedder, items, count_cores(), lambda _: None
    )
    with open_lake(home) as lake:
        commit_shard(lake, shard, now)
    return recipe.recipe_id, embedder


def relabel(home: Home, recipe_id: str, seed: int) -> None:
    """Give one image in a hundred another class."""
    with open_lake(home) as lake:
        rows = list_labelled(lake, LabelSetName("photos"), recipe_id)
        drawn = np.random.default_rng(seed).choice(len(rows), len(rows) // SHARE, replace=False)
        decisions = {rows[at][0]: CLASSES[CLASSES.index(rows[at][1]) - 1] for at in drawn}
        save_decisions(lake, LabelSetName("photos"), decisions, f"round-{seed}.csv", datetime.now(UTC))


def train_stored(home: Home, recipe_id: str, seed: int) -> None:
    """Relabel, and train on what the lake holds."""
    relabel(home, recipe_id, seed)
    trained = train_head(home, TrainingData(LabelSetName("photos"), recipe_id), TRAIN, datetime.now(UTC))
    if not trained.new:
        raise SystemExit("a round trained nothing")


def train_anew(home: Home, recipe_id: str, source: Path, embedder: Embedder, seed: int) -> None:
    """Relabel, embed everything again, and train on that."""
    relabel(home, recipe_id, seed)
    with read_lake(home) as lake:
        items = list_missing(lake, FeatureRequest("", SourceName("photos")), 10**9)
        names = dict(list_labelled(lake, LabelSetName("photos"), recipe_id))
        classes = {name: {each: 1 for each in names if names[each] == name} for name in set(names.values())}
        split_of = deal(classes, Placements({}, ()), TRAIN).splits
        tested = [image_id for image_id, _ in items if split_of[image_id] == "test"]
        facts = list_facts(lake, tested)
    parts = list(embed_files(folder_source(SourceName("photos"), source), embedder, items, count_cores(), Meter()))
    matrix = np.concatenate([part.matrix for part in parts])
    image_ids = [image_id for part in parts for image_id in part.image_ids]
    labels, splits = (
        np.array([names[each] for each in image_ids]),
        np.array([split_of[each] for each in image_ids]),
    )
    train, validation, test = (
        (matrix[splits == split], labels[splits == split]) for split in ("train", "validation", "test")
    )
    evaluate(fit_heads(train, validation, TRAIN)[0].head, *test, facts)


if __name__ == "__main__":
    main()
