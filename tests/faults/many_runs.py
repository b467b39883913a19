"""Many concurrent runs, some killed: ``python -m tests.faults.many_runs 50``; a few rounds are part of the suite."""

import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.progress import silent
from storage.sources.open_image import folder_source
from storage.tables.features import commit_shard, read_features
from storage.tables.leases import list_holders
from storage.tables.missing import FIRST_ID, Counts, FeatureRequest, count_images
from storage.tables.scans import commit_scan
from tasks.embed.claim import claim, release_on_error
from tasks.embed.pipeline import embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.encoder.embedder import Embedder
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.counting import Tally, decide_recipe
from tests.lakes import one_thread
from tests.pictures import write_image

RUNS, KILLS, IMAGES, SHARD = 4, 2, 12, 4
RECIPE = decide_recipe(EmbedSettings(), Weights(Path("none"), "none"))
WANTED = FeatureRequest(RECIPE.recipe_id, SourceName("photos"))


def embed_missing(folder: Path) -> None:
    """Do what an embed run does, less Prefect: claim, embed, commit, until nothing is missing."""
    home, tally = open_home(folder / "home"), Tally(folder / "calls", 0.01)
    source = folder_source(SourceName("photos"), folder / "photos")
    embedder, after = Embedder(RECIPE, tally.embed, 2), FIRST_ID
    wanted = replace(WANTED, since=datetime.now(UTC))
    with one_thread(), release_on_error(home) as holder:
        while lease := claim(home, wanted, SHARD, holder, after):
            shard = embed_shard(home, source, embedder, lease.items, 1, lambda _: None)
            with open_lake(home) as lake:
                commit_shard(lake, shard, datetime.now(UTC), holder)
            after, _ = lease.items[-1]


def add_images(home: Home, folder: Path, round_: int) -> None:
    for number in range(IMAGES):
        write_image(folder / "photos" / "red" / f"{round_:02}-{number:02}.png", "red", round_ * IMAGES + number)
    found = scan(home, SourceName("photos"), folder / "photos", IngestSettings(), silent)
    with open_lake(home) as lake:
        commit_scan(lake, found, datetime.now(UTC))


def count_rows(lake: Lake) -> tuple[int, int]:
    rows, images = lake.rows("SELECT count(*), count(DISTINCT image_id) FROM features")[0]
    return rows, images


def watch(home: Home, runs: list[ForkServerProcess]) -> None:
    """Read as a training run does, until the runs are over: at every moment each image has one whole vector."""
    while any(run.is_alive() for run in runs):
        with read_lake(home) as lake:
            at = lake.snapshot
        with read_lake(home, at) as lake:
            rows, images = count_rows(lake)
            assert rows == images
            ids = [str(image_id) for (image_id,) in lake.rows("SELECT image_id FROM features")]
            assert len(read_features(lake, RECIPE.recipe_id, ids)) == rows
        wait_for(runs, 0.5)


def wait_for(runs: list[ForkServerProcess], seconds: float) -> None:
    """Wait until all runs are over, at most so many seconds."""
    end = time.monotonic() + seconds
    for run in runs:
        run.join(max(0, end - time.monotonic()))


def race(folder: Path, rounds: int) -> None:
    """Start four runs a round and kill two of them; the others finish, with nothing lost or twice."""
    home, moments = open_home(folder / "home"), random.Random(0)
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for round_ in range(rounds):
        add_images(home, folder, round_)
        runs = [processes.Process(target=embed_missing, args=(folder,)) for _ in range(RUNS)]
        for run in runs:
            run.start()
        for run in moments.sample(runs, KILLS):
            time.sleep(moments.uniform(0, 0.5))
            run.kill()
        watch(home, runs)
        ends = sorted(run.exitcode or 0 for run in runs)
        assert set(ends) <= {0, -signal.SIGKILL}, ends
        assert ends.count(0) >= RUNS - KILLS
        with read_lake(home) as lake:
            assert count_rows(lake) == ((round_ + 1) * IMAGES, (round_ + 1) * IMAGES)
            assert count_images(lake, WANTED) == Counts(0, (round_ + 1) * IMAGES)
            assert list_holders(lake, RECIPE.recipe_id, datetime.now(UTC)) == []
    # A killed run costs the shard that it held; no living one computed what another held.
    assert Tally(folder / "calls").images <= rounds * (IMAGES + KILLS * SHARD)


def main() -> None:
    """Run many rounds, and print how long they took."""
    rounds, began = int(sys.argv[1]) if len(sys.argv) > 1 else 5, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        race(Path(folder), rounds)
    print(f"{rounds} rounds of {RUNS} runs in {time.monotonic() - began:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
