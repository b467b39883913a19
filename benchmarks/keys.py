"""Planning over many keys: ``python -m benchmarks.keys [--plot FILE] [--runs N] [--quick] [--json]``.

Lakes of 1, 10 and 50 million images, of which one in a hundred has no feature. A process of its own plans over each
(what is missing, by class and reason) and, in turns, has DuckDB do the bare anti-join of the same keys. ``--plot``
draws seconds and peak memory over the keys.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from storage.attach import open_lake, read_lake
from storage.lake import Lake
from storage.missing import Wanted, explain_missing
from storage.paths import Home, open_home

RECIPE, MILLION = "a" * 32, 1_000_000
SIZES, FEW = (MILLION, 10 * MILLION, 50 * MILLION), (MILLION // 10, MILLION)
LIMIT = 1.5


@dataclass(frozen=True)
class Measured:
    """What planning over so many keys takes, beside the bare anti-join; memory is the planning process's peak."""

    keys: int
    seconds: float
    bare: float
    megabytes: float


def main() -> None:
    """Measure each size, one after the other, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--quick", action="store_true", help="100,000 and 1,000,000 keys, 3 runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--look", type=Path, help="a home to plan over, instead of all this")
    options = parser.parse_args()
    sizes, runs = (FEW, 3) if options.quick else (options.sizes, options.runs)
    if options.look:
        print(json.dumps(asdict(plan(open_home(options.look), sizes[0], runs))))
        return
    measured = [measure(size, runs) for size in sizes]
    if options.plot:
        draw(measured, options.plot)
    found = report(measured, runs)
    if options.json:
        print(json.dumps(found))
        return
    for row in found:
        print(row)


def measure(keys: int, runs: int) -> Measured:
    """Fill a lake, and plan over it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        with open_lake(open_home(Path(folder))) as lake:
            fill(lake, keys)
        command = [sys.executable, "-m", "benchmarks.keys", "--look", folder, "--sizes", str(keys), "--runs", str(runs)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Measured(**json.loads(printed))


def fill(lake: Lake, keys: int) -> None:
    """Give a lake files and features by SQL, a million a commit; ids are hashes."""
    for start in range(0, keys, MILLION):
        numbers = f"(SELECT i, md5(i::VARCHAR)::UUID AS id FROM range({start}, {min(keys, start + MILLION)}) r(i))"

        def write(numbers: str = numbers) -> None:
            lake.execute(f"INSERT INTO files SELECT 'photos', i || '.jpg', 1000, 0, NULL, id FROM {numbers}")
            lake.execute(
                f"INSERT INTO features SELECT '{RECIPE}', id, [0::FLOAT] FROM {numbers} WHERE i % 100 > 0 ORDER BY id"
            )

        lake.commit(write)


def plan(home: Home, keys: int, runs: int) -> Measured:
    """Plan once for the memory, then several times for the seconds, in turns with the bare anti-join."""
    with read_lake(home) as lake:

        def whole() -> int:
            return sum(part.images for part in explain_missing(lake, Wanted(RECIPE, "photos")))

        def bare() -> int:
            anti = "SELECT count(*) FROM files ANTI JOIN features USING (image_id)"
            return int(lake.value(anti))

        if not whole() == bare() == keys // 100:
            raise SystemExit("the plan is wrong")
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pairs = [(stopwatch(whole), stopwatch(bare)) for _ in range(runs)]
    ours, theirs = (median(side) for side in zip(*pairs, strict=True))
    return Measured(keys, ours, theirs, megabytes)


def stopwatch(work: Callable[[], object]) -> float:
    """Time some work, seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report(measured: Sequence[Measured], runs: int) -> list[dict[str, object]]:
    """Give the rows of the answer: beside the bare anti-join at each size, and each size beside the one before."""
    rows = [
        describe(f"plan over {one.keys:,} keys / bare anti-join", one.seconds, one.bare, LIMIT, "s", runs)
        for one in measured
        if one.keys >= MILLION  # below, both are the cost of a statement
    ]
    for few, many in pairwise(measured):
        name = f"a key of {many.keys:,} / a key of {few.keys:,}"
        of_many, of_few = ([1e6 * one.seconds / one.keys, 1e3 * one.megabytes / one.keys] for one in (many, few))
        rows.append(describe(f"seconds of planning, {name}", of_many[0], of_few[0], 1.0, "us", runs))
        rows.append(describe(f"peak memory of planning, {name}", of_many[1], of_few[1], 1.0, "kB", 1))
    return rows


def describe(name: str, ours: float, theirs: float, target: float, unit: str, n: int) -> dict[str, object]:
    """Give a row of the answer, whose ratio is at most its target."""
    row: dict[str, object] = {"name": name, "ratio": ours / theirs, "target": target, "holds": ours / theirs <= target}
    return {**row, "ours": ours, "theirs": theirs, "unit": unit, "n": n}


def draw(measured: Sequence[Measured], file: Path) -> None:
    """Draw seconds and memory over the keys, on logarithmic scales, where linear is a slope of one."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    keys = [one.keys for one in measured]
    left.loglog(keys, [one.seconds for one in measured], "o-", label="plan")
    left.loglog(keys, [one.bare for one in measured], "s--", label="bare anti-join")
    left.loglog(keys, [measured[0].seconds * key / keys[0] for key in keys], ":", color="gray", label="linear")
    left.set(xlabel="images", ylabel="seconds")
    left.legend()
    right.loglog(keys, [one.megabytes for one in measured], "o-")
    right.set(xlabel="images", ylabel="peak memory, MB")
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
