"""A run over 1 % new files, against what the run with nothing to do and 1 % of the first one take together.

``python -m benchmarks.increment``. 20,000 photos, whole processes: the first run, then in turns one with nothing to do
and one with 200 more photos. Beside the whole run, which trains the head anew on every image, its steps ingest and
embed are compared by themselves, as the run's own report times them. With ``--quick`` runs share process and server.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import (
    Ratio,
    Run,
    make_parser,
    obey_frostline,
    run_benchmark,
    run_frostline,
)
from benchmarks.photos import make_photos

FILES, QUICK_FILES = 20_000, 100
SHARE = 100
CLASSES = 5
MOST = 1.3
STEPS = ("ingest", "embed")


def main() -> None:
    """Embed a folder, then let it grow."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--crop", type=int, default=224, help="pixels that the backbone sees")
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Run whole processes over a folder that grows by 1 % a turn."""
    files, runs = (QUICK_FILES, 1) if options.quick else (options.files, options.runs)
    more = files // SHARE
    paths = make_photos(files + runs * more)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "photos"
        add(source, paths[:files])
        arguments = ("run", str(source), "--home", f"{folder}/home", "--embed.crop", str(options.crop))
        run = partial(obey_frostline if options.quick else run_frostline, *arguments)
        first = run()
        print(f"first run over {files} files: {first.seconds:.1f} s, of these {first.answer['seconds']}")
        turns = []
        for turn in range(runs):
            idle = run()
            add(source, paths[files + turn * more : files + (turn + 1) * more])
            turns.append((run(), idle))
            print(f"1 %: {turns[-1][0].answer['seconds']}, nothing to do: {idle.answer['seconds']}")
    whole = tuple((run.seconds, idle.seconds + first.seconds / SHARE) for run, idle in turns)
    steps = tuple((sum_steps(run), sum_steps(idle) + sum_steps(first) / SHARE) for run, idle in turns)
    return [
        Ratio(f"1 % of {files:,} new, whole process / idle + 1 %", whole, MOST, "s", at_most=True),
        Ratio(f"1 % of {files:,} new, ingest and embed / idle + 1 %", steps, MOST, "s", at_most=True),
    ]


def add(source: Path, paths: Sequence[Path]) -> None:
    """Link photos into a folder of classes."""
    for path in paths:
        place = source / f"class-{int(path.stem) % CLASSES}" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(path)


def sum_steps(run: Run) -> float:
    """Add up the seconds of ingest and embed."""
    return float(sum(run.answer["seconds"][step] for step in STEPS))


if __name__ == "__main__":
    main()
