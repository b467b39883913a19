"""Commits to a lake of many files: ``python -m benchmarks.commits [--files N] [--runs N] [--quick] [--json]``.

A shard of 64 new images is committed as a run does it, which ends its lease, to a lake with 10,000 files of features,
then to one with none, in turns. Its range of ids lies among those of the other files.
"""

import argparse
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, time_seconds
from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home
from storage.names import SourceName
from storage.tables.features import commit_shard
from storage.tables.leases import name_holder
from storage.vectors.feature_file import Shard, write_features

RECIPE, DIM, SHARD, FEW, TARGET = "a" * 32, 8, 64, 1_000, 2.0


def main() -> None:
    """Fill one lake, then time commits to it and to an empty one."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Commit to both lakes, the first time of each apart."""
    files = FEW if options.quick else options.files
    with tempfile.TemporaryDirectory() as folder:
        full, empty = (open_lake(open_home(Path(folder) / name)) for name in ("full", "empty"))
        fill(full, files)
        numbers = iter(range(files, files + 2 * (options.runs + 1)))
        sides = [lambda lake=lake: time_commit(lake, next(numbers)) for lake in (full, empty)]
        pairs = compare(options.runs + 1, *sides)[1:]
    return [Ratio(f"commit into a lake of {files:,} files / into an empty one", pairs, TARGET, "s", at_most=True)]


def write_shard(lake: Lake, number: int) -> str:
    """Write the file of a shard: a range of ids of its own, as runs lease them."""
    return write_features(lake.home, RECIPE, name_images(number), np.full((SHARD, DIM), number, np.float32))


def name_images(number: int) -> list[str]:
    """Name the images of a shard: shards lie in no order among each other (the multiplier is odd: none meet)."""
    first = number * 0x9E3779B1 % 2**32
    return [f"{first:08x}{row:024x}" for row in range(SHARD)]


def fill(lake: Lake, files: int) -> None:
    """Add files without looking, a hundred a commit."""
    for start in range(0, files, 100):
        paths = [write_shard(lake, number) for number in range(start, min(files, start + 100))]

        def add(paths: list[str] = paths) -> None:
            for path in paths:
                lake.execute("CALL ducklake_add_data_files('lake', 'features', ?)", [path])

        lake.commit(add)


def time_commit(lake: Lake, number: int) -> float:
    """Time the commit of a shard that is leased and whose file is written, seconds."""
    now, holder, image_ids = datetime.now(UTC), name_holder(), name_images(number)
    lease = [RECIPE, image_ids[0], image_ids[-1], holder, now + timedelta(hours=1)]
    lake.commit(lambda: lake.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, NULL)", lease))
    shard = Shard(RECIPE, SourceName("photos"), write_shard(lake, number), (), SHARD, 1.0)
    added: list[int] = []
    seconds = time_seconds(lambda: added.append(commit_shard(lake, shard, now, holder)))
    if added != [SHARD]:
        raise SystemExit(f"{added} features were added")
    return seconds


if __name__ == "__main__":
    main()
