"""Erasures that race embedding and maintenance, killed at random: ``python -m tests.faults.erasing [ROUNDS]``.

Whenever an erasure counts as finished, no file of the lake holds an erased image, then and later.
"""

import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pyarrow.parquet as pq

from flows.operations.maintain import maintain
from storage.care.erase import ErasureRequest, count_open, erase, finish
from storage.errors import FrostlineError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.progress import silent
from storage.tables.scans import commit_scan
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.faults.many_runs import embed_missing
from tests.lakes import one_thread
from tests.pictures import write_image

IMAGES, DOOMED, OPERATION_SECONDS = 8, 2, 0.6
Image = tuple[str, str]
"""The id of an image, and its path in the source."""


def race(folder: Path, rounds: int, seed: int = 0) -> int:
    """Run rounds over one lake; returns how many erasures others left to finish.

    Raises:
        AssertionError: if a file holds an erased image although its erasure is finished, or others are lost.
    """
    moments, erased, left = random.Random(seed), list[Image](), 0
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for round_ in range(rounds):
        erased += run_round(processes, folder, round_, moments)
        left += check(folder, erased)
    embed_missing(folder)
    check(folder, erased)
    with read_lake(open_home(folder / "home")) as lake:
        assert lake.value("SELECT count(*) FROM features") == rounds * (IMAGES - DOOMED)
    return left


def run_round(processes: ForkServerContext, folder: Path, round_: int, moments: random.Random) -> list[Image]:
    """Embed twice, maintain and erase at once, and kill up to three of the four; returns the erased images."""
    home = open_home(folder / "home")
    broken, whole = add_images(home, folder, round_)
    with read_lake(home) as lake:
        doomed = moments.sample(list_images(lake, round_), DOOMED)
    operations: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (embed_missing, (folder,)),
        (embed_missing, (folder,)),
        (run_maintenance, (folder,)),
        (run_erasure, (folder, doomed)),
    ]
    started = [start(processes, moments.uniform(0, OPERATION_SECONDS), *operation) for operation in operations]
    for process in moments.sample(started, moments.randrange(4)):
        time.sleep(moments.uniform(0, OPERATION_SECONDS))
        process.kill()
    for process in started:
        process.join()
    if broken.exists():
        broken.write_bytes(whole)
    with read_lake(home) as lake:
        alive = [image for image in list_images(lake, round_) if image in doomed]
    if alive:  # the erasure was killed before its first commit
        run_erasure(folder, alive, 0)
    return doomed


def start(
    processes: ForkServerContext, delay: float, target: Callable[..., None], arguments: tuple[object, ...]
) -> ForkServerProcess:
    process = processes.Process(target=run_later, args=(delay, target, arguments))
    process.start()
    return process


def run_later(delay: float, target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """Run in a process of its own, after a delay."""
    logging.disable()
    time.sleep(delay)
    with one_thread():
        target(*arguments)


def run_maintenance(folder: Path) -> None:
    maintain(open_home(folder / "home"), timedelta(0), timedelta(hours=1), datetime.now(UTC))


def run_erasure(folder: Path, doomed: list[Image], attempts: int = 3) -> None:
    """Delete the images' files, then erase them; finish if runs that held one are done."""
    home = open_home(folder / "home")
    for _, path in doomed:
        (folder / "photos" / path).unlink(missing_ok=True)
    _, left = erase(home, ErasureRequest("images", tuple(image_id for image_id, _ in doomed)), datetime.now(UTC))
    while left and attempts:
        time.sleep(0.2)
        left, attempts = finish(home, datetime.now(UTC)), attempts - 1


def add_images(home: Home, folder: Path, round_: int) -> tuple[Path, bytes]:
    """Add images, and cut one off after it was scanned, so that embedding it fails; returns its file and bytes."""
    for number in range(IMAGES):
        path = write_image(folder / "photos" / "red" / f"{round_:02}-{number:02}.png", "red", round_ * IMAGES + number)
    found = scan(home, SourceName("photos"), folder / "photos", IngestSettings(), silent)
    with open_lake(home) as lake:
        commit_scan(lake, found, datetime.now(UTC))
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    return path, whole


def list_images(lake: Lake, round_: int) -> list[Image]:
    condition = f"path LIKE 'red/{round_:02}-%'"
    return lake.rows(f"SELECT image_id::VARCHAR, path FROM files WHERE {condition} ORDER BY path")


def check(folder: Path, erased: list[Image]) -> int:
    """Finish what is open, now that nobody runs any more, and look for erased images; returns whether any was open."""
    home = open_home(folder / "home")
    with read_lake(home) as lake:
        is_open = count_open(lake)
    if is_open:
        left = finish(home, datetime.now(UTC))
        assert left == 0, f"{left} runs hold erased images, but all are over"
    assert find_traces(home, erased) == []
    return int(is_open > 0)


def find_traces(home: Home, erased: list[Image]) -> list[str]:
    """Find erased images in the decoded columns of every file, and in the catalog."""
    texts = {path: decode(path) for path in home.data.rglob("*") if path.is_file()}
    texts |= {path: path.read_bytes().decode("latin-1") for path in home.root.glob("catalog*")}
    words = [word for image in erased for word in image]
    return [
        f"{path.relative_to(home.root)} has {word}" for path, text in texts.items() for word in words if word in text
    ]


def decode(path: Path) -> str:
    """Write all columns of a Parquet file as text; a file that has no end yet is a trace of everything."""
    try:
        return str(pq.read_table(path, partitioning=None).to_pydict())
    except Exception as error:
        raise AssertionError(f"{path} cannot be read, nobody writes it any more") from error


def main() -> None:
    """Run many rounds, and print how long they took."""
    rounds, began = int(sys.argv[1]) if len(sys.argv) > 1 else 50, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        left = race(Path(folder), rounds)
    print(f"{rounds} rounds in {time.monotonic() - began:.0f} s, {left} erasures finished by the next, no trace left")  # noqa: T201


if __name__ == "__main__":
    try:
        main()
    except FrostlineError as error:
        sys.exit(str(error))
