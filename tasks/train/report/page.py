"""An evaluation as one HTML page that needs no other file, and its charts as PNGs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from storage.errors import TrainError
from storage.lake.attach import read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.plural import pluralize
from storage.tables.recipes import get_recipe
from storage.tables.trainings import Training, find_training
from tasks.train.report.gallery import group_mistakes
from tasks.train.report.metrics import describe_calibration, describe_metrics, describe_prices, describe_rejection
from tasks.train.report.mistakes import find_mistakes, predict_test_images
from tasks.train.report.plots import PIXELS_PER_CSS_PIXEL, draw_confusion, draw_reliability
from tasks.train.report.render import render
from tasks.train.report.stored_evaluation import count_images, list_unknown, read_evaluation
from tasks.train.report.thumbnails import to_uri
from tasks.train.report.verdict import gives_several_labels, list_confusions, reach_verdict

MAX_ROWS = 20
"""Rows of a table of slices or confusions."""
MAX_CLASSES = 30
"""Classes in the open; the others fold away."""


@dataclass(frozen=True)
class Page:
    """The page as HTML, and its charts as PNGs by file name."""

    html: str
    charts: dict[str, bytes]


def write_page(home: Home, training_id: str, folder: Path) -> None:
    """Write a training's ``evaluation.html`` and its charts into a folder.

    Raises:
        TrainError: if the lake has no such training, or the home does not have its head.
    """
    page = make_page(home, training_id)
    (folder / "evaluation.html").write_text(page.html, encoding="utf-8")
    for name, chart in page.charts.items():
        (folder / name).write_bytes(chart)


def make_page(home: Home, training_id: str) -> Page:
    """Make a training's page. It shows images that are still in the lake and whose files have not changed.

    Raises:
        TrainError: if the lake has no such training, or the home does not have its head.
    """
    with read_lake(home) as lake:
        training = find_training(lake, training_id)
        if training is None:
            raise TrainError(f"training {training_id}", "is not in this lake", "See `frostline sql 'from heads'`")
        evaluation = read_evaluation(lake, home, training)
        predictions = predict_test_images(lake, home, training)
        mistakes = find_mistakes(lake, predictions)
        groups = group_mistakes(lake, predictions, mistakes)
        facts = _list_facts(lake, training, evaluation)
    charts = {} if gives_several_labels(evaluation) else _draw_charts(evaluation)
    shown = _describe_shown(len(mistakes), int((~predictions.right).sum()))
    rate = cast("float | None", training.settings.get("false_accept"))
    values = list_values(training.label_set, evaluation, charts, rate)
    return Page(
        render("report/templates/evaluation.html.j2", **values, groups=groups, mistakes_shown=shown, facts=facts),
        charts,
    )


def _draw_charts(evaluation: Mapping[str, Any]) -> dict[str, bytes]:
    return {
        "confusion.png": draw_confusion(evaluation["confusion"], [row["class"] for row in evaluation["classes"]]),
        "reliability.png": draw_reliability(evaluation["reliability"]),
    }


def list_values(
    name: str, evaluation: Mapping[str, Any], charts: Mapping[str, bytes], rate: float | None = None
) -> dict[str, object]:
    """List what the template shows of an evaluation; ``rate`` is the false accept rate of its settings."""
    several_labels, metrics = gives_several_labels(evaluation), evaluation["metrics"]
    return {
        "name": name,
        "verdict": reach_verdict(name, evaluation),
        "metrics": metrics,
        "metric_rows": describe_metrics(evaluation),
        "several_labels": several_labels,
        "class_word": "label" if several_labels else "class",
        "class_word_plural": "labels" if several_labels else "classes",
        "classes": sorted(
            evaluation["classes"], key=lambda row: (not row["images"], row["recall"], row["recall_high"])
        ),
        "most_classes": MAX_CLASSES,
        "confusions": list_confusions(evaluation)[:MAX_ROWS],
        "slices": evaluation["slices"][:MAX_ROWS],
        "rejection": describe_rejection(metrics),
        "unknown": list_unknown(evaluation),
        "prices": describe_prices(evaluation, rate),
        "calibration": describe_calibration(evaluation),
        "charts": {file.removesuffix(".png"): _embed_chart(chart) for file, chart in charts.items()},
    }


def _list_facts(lake: Lake, training: Training, evaluation: Mapping[str, Any]) -> list[tuple[str, object]]:
    recipe = get_recipe(lake, training.recipe_id)
    return [
        ("Backbone", f"{recipe.architecture}, cut at {recipe.cut}"),
        ("Images", ", ".join(f"{images:,} {split}" for split, images in count_images(evaluation).items())),
        ("Snapshot", training.snapshot),
        ("Training", training.training_id),
        ("Recipe", training.recipe_id),
    ]


def _describe_shown(shown: int, mistakes: int) -> str:
    if mistakes == 1:
        return "The only mistake"
    if shown == mistakes:
        return f"All {pluralize(mistakes, 'mistake')}, most confident first"
    return f"The {shown} most confident of {pluralize(mistakes, 'mistake')}"


def _embed_chart(chart: bytes) -> dict[str, object]:
    """Return what an ``img`` needs: the data URI and the width in CSS pixels, from the PNG's header."""
    return {"uri": to_uri("png", chart), "width": int.from_bytes(chart[16:20], "big") // PIXELS_PER_CSS_PIXEL}
