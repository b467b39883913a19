"""The demo: real images that need no download, three runs, explained as they go."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from flows.reports.run_report import RunReport, describe_accuracy
from flows.settings import RunSettings
from storage.locations.home import open_home
from tasks.register.settings import tracking_uri

HELD_BACK = 10
STORIES = (
    "Every image goes through the frozen backbone once; a softmax head is trained on the stored vectors.",
    "The same again: nothing changed, so nothing is computed, trained or registered.",
    f"{HELD_BACK} new images arrive: they alone are computed, and the head is trained again in seconds.",
)


def run_demo(home: Path) -> Iterator[RunReport]:
    """Write the digits as files and run the pipeline three times over them; a report each."""
    from flows.pipeline import pipeline

    demo_home = home / "demo"
    shutil.rmtree(demo_home, ignore_errors=True)
    digits = demo_home / "digits"
    held_back = write_digits(digits)
    say(f"1,797 scanned digits lie as PNG files by class in {digits}; {HELD_BACK} are held back.")
    for number, story in enumerate(STORIES, 1):
        if number == len(STORIES):
            for path, pixels in held_back:
                save_digit(path, pixels)
        say(f"\nRun {number}. {story}")
        report = pipeline(RunSettings(source=digits, home=demo_home))
        say(_sum_up(report))
        yield report
    say(_where_to_look(demo_home))


def write_digits(folder: Path) -> list[tuple[Path, "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"]]:
    """Write scikit-learn's digits as PNG files by class; give those that are held back."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).astype(np.uint8)
    rows = [
        (folder / str(label) / f"{number:04}.png", image)
        for number, (label, image) in enumerate(zip(digits.target, pixels, strict=True))
    ]
    for path, image in rows[:-HELD_BACK]:
        save_digit(path, image)
    return rows[-HELD_BACK:]


def save_digit(path: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    """Write one digit, making its class folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def say(text: str) -> None:
    """Tell the user, beside what ``--json`` prints."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal


def _sum_up(report: RunReport) -> str:
    embedded, accuracy = report.embedded, describe_accuracy(report.trained.training.metrics)
    work = f"embedded {embedded.computed} · reused {embedded.reused}"
    return f"  {work} · {report.seconds['total']:.1f} s · test {accuracy}"


def _where_to_look(demo_home: Path) -> str:
    bin_folder = Path(sys.executable).parent
    uri = tracking_uri(open_home(demo_home), RunSettings().registry)
    return f"""
Look around:
  Prefect UI   {bin_folder / "prefect"} server start   then open http://127.0.0.1:4200
  MLflow UI    {bin_folder / "mlflow"} ui --backend-store-uri {uri}   then open http://127.0.0.1:5000
  SQL          {bin_folder / "frostline"} sql --home {demo_home} "select class, count(*) from labels group by class"
"""
