"""Point look-ups: ``python -m benchmarks.lookup [--rows N] [--runs N] [--quick] [--json]``.

A process of its own looks 1,000 images up among 10 million features of 512 simulated numbers, several times, each time
others. The numbers have few values, so that the lake takes little room; it is removed afterwards.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from storage.attach import open_lake, read_lake
from storage.features import read_features
from storage.lake import Lake
from storage.paths import Home, open_home
from storage.vectors import write_features

RECIPE, DIM, ROWS_A_FILE, ASKED = "a" * 32, 512, 20_000, 1_000
SECONDS, MEMORY = 2.0, 1_000.0


def main() -> None:
    """Fill a lake, look up in a process of its own, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="400,000 rows, 3 runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--look", type=Path, help="a home to look up in, instead of all this")
    options = parser.parse_args()
    rows, runs = (400_000, 3) if options.quick else (options.rows, options.runs)
    if options.look:
        print(json.dumps(look_up(open_home(options.look), rows, runs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        with open_lake(open_home(Path(folder))) as lake:
            fill(lake, rows)
        command = [
            sys.executable,
            "-m",
            "benchmarks.lookup",
            "--look",
            folder,
            "--rows",
            str(rows),
            "--runs",
            str(runs),
        ]
        seconds, megabytes = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = [
        describe(f"look-up of {ASKED} among {rows} features", seconds, SECONDS, "s", runs),
        describe(f"peak memory of looking up among {rows} features", megabytes, MEMORY, "MB", runs),
    ]
    if options.json:
        print(json.dumps(found))
        return
    for row in found:
        print(row)


def look_up(home: Home, rows: int, runs: int) -> tuple[float, float]:
    """Look random images up; give the median of the seconds, and the peak of memory, MB."""
    random = np.random.default_rng(1)
    seconds = []
    with read_lake(home) as lake:
        for _ in range(runs):
            image_ids = [name_image(int(number), rows) for number in random.choice(rows, ASKED, replace=False)]
            began = time.perf_counter()
            vectors = read_features(lake, RECIPE, image_ids)
            seconds.append(time.perf_counter() - began)
            if vectors.shape != (ASKED, DIM):
                raise SystemExit(f"{vectors.shape} was read")
    return median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def name_image(number: int, rows: int) -> str:
    """Spread so many ids evenly over all there can be, as hashes are; a shard is a range of them."""
    return f"{number * (2**128 // rows):032x}"


def fill(lake: Lake, rows: int) -> None:
    """Write the features on every core, then add all files in one commit."""
    pool = np.random.default_rng(0).integers(0, 4, (ROWS_A_FILE, DIM)).astype(np.float32)

    def write(start: int) -> str:
        image_ids = [name_image(number, rows) for number in range(start, start + ROWS_A_FILE)]
        return str(write_features(lake.home, RECIPE, image_ids, pool))

    with ThreadPoolExecutor() as threads:
        files = list(threads.map(write, range(0, rows, ROWS_A_FILE)))

    def add() -> None:
        for file in files:
            lake.execute("CALL ducklake_add_data_files('lake', 'features', ?)", [file])

    lake.commit(add)


def describe(name: str, value: float, target: float, unit: str, n: int) -> dict[str, object]:
    """Give a row of the answer: a figure beside what it may be at most."""
    row: dict[str, object] = {"name": name, "ratio": value / target, "target": 1.0, "holds": value <= target}
    return {**row, "ours": value, "theirs": target, "unit": unit, "n": n}


if __name__ == "__main__":
    main()
