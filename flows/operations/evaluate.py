"""What a trained head is worth: a look at what was measured, for people; needs neither torch nor Prefect."""

from dataclasses import asdict
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
from tasks.train.report.recorded import find_mistakes, list_classes, list_figures, list_unknown, read_evaluation

TITLE = "on test images, with 95 % intervals"
SHOWN = 10
"""Slices and mistakes that are shown; --json has all."""


def evaluate_head(home: Home, label_set: LabelSetName, model: ModelName, version: int | None) -> dict[str, Any]:
    """Read what was measured of the head that was trained last, or of a registered version's.

    Raises:
        TrainError: where there is none, or its head lies in another home.
    """
    with read_lake(home) as lake:
        training = _find(lake, label_set, model, version)
        found = read_evaluation(lake, home, training)
        mistakes = [asdict(mistake) for mistake in find_mistakes(lake, home, training)]
    known = {"training": training.training_id, "recipe": training.recipe_id, "snapshot": training.snapshot}
    return {"name": label_set, **known, **found, "mistakes": mistakes}


def write_html(home: Home, training_id: str, file: Path) -> None:
    """Write the page of a training.

    Raises:
        ExportError: where the file cannot be written.
    """
    from tasks.train.report.page import make_page

    text = make_page(home, training_id).html
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"page {file}", f"cannot be written ({error.strerror})", "Name another file") from error


def describe(found: dict[str, Any]) -> list[Any]:
    """Tell the figures, the worst slices, the classes and the surest mistakes as tables."""
    ends = ("from", "to")
    columns, classes = list_classes(found)
    lines = [
        f"training  {found['training']} · recipe {found['recipe'][:12]} · snapshot {found['snapshot']}",
        *build_table(("figure", "value", *ends), [*map(_say, list_figures(found["metrics"]))], title=TITLE),
        *build_table(columns, [*map(_say, classes)]),
    ]
    if "refuse_below" in found["metrics"]:
        lines.append(f"neither   where no class has a probability of {found['metrics']['refuse_below']:.4f}")
        lines += build_table(
            ("class", "images", "accepted", *ends), [*map(_say, list_unknown(found))], "unknown classes"
        )
    slices, mistakes = ([row.values() for row in found[key][:SHOWN]] for key in ("slices", "mistakes"))
    if slices:
        lines += build_table(("slice", "value", "images", "accuracy", *ends), [*map(_say, slices)], "worst slices")
    if mistakes:
        shown = ("image", "class", "taken for", "probability", "file")
        lines += build_table(shown, [*map(_say, mistakes)], "surest mistakes")
    return lines


def _say(cells: Any) -> list[object]:  # noqa: ANN401 - cells of any type
    return [f"{cell:.4f}" if isinstance(cell, float) else cell for cell in cells]


def _find(lake: Lake, label_set: LabelSetName, model: ModelName, version: int | None) -> Training:
    training = find_newest(lake, label_set) if version is None else find_registered(lake, model, version)
    if training is None:
        what = label_set if version is None else f"{model} version {version}"
        raise TrainError(what, "has no trained head in this lake", "Train one: frostline run FOLDER; or check --home")
    return training
