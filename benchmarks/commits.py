"""Commits to a lake of many files: ``python -m benchmarks.commits [--files N] [--runs N] [--quick] [--json]``.

A shard of 64 new images is committed to a lake with 10,000 files of features, then to one with none, in turns.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from storage.attach import open_lake
from storage.features import commit_shard
from storage.lake import Lake
from storage.paths import open_home
from storage.vectors import Shard, write_features

RECIPE, DIM, SHARD, TARGET = "a" * 32, 8, 64, 2.0


def main() -> None:
    """Fill one lake, then time commits to it and to an empty one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="1,000 files, 7 runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files, runs = (1_000, 7) if options.quick else (options.files, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        full, empty = (open_lake(open_home(Path(folder) / name)) for name in ("full", "empty"))
        fill(full, files)
        pairs = [(time_commit(full, files + run), time_commit(empty, files + run)) for run in range(runs + 1)][1:]
    ours, theirs = (median(side) for side in zip(*pairs, strict=True))
    row = {
        "name": f"commit of a shard into a lake of {files} files / into an empty one",
        "ratio": ours / theirs,
        "target": TARGET,
        "holds": ours / theirs <= TARGET,
        "ours": ours,
        "theirs": theirs,
        "unit": "s",
        "n": runs,
    }
    print(json.dumps([row]) if options.json else row)


def write_shard(lake: Lake, number: int) -> str:
    """Write the file of a shard: a range of ids of its own, as runs lease them."""
    image_ids = [f"{number:08x}{row:024x}" for row in range(SHARD)]
    return write_features(lake.home, RECIPE, image_ids, np.full((SHARD, DIM), number, np.float32))


def fill(lake: Lake, files: int) -> None:
    """Add files without looking, a hundred a commit."""
    for start in range(0, files, 100):
        paths = [write_shard(lake, number) for number in range(start, min(files, start + 100))]

        def add(paths: list[str] = paths) -> None:
            for path in paths:
                lake.execute("CALL ducklake_add_data_files('lake', 'features', ?)", [path])

        lake.commit(add)


def time_commit(lake: Lake, number: int) -> float:
    """Time the commit of a shard whose file is written, seconds."""
    shard = Shard(RECIPE, "photos", write_shard(lake, number), (), SHARD, 1.0)
    began = time.perf_counter()
    added = commit_shard(lake, shard, datetime.now(UTC))
    seconds = time.perf_counter() - began
    if added != SHARD:
        raise SystemExit(f"{added} features were added")
    return seconds


if __name__ == "__main__":
    main()
