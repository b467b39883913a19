"""Planning over many keys: ``python -m benchmarks.keys [--plot FILE] [--runs N] [--quick] [--json]``.

Lakes of 1, 10 and 50 million images, of which one in a hundred has no feature. A process of its own plans over each
(what is missing, by class and reason) and, in turns, has DuckDB do the bare anti-join of the same keys. ``--plot``
draws seconds and peak memory over the keys.
"""

import argparse
import json
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.measure import Ratio, compare, make_parser, run_benchmark, run_python, time_seconds
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.tables.missing import FeatureRequest, explain_missing

RECIPE, MILLION = "a" * 32, 1_000_000
SIZES, FEW = (MILLION, 10 * MILLION, 50 * MILLION), (MILLION // 10, MILLION)
LIMIT = 1.5


@dataclass(frozen=True)
class Measured:
    """What planning over so many keys takes, in turns with the bare anti-join, and the planning process's peak."""

    keys: int
    pairs: tuple[tuple[float, float], ...]
    megabytes: float

    @property
    def seconds(self) -> float:
        """The plan's seconds."""
        return median(ours for ours, _ in self.pairs)

    @property
    def bare(self) -> float:
        """The bare anti-join's seconds."""
        return median(theirs for _, theirs in self.pairs)


def main() -> None:
    """Measure each size, one after the other, and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--look", type=Path, metavar="HOME", help="plan over this home and end: what is measured")
    options = parser.parse_args()
    if options.look:
        print(json.dumps(asdict(plan(open_home(options.look), options.sizes[0], options.runs))))
    else:
        run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Plan over each size, beside the bare anti-join; draw it where that is asked for."""
    measured = [measure_size(size, options.runs) for size in (FEW if options.quick else options.sizes)]
    if options.plot:
        draw(measured, options.plot)
    return report(measured)


def measure_size(keys: int, runs: int) -> Measured:
    """Fill a lake, and plan over it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        with open_lake(open_home(Path(folder))) as lake:
            fill(lake, keys)
        sizes = ("--sizes", str(keys), "--runs", str(runs))
        return Measured(**run_python("-m", "benchmarks.keys", "--look", folder, *sizes).answer)


def fill(lake: Lake, keys: int) -> None:
    """Give a lake files and features by SQL, a million a commit; ids are hashes."""
    for start in range(0, keys, MILLION):
        numbers = f"(SELECT i, md5(i::VARCHAR)::UUID AS id FROM range({start}, {min(keys, start + MILLION)}) r(i))"

        def write(numbers: str = numbers) -> None:
            columns = "source, path, bytes, mtime_ns, image_id"
            lake.execute(f"INSERT INTO files ({columns}) SELECT 'photos', i || '.jpg', 1000, 0, id FROM {numbers}")
            lake.execute(
                f"INSERT INTO features SELECT '{RECIPE}', id, [0::FLOAT] FROM {numbers} WHERE i % 100 > 0 ORDER BY id"
            )

        lake.commit(write)


def plan(home: Home, keys: int, runs: int) -> Measured:
    """Plan once for the memory, then several times for the seconds, in turns with the bare anti-join."""
    with read_lake(home) as lake:

        def whole() -> int:
            return sum(part.images for part in explain_missing(lake, FeatureRequest(RECIPE, SourceName("photos"))))

        def bare() -> int:
            return int(lake.value("SELECT count(*) FROM files ANTI JOIN features USING (image_id)"))

        right = whole() == keys // 100
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if not right or bare() != keys // 100:
            raise SystemExit("the plan is wrong")
        return Measured(keys, compare(runs, lambda: time_seconds(whole), lambda: time_seconds(bare)), megabytes)


def report(measured: Sequence[Measured]) -> list[Ratio]:
    """Set each size beside the bare anti-join, and what a key takes beside what it takes of the size before."""
    ratios = [
        Ratio(f"plan over {one.keys:,} keys / bare anti-join", one.pairs, LIMIT, "s", at_most=True)
        for one in measured
        if one.keys >= MILLION  # below, both are the cost of a statement
    ]
    for few, many in pairwise(measured):
        name = f"{many.keys // MILLION or 1} / {few.keys / MILLION:g} million keys"
        seconds, memory = (((_per_key(many, of), _per_key(few, of)),) for of in ("seconds", "megabytes"))
        ratios.append(Ratio(f"seconds a million keys, {name}", seconds, 1.0, "s", at_most=True))
        ratios.append(Ratio(f"peak memory a million keys, {name}", memory, 1.0, "MB", at_most=True))
    return ratios


def _per_key(one: Measured, of: str) -> float:
    return float(getattr(one, of)) * MILLION / one.keys


def draw(measured: Sequence[Measured], file: Path) -> None:
    """Draw seconds and memory over the keys, on logarithmic scales, where linear is a slope of one."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    keys = [one.keys for one in measured]
    left.loglog(keys, [one.seconds for one in measured], "o-", label="plan")
    left.loglog(keys, [one.bare for one in measured], "s--", label="bare anti-join")
    left.loglog(keys, [measured[0].seconds * key / keys[0] for key in keys], ":", color="gray", label="linear")
    left.set(xlabel="images", ylabel="seconds")
    left.legend()
    right.loglog(keys, [one.megabytes for one in measured], "o-")
    right.set(xlabel="images", ylabel="peak memory, MB")
    figure.savefig(file, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
