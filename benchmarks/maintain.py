"""Reading a lake grown by many tiny runs, after maintenance: ``python -m benchmarks.maintain [--quick] [--json]``.

One lake is grown by tiny commits and maintained; another is written at once. All their vectors are read, in turns.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import numpy as np

from flows.maintain import maintain
from storage.attach import open_lake, read_lake
from storage.features import commit_shard, read_features
from storage.paths import Home, open_home
from storage.vectors import Shard, write_features

RECIPE, DIM, EACH, ROUNDS, TARGET = "r" * 32, 512, 10, 5, 1.3


def main() -> None:
    """Grow, maintain, read and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(100 if options.quick else 2_000)
    if options.json:
        print(json.dumps([result]))
    else:
        print("\n".join(f"{name:8} {value}" for name, value in result.items()))


def measure(runs: int) -> dict[str, Any]:
    """Give the ratio of the times in which both lakes give all their vectors."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        grown, whole = open_home(Path(folder) / "grown"), open_home(Path(folder) / "whole")
        fill(grown, runs, EACH, now)
        fill(whole, 1, runs * EACH, now)
        maintain(grown, timedelta(0), timedelta(0), datetime.now(UTC) + timedelta(days=1))
        pairs = [(read(grown, runs * EACH), read(whole, runs * EACH)) for _ in range(ROUNDS)]
    ours, theirs = (median(times) for times in zip(*pairs, strict=True))
    ratio = median(ours / theirs for ours, theirs in pairs)
    return {
        "name": f"read a lake of {runs} tiny runs, maintained / one written at once",
        "ratio": round(ratio, 3),
        "target": f"<= {TARGET}",
        "holds": ratio <= TARGET,
        "ours": round(ours, 4),
        "theirs": round(theirs, 4),
        "unit": "s",
        "n": runs * EACH,
    }


def fill(home: Home, runs: int, each: int, now: datetime) -> None:
    """Commit so many vectors in each of so many runs."""
    random = np.random.default_rng(0)
    for run in range(runs):
        ids = [str(UUID(int=number)) for number in range(run * each, (run + 1) * each)]
        file = write_features(home, RECIPE, ids, random.random((each, DIM), np.float32).astype(np.float16).astype("f4"))
        with open_lake(home) as lake:
            commit_shard(lake, Shard(RECIPE, "photos", file, (), each, 1.0), now)


def read(home: Home, count: int) -> float:
    """Read all vectors; gives the seconds, opening included."""
    ids = [str(UUID(int=number)) for number in range(count)]
    began = time.perf_counter()
    with read_lake(home) as lake:
        read_features(lake, RECIPE, ids)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
