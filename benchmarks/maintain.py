"""Reading a lake grown by many tiny runs, after maintenance: ``python -m benchmarks.maintain [--quick] [--json]``.

One lake is grown by tiny commits and maintained; another is written at once. All their vectors are read, in turns.
"""

import argparse
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, time_seconds
from flows.operations.maintain import maintain
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.tables.features import commit_shard, read_features
from storage.vectors.feature_file import Shard, write_features

RECIPE, DIM, EACH, TARGET = "r" * 32, 512, 10, 1.3
TINY, FEW = 2_000, 100


def main() -> None:
    """Grow, maintain, read and compare."""
    run_benchmark(make_parser(__doc__), measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Compare the times in which both lakes give all their vectors."""
    tiny, now = FEW if options.quick else TINY, datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        grown, whole = open_home(Path(folder) / "grown"), open_home(Path(folder) / "whole")
        fill(grown, tiny, EACH, now)
        fill(whole, 1, tiny * EACH, now)
        maintain(grown, timedelta(0), timedelta(0), datetime.now(UTC) + timedelta(days=1))
        ids = [str(UUID(int=number)) for number in range(tiny * EACH)]
        pairs = compare(options.runs, lambda: time_read(grown, ids), lambda: time_read(whole, ids))
    name = f"read a lake of {tiny:,} tiny runs, maintained / one written at once"
    return [Ratio(name, pairs, TARGET, "s", at_most=True)]


def fill(home: Home, runs: int, each: int, now: datetime) -> None:
    """Commit so many vectors in each of so many runs."""
    random = np.random.default_rng(0)
    open_lake(home).close()  # files without a catalog would be taken for those of a lost one
    for run in range(runs):
        ids = [str(UUID(int=number)) for number in range(run * each, (run + 1) * each)]
        file = write_features(home, RECIPE, ids, random.random((each, DIM), np.float32).astype(np.float16).astype("f4"))
        with open_lake(home) as lake:
            commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, (), each, 1.0), now)


def time_read(home: Home, ids: list[str]) -> float:
    """Read all vectors; give the seconds, opening included."""

    def read() -> None:
        with read_lake(home) as lake:
            read_features(lake, RECIPE, ids)

    return time_seconds(read)


if __name__ == "__main__":
    main()
