"""Whole commands over 400 images, against the imports that any such tool pays: ``python -m benchmarks.startup``.

The lake is filled by one run, for real. Then each command takes turns with ``python -c "import duckdb, pyarrow,
pydantic, cyclopts"``; the run with 5 new images writes new ones each time. Serving, too, is a whole process: it loads
the registered model and classifies one image, against ``import torch, mlflow``.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import Ratio, interleave, make_parser, run_benchmark, time_seconds
from benchmarks.noop import home_of, write_images

FILES, QUICK_FILES, NEW = 400, 60, 5
IMPORTS = ("-c", "import duckdb, pyarrow, pydantic, cyclopts")
SERVED_IMPORTS = ("-c", "import torch, mlflow")
SERVE = """
import sys, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/large@champion")
model.predict(pandas.DataFrame({"image": [open(sys.argv[2], "rb").read()]}))
"""
TARGETS = {"nothing to do": 2.5, "status": 1.5, "sql": 1.5, "plan": 1.5, "doctor": 3.0, "5 new": 10.0}


def main() -> None:
    """Fill a lake, then time each command against the imports."""
    run_benchmark(make_parser(__doc__), measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Measure each command in turns with the imports."""
    with _filled(QUICK_FILES if options.quick else FILES) as source:
        runs = 1 if options.quick else options.runs
        ratios = []
        for name, command in _list_commands(source).items():
            command()  # not measured: it reads files into the cache
            turns = interleave(runs, command, partial(_time_python, *IMPORTS))
            pairs = tuple((ours, theirs) for ours, theirs in turns)
            ratios.append(Ratio(f"{name}, whole process / imports", pairs, TARGETS[name], "s", at_most=True))
        turns = interleave(runs, lambda: _serve(source), partial(_time_python, *SERVED_IMPORTS))
        pairs = tuple((ours, theirs) for ours, theirs in turns)
        return [*ratios, Ratio("load a model and classify / import torch, mlflow", pairs, 1.5, "s", at_most=True)]


@contextmanager
def _filled(files: int) -> Iterator[Path]:
    """Yield a source with so many images whose features are stored and whose model is registered."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_images(Path(folder) / "large", files)
        _time_frostline("run", str(source), "--home", str(home_of(source)))
        yield source


def _list_commands(source: Path) -> dict[str, Callable[[], float]]:
    home, numbers = ("--home", str(home_of(source))), itertools.count()
    run = partial(_time_frostline, "run", str(source), *home)

    def run_with_new() -> float:
        for _ in range(NEW):
            number = next(numbers)
            pixels = np.random.default_rng([1, number]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(source / f"class-{number % 2}" / f"new-{number}.png")
        return run()

    return {
        "nothing to do": run,
        "status": partial(_time_frostline, "status", *home),
        "sql": partial(_time_frostline, "sql", "select count(*) from labels", *home),
        "plan": partial(_time_frostline, "plan", str(source), *home),
        "doctor": partial(_time_frostline, "doctor", *home),
        "5 new": run_with_new,
    }


def _time_frostline(*arguments: str) -> float:
    return _time_python("-m", "flows.start", *arguments)


def _serve(source: Path) -> float:
    image = next((source / "class-0").glob("*.png"))
    return _time_python("-c", SERVE, f"sqlite:///{home_of(source)}/mlflow/mlflow.db", str(image))


def _time_python(*arguments: str) -> float:
    command = [sys.executable, *arguments]
    return time_seconds(lambda: subprocess.run(command, capture_output=True, check=True))


if __name__ == "__main__":
    main()
