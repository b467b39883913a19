"""A run with nothing to do over many files, against a bare scan of them: ``python -m benchmarks.noop``.

Both folders are embedded once, for real, cut behind the first layer, which is quick and costs the later runs the same.
Then, in one process under one Prefect server, runs over the large folder take turns with runs over one of 60 files and
with a bare ``os.scandir`` with ``stat`` of the large one. The difference of the first two is what the files cost. How
long a whole process takes, and how much of it is its start, is printed beside. With ``--quick`` the processes share a
server, too.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import (
    Ratio,
    interleave,
    make_parser,
    run_benchmark,
    run_frostline,
    time_seconds,
)

FILES, QUICK_FILES, SMALL = 100_000, 300, 60
MOST = 2.0
CUT = ("--embed.cut", "conv_stem", "--embed.crop", "32")


def main() -> None:
    """Prepare two sources, then time runs with nothing to do, one beside the other."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    run_benchmark(parser, measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Embed both folders as processes of their own, then look at them again and again in this one."""
    files, runs = (QUICK_FILES, 1) if options.quick else (options.files, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        large, small = write_images(Path(folder) / "large", files), write_images(Path(folder) / "small", SMALL)
        with ThreadPoolExecutor(2 if options.quick else 1) as pool:
            list(pool.map(lambda source: report_whole("first run", source), (large, small)))
        if not options.quick:
            report_whole("nothing to do", small)
            report_whole("nothing to do", large)
        sides = (lambda: time_run(large), lambda: time_run(small), lambda: scan_bare(large))
        if not options.quick:
            interleave(1, *sides)
        turns = interleave(runs, *sides)
    refuse_torch()
    for run, few, bare in turns:
        print(f"large {run:.3f} s, small {few:.3f} s, bare {bare:.3f} s")
    pairs = tuple((run - few, bare) for run, few, bare in turns)
    return [Ratio(f"nothing to do over {files:,} files / bare scan", pairs, MOST, "s", at_most=True)]


def write_images(folder: Path, count: int) -> Path:
    """Write 32 x 32 noise as PNG files in two classes."""

    def write(number: int) -> None:
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class-{number % 2}" / f"{number:06}.png")

    for name in ("class-0", "class-1"):
        (folder / name).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))
    return folder


def home_of(source: Path) -> Path:
    """Name the home of a source."""
    return source.with_suffix(".home")


def report_whole(what: str, source: Path) -> None:
    """Run a whole process over a folder, and print what it took."""
    run = run_frostline("run", str(source), "--home", str(home_of(source)), *CUT)
    print(f"{what} over {source.name}, whole process: {run.seconds:.1f} s, {run.peak_mb:.0f} MB")


def time_run(source: Path) -> float:
    """Run the pipeline over a folder in this process; give its seconds.

    Raises:
        SystemExit: where it did something.
    """
    from flows.pipeline import pipeline
    from flows.settings import RunSettings
    from tasks.embed.settings import EmbedSettings

    settings = RunSettings(source=source, home=home_of(source), embed=EmbedSettings(cut="conv_stem", crop=32))
    began = time.perf_counter()
    report = pipeline(settings)
    seconds = time.perf_counter() - began
    if report.embedded.throughput.images or report.trained.new:
        raise SystemExit("a run with nothing to do did something")
    return seconds


def scan_bare(folder: Path) -> float:
    """Time ``os.scandir`` with ``stat`` over a tree."""
    return time_seconds(lambda: walk_bare(folder))


def walk_bare(folder: Path) -> None:
    """List a tree with each file's size and time, and keep nothing."""
    pending = [str(folder)]
    while pending:
        for entry in os.scandir(pending.pop()):
            entry.stat()
            if entry.is_dir():
                pending.append(entry.path)


def refuse_torch() -> None:
    """Refuse figures of runs that imported torch.

    Raises:
        SystemExit: where it is loaded.
    """
    if "torch" in sys.modules:
        raise SystemExit("a run with nothing to do imported torch")


if __name__ == "__main__":
    main()
