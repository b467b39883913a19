"""A review of labels: what a person should look at goes out, decisions come back; needs neither torch nor Prefect."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from flows.progress import show_progress
from flows.settings import restore_train_settings
from storage.errors import ReviewError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName
from storage.sources.copies import find_places
from storage.tables.features import read_features
from storage.tables.review_labels import list_conflicts, save_decisions
from storage.tables.trainings import find_newest, list_labelled
from tasks.train.review.review_table import Entry, read_table, write_sheet, write_table
from tasks.train.review.suspects import Suspect, count_problems, find_suspects
from tasks.train.rows.near_duplicates import compare_files
from tasks.train.settings import TrainSettings

TABLE, SHEET = "review.csv", "review.html"


@dataclass(frozen=True)
class Labelled:
    """Images by their numbers: id, class, and where each lies."""

    image_ids: Sequence[str]
    names: Sequence[str]
    places: Sequence[str | None]


def review(home: Home, label_set: LabelSetName, folder: Path) -> dict[str, Any]:
    """Look for suspects by the features of the newest training, and write table and contact sheet.

    Raises:
        ReviewError: where nothing was trained, there are too few labels, or decisions in the table would be lost.
    """
    with read_lake(home) as lake:
        recipe_id, settings = _find_training(lake, label_set)
        rows = list_labelled(lake, label_set, recipe_id)
        features = read_features(lake, recipe_id, [image_id for image_id, _ in rows])
        conflicts = list_conflicts(lake, label_set)
        asked = [image_id for image_id, _ in (*rows, *conflicts)]
        places = dict(zip(asked, find_places(lake, asked), strict=True))
    ids, names = [image_id for image_id, _ in rows], [label for _, label in rows]
    known = Labelled(ids, names, [places[image_id] for image_id in ids])
    with show_progress("compare", len(ids)) as advance:
        found = find_suspects(features, np.array(names), settings, compare_files(known.places), advance)
    entries = [_enter(known, suspect) for suspect in found]
    entries += [_enter_conflict(image_id, classes, places[image_id]) for image_id, classes in conflicts]
    return {"name": label_set, "images": len(ids), **_write(label_set, entries, folder)}


def apply_decisions(home: Home, label_set: LabelSetName, file: Path) -> dict[str, Any]:
    """Make a person's decisions the labels of their images: a new version of the label set.

    Raises:
        ReviewError: where the table has none, contradicts itself, or names images that are labelled no more.
    """
    decisions = _collect(file)
    with read_lake(home) as lake:
        _find_training(lake, label_set)  # refuses what has several labels an image
    with open_lake(home) as lake:
        changed = save_decisions(lake, label_set, decisions, file.name, datetime.now(UTC))
    with read_lake(home) as lake:
        return {"name": label_set, "decisions": len(decisions), "changed": changed, "snapshot": lake.snapshot}


def _find_training(lake: Lake, label_set: LabelSetName) -> tuple[str, TrainSettings]:
    training = find_newest(lake, label_set)
    if training is None:
        raise ReviewError(
            label_set, "has no trained head in this lake", "Train one: frostline run FOLDER; or check --home"
        )
    settings = restore_train_settings(training.settings)
    if settings.multi_label:
        rule = "was trained with several labels an image, of which a review cannot say which one is wrong"
        raise ReviewError(label_set, rule, "Review another label set")
    return training.recipe_id, settings


def _enter(known: Labelled, suspect: Suspect) -> Entry:
    at, other = suspect.image, suspect.other
    return Entry(
        suspect.problem,
        known.image_ids[at],
        known.places[at] or "",
        known.names[at],
        suspect.suggestion,
        f"{suspect.score:.4f}",
        "" if other is None else known.places[other] or "",
    )


def _enter_conflict(image_id: str, classes: Sequence[str], place: str | None) -> Entry:
    return Entry("conflict", image_id, place or "", " | ".join(classes), "", "", "")


def _write(label_set: LabelSetName, entries: Sequence[Entry], folder: Path) -> dict[str, Any]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_table(entries, folder / TABLE)
        write_sheet(label_set, entries, folder / SHEET)
    except OSError as error:
        remedy = "Name another folder with --folder"
        raise ReviewError(f"folder {folder}", f"cannot be written ({error.strerror})", remedy) from error
    problems = count_problems([entry.problem for entry in entries])
    return {"suspects": problems, "table": str(folder / TABLE), "sheet": str(folder / SHEET)}


def _collect(file: Path) -> dict[str, str]:
    decided = {(entry.image_id, entry.decision) for entry in read_table(file) if entry.decision}
    if not decided:
        raise ReviewError(
            f"table {file}", "has no decision", "Write classes into its column decision, then name it again"
        )
    for image_id, _ in decided:
        _check_id(image_id, file)
    twice = [image_id for image_id, count in Counter(image_id for image_id, _ in decided).items() if count > 1]
    if twice:
        raise ReviewError(f"image {min(twice)}", f"has several decisions in {file}", "Leave one of them")
    return dict(sorted(decided))


def _check_id(image_id: str, file: Path) -> None:
    try:
        UUID(image_id)
    except ValueError as error:
        raise ReviewError(
            f"image {image_id!r} in {file}", "is no image_id", "Leave that column as `frostline review` wrote it"
        ) from error


def describe(found: Mapping[str, Any]) -> list[str]:
    """Tell what a review found, or what became of its decisions."""
    if "decisions" in found:
        lines = [f"decisions {found['decisions']} · labels changed or confirmed {found['changed']}"]
        return [*lines, f"lake      snapshot {found['snapshot']}", "next      frostline run: it computes no feature"]
    suspects = " · ".join(f"{problem} {count}" for problem, count in found["suspects"].items())
    apply = ["frostline", "review", "--name", found["name"], "--apply", found["table"]]
    return [
        f"images    {found['images']}",
        f"suspects  {suspects}",
        f"look      {found['sheet']}",
        f"decide    write classes into {found['table']}, then: {shlex.join(apply)}",
    ]
