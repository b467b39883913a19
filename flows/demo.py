"""The demo: real images that need no download, and three runs with an explanation of each."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from flows.reports.run_lines import describe_accuracy
from flows.reports.run_report import RunReport
from flows.settings import RunSettings
from storage.locations.home import open_home
from tasks.register.settings import resolve_tracking_uri

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

HELD_BACK = 10
STORIES = (
    "Every image goes through the frozen backbone once; a softmax head is trained on the stored vectors.",
    "The same again: nothing changed, so nothing is embedded, trained or registered.",
    f"{HELD_BACK} new images arrive: only they are embedded, and the head is trained again in seconds.",
)


def run_demo(home: Path) -> Iterator[RunReport]:
    """Write the digits as files and run the pipeline on them three times; yields each run's report."""
    from flows.pipeline import pipeline

    demo_home = home / "demo"
    shutil.rmtree(demo_home, ignore_errors=True)
    digits = demo_home / "digits"
    held_back = write_digits(digits)
    _print(f"1,797 scanned digits, as PNG files in a folder per class: {digits}. {HELD_BACK} are held back.")
    for number, story in enumerate(STORIES, 1):
        if number == len(STORIES):
            for path, pixels in held_back:
                write_digit(path, pixels)
        _print(f"\nRun {number}. {story}")
        report = pipeline(RunSettings(source=digits, home=demo_home))
        _print(_summarize(report))
        yield report
    _print(_describe_next_steps(demo_home))


def write_digits(folder: Path) -> list[tuple[Path, Pixels]]:
    """Write scikit-learn's digits as PNG files, a folder per class; returns those that are held back."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).astype(np.uint8)
    rows = [
        (folder / str(label) / f"{number:04}.png", image)
        for number, (label, image) in enumerate(zip(digits.target, pixels, strict=True))
    ]
    for path, image in rows[:-HELD_BACK]:
        write_digit(path, image)
    return rows[-HELD_BACK:]


def write_digit(path: Path, pixels: Pixels) -> None:
    """Write one digit and, if needed, its class folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _print(text: str) -> None:
    """Print to stderr, as stdout is for what ``--json`` prints."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the demo explains itself


def _summarize(report: RunReport) -> str:
    embedded, accuracy = report.embedded, describe_accuracy(report.trained.training.metrics)
    work = f"embedded {embedded.computed} · reused {embedded.reused}"
    return f"  {work} · {report.seconds['total']:.1f} s · test {accuracy}"


def _describe_next_steps(demo_home: Path) -> str:
    bin_folder = Path(sys.executable).parent
    uri = resolve_tracking_uri(open_home(demo_home), RunSettings().registry)
    return f"""
Look around:
  MLflow UI    {bin_folder / "mlflow"} ui --backend-store-uri {uri}   then open http://127.0.0.1:5000
  SQL          {bin_folder / "frostline"} sql --home {demo_home} "select class, count(*) from labels group by class"
  Prefect UI   {bin_folder / "prefect"} server start   then run again with PREFECT_API_URL=http://127.0.0.1:4200/api
"""
