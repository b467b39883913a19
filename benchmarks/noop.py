"""A run with nothing to do over many files: ``python -m benchmarks.noop [--files N] [--runs N] [--quick] [--json]``.

The files are embedded once, for real; then whole processes with nothing to do are timed, each beside one over a folder
of 60 files, which is what starting Python, Prefect and MLflow costs, and beside a bare ``os.scandir`` with ``stat``.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.measure import Run, describe_machine, middle, print_table, run_frostline

SMALL = 60
CROP = 64  # what nothing to do costs does not depend on it, and the first run ends sooner


def main() -> None:
    """Prepare two sources, then time runs with nothing to do, one beside the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="400 files, 1 run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files, runs = (400, 1) if options.quick else (options.files, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        large, small = write_images(Path(folder) / "large", files, 10), write_images(Path(folder) / "small", SMALL, 2)
        first = run_over(large)
        run_over(small)
        pairs = [(run_over(large), run_over(small), scan_bare(large)) for _ in range(runs)]
    report(files, first, pairs, as_json=options.json)


def write_images(folder: Path, count: int, classes: int) -> Path:
    """Write 32 x 32 noise as PNG files in so many classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class-{number % classes}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder


def run_over(folder: Path) -> Run:
    """Run the pipeline over a folder, with a home beside it."""
    return run_frostline("run", str(folder), "--home", str(folder.with_suffix(".home")), "--embed.crop", str(CROP))


def scan_bare(folder: Path) -> float:
    """Time ``os.scandir`` with ``stat`` over a tree, seconds."""
    began = time.perf_counter()
    pending = [str(folder)]
    while pending:
        for entry in os.scandir(pending.pop()):
            entry.stat()
            if entry.is_dir():
                pending.append(entry.path)
    return time.perf_counter() - began


def report(files: int, first: Run, pairs: list[tuple[Run, Run, float]], *, as_json: bool) -> None:
    """Print what was measured."""
    if any(run.answer["backbone_calls"] or run.answer["trained"] for run, _, _ in pairs):
        raise SystemExit("a run with nothing to do did something")
    rows = {
        f"first run over {files} files, s": [first.seconds],
        f"first run over {files} files, peak MB": [first.peak_mb],
        f"nothing to do over {files} files, s": [run.seconds for run, _, _ in pairs],
        f"nothing to do over {files} files, peak MB": [run.peak_mb for run, _, _ in pairs],
        f"nothing to do over {SMALL} files, s": [run.seconds for _, run, _ in pairs],
        f"bare scandir and stat of {files} files, s": [bare for _, _, bare in pairs],
        "difference / bare, ratio": [median([(run.seconds - few.seconds) / bare for run, few, bare in pairs])],
    }
    if as_json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))
    else:
        print_table([(name, middle(values)) for name, values in rows.items()])


if __name__ == "__main__":
    main()
