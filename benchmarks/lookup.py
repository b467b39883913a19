"""Point look-ups: ``python -m benchmarks.lookup [--rows N] [--runs N] [--quick] [--json]``.

A process of its own looks 1,000 images up among 10 million features of 512 simulated numbers, several times, each time
others. The numbers have few values, so that the lake takes little room; it is removed afterwards.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.measure import Ratio, make_parser, run_benchmark, run_python
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.tables.features import read_features
from storage.vectors.feature_file import write_features

RECIPE, DIM, ROWS_A_FILE, ASKED, FEW = "a" * 32, 512, 20_000, 1_000, 400_000
SECONDS, MEMORY = 2.0, 1_000.0


def main() -> None:
    """Fill a lake, look up in a process of its own, report."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--look", type=Path, metavar="HOME", help="look up in this home and end: what is measured")
    options = parser.parse_args()
    if options.look:
        print(json.dumps(look_up(open_home(options.look), options.rows, options.runs)))
    else:
        run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Set seconds and peak memory beside what they may be."""
    rows = FEW if options.quick else options.rows
    with tempfile.TemporaryDirectory() as folder:
        with open_lake(open_home(Path(folder))) as lake:
            fill(lake, rows)
        sizes = ("--rows", str(rows), "--runs", str(options.runs))
        run = run_python("-m", "benchmarks.lookup", "--look", folder, *sizes)
    seconds = tuple((second, SECONDS) for second in run.answer)
    return [
        Ratio(f"{ASKED:,} of {rows:,} features / 2 s", seconds, 1.0, "s", at_most=True),
        Ratio(f"peak memory of it, {rows:,} features / 1 GB", ((run.peak_mb, MEMORY),), 1.0, "MB", at_most=True),
    ]


def look_up(home: Home, rows: int, runs: int) -> list[float]:
    """Look random images up, each time others; give the seconds of each time."""
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
    return seconds


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


if __name__ == "__main__":
    main()
