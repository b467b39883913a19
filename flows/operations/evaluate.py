"""Show how good a trained head is, from its stored evaluation; needs neither torch nor Prefect."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flows.reports.output import build_table
from storage.errors import ExportError, TrainError
from storage.lake.attach import read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName, ModelName
from storage.tables.models import find_registered
from storage.tables.trainings import Training, find_newest
from tasks.train.report.metrics import describe_rejection, list_metrics
from tasks.train.report.mistakes import find_mistakes, predict_test_images
from tasks.train.report.stored_evaluation import list_classes, list_unknown, read_evaluation
from tasks.train.report.verdict import reach_verdict

TITLE = "on test images, with 95 % intervals"
ENDS = ("from", "to")
MAX_ROWS = 10
"""Slices and mistakes that the terminal shows; --json has all."""


def evaluate_head(home: Home, label_set: LabelSetName, model: ModelName, version: int | None) -> dict[str, Any]:
    """Read the evaluation of a registered version, or of the newest head if ``version`` is None.

    Raises:
        TrainError: if there is no such head, or it is stored in another home.
    """
    with read_lake(home) as lake:
        training = _find_training(lake, label_set, model, version)
        evaluation = read_evaluation(lake, home, training)
        mistakes = find_mistakes(lake, predict_test_images(lake, home, training))
    return {
        "name": label_set,
        "training": training.training_id,
        "recipe": training.recipe_id,
        "snapshot": training.snapshot,
        **evaluation,
        "mistakes": [mistake.to_json() for mistake in mistakes],
    }


def _find_training(lake: Lake, label_set: LabelSetName, model: ModelName, version: int | None) -> Training:
    training = find_newest(lake, label_set) if version is None else find_registered(lake, model, version)
    if training is None:
        what = label_set if version is None else f"{model} version {version}"
        raise TrainError(what, "has no trained head in this lake", "Train one: frostline run FOLDER; or check --home")
    return training


def write_html(home: Home, training_id: str, file: Path) -> None:
    """Write a training's evaluation page.

    Raises:
        ExportError: if the file cannot be written.
    """
    from tasks.train.report.page import make_page

    html = make_page(home, training_id).html
    try:
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"page {file}", f"cannot be written ({error.strerror})", "Name another file") from error


def describe(found: Mapping[str, Any]) -> list[Any]:
    """Describe an evaluation for the terminal: the verdict, then tables."""
    columns, classes = list_classes(found)
    return [
        f"training  {found['training']} · recipe {found['recipe'][:12]} · snapshot {found['snapshot']}",
        *_describe_verdict(found),
        *_table(("metric", "value", *ENDS), list_metrics(found["metrics"]), TITLE),
        *_table(columns, classes),
        *_describe_unknown(found),
        *_table(
            ("slice", "value", "images", "accuracy", *ENDS),
            [row.values() for row in found["slices"][:MAX_ROWS]],
            "worst slices",
        ),
        *_table(
            ("image", "class", "predicted", "probability", "file"),
            [row.values() for row in found["mistakes"][:MAX_ROWS]],
            "most confident mistakes",
        ),
    ]


def _describe_verdict(found: Mapping[str, Any]) -> list[str]:
    verdict = reach_verdict(found["name"], found)
    lines = [verdict.summary, verdict.basis, *filter(None, [verdict.weakest_class])]
    titles = ("verdict", *[""] * len(lines))
    steps = ("next", *[""] * len(verdict.next_steps))
    return [
        *(f"{title:9} {line}" for title, line in zip(titles, lines, strict=False)),
        *(f"{title:9} {step}" for title, step in zip(steps, verdict.next_steps, strict=False)),
    ]


def _describe_unknown(found: Mapping[str, Any]) -> list[Any]:
    if "refuse_below" not in found["metrics"]:
        return []
    rows = [row.values() for row in list_unknown(found)]
    line = f"neither   {describe_rejection(found['metrics'])}"
    prices = [row.values() for row in found.get("prices", ())]  # earlier releases have none
    return [
        line,
        *_table(("class", "images", "accepted", *ENDS), rows, "unknown classes"),
        *_table(("false accept", "refused"), prices, "what other rates would refuse of known classes (validation)"),
    ]


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str | None = None) -> list[Any]:
    """Draw a table, or nothing if it has no rows."""
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    return build_table(list(columns), cells, title) if cells else []
