"""Review labels: write out the images to check, and apply decisions; needs neither torch nor Prefect."""

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
from storage.sources.copies import ImageCopy, choose_copies
from storage.tables.features import read_features
from storage.tables.review_labels import list_conflicts, save_decisions
from storage.tables.trainings import find_newest, list_labelled
from storage.vectors.feature_file import Matrix
from tasks.train.review.contact_sheet import ContactSheet, ReviewItem, write_sheet
from tasks.train.review.issues import Issue, Problem, find_issues
from tasks.train.review.review_table import ReviewRow, read_table, write_table
from tasks.train.rows.near_duplicates import make_file_comparison
from tasks.train.settings import TrainSettings

TABLE, SHEET = "review.csv", "review.html"
PROBLEMS: tuple[Problem, ...] = ("label", "duplicate", "outlier", "conflict")
CONFLICT_SEPARATOR = " | "

Files = Mapping[str, ImageCopy]


@dataclass(frozen=True)
class LabelledImages:
    """What a review looks at: images with one class, their features [n, dim], and images with several classes.

    ``files`` has a file of every image that a source still lists.
    """

    image_ids: Sequence[str]
    classes: Sequence[str]
    features: Matrix
    conflicts: Sequence[tuple[str, Sequence[str]]]
    files: Files


def review(home: Home, label_set: LabelSetName, folder: Path) -> dict[str, Any]:
    """Find label issues by the features of the newest training; write the table and the contact sheet.

    Raises:
        ReviewError: if nothing was trained, there are too few labels, or the table has decisions that would be lost.
    """
    with read_lake(home) as lake:
        recipe_id, settings = _find_training(lake, label_set)
        images = _read_images(lake, label_set, recipe_id)
    same = make_file_comparison(images.image_ids, [images.files.get(image_id) for image_id in images.image_ids])
    with show_progress("compare", len(images.image_ids)) as advance:
        issues = find_issues(images.features, np.array(images.classes), settings, same, advance)
    items = [*(_make_item(images, issue) for issue in issues), *_list_conflicts(images)]
    written = _write(label_set, images, items, folder)
    return {"name": label_set, "images": len(images.image_ids), "suspects": _count_problems(items), **written}


def _read_images(lake: Lake, label_set: LabelSetName, recipe_id: str) -> LabelledImages:
    rows, conflicts = list_labelled(lake, label_set, recipe_id), list_conflicts(lake, label_set)
    image_ids, everything = [image_id for image_id, _ in rows], [image_id for image_id, _ in (*rows, *conflicts)]
    return LabelledImages(
        image_ids,
        [name for _, name in rows],
        read_features(lake, recipe_id, image_ids),
        conflicts,
        choose_copies(lake, everything),
    )


def _make_item(images: LabelledImages, issue: Issue) -> ReviewItem:
    other_id = None if issue.other is None else images.image_ids[issue.other]
    image_id, label = images.image_ids[issue.image], images.classes[issue.image]
    return ReviewItem(issue.problem, image_id, label, issue.suggestion, issue.score, other_id)


def _list_conflicts(images: LabelledImages) -> list[ReviewItem]:
    return [ReviewItem("conflict", image_id, CONFLICT_SEPARATOR.join(names)) for image_id, names in images.conflicts]


def _count_problems(items: Sequence[ReviewItem]) -> dict[str, int]:
    problems = Counter(item.problem for item in items)
    return {problem: problems[problem] for problem in PROBLEMS}


def _write(
    label_set: LabelSetName, images: LabelledImages, items: Sequence[ReviewItem], folder: Path
) -> dict[str, Any]:
    table, sheet = folder / TABLE, folder / SHEET
    contents = ContactSheet(
        label_set,
        len(images.image_ids) + len(images.conflicts),
        items,
        images.files,
        str(table),
        _command(label_set, table),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_table([_make_row(item, images.files) for item in items], table)
        write_sheet(contents, sheet)
    except OSError as error:
        remedy = "Name another folder with --folder"
        raise ReviewError(f"folder {folder}", f"cannot be written ({error.strerror})", remedy) from error
    return {"table": str(table), "sheet": str(sheet)}


def _make_row(item: ReviewItem, files: Files) -> ReviewRow:
    return ReviewRow(
        item.problem,
        item.image_id,
        _find_path(files, item.image_id) or "",
        item.label,
        item.suggestion,
        "" if item.score is None else f"{item.score:.4f}",
        (_find_path(files, item.other_id) or "") if item.other_id else "",
    )


def _find_path(files: Files, image_id: str) -> str | None:
    return files[image_id].full_path if image_id in files else None


def _command(label_set: str, table: Path | str) -> str:
    return shlex.join(["frostline", "review", "--name", label_set, "--apply", str(table)])


def _find_training(lake: Lake, label_set: LabelSetName) -> tuple[str, TrainSettings]:
    training = find_newest(lake, label_set)
    if training is None:
        raise ReviewError(
            label_set, "has no trained head in this lake", "Train one: frostline run FOLDER; or check --home"
        )
    settings = restore_train_settings(training.settings)
    if settings.multi_label:
        rule = "was trained with several labels per image; a review cannot tell which of them is wrong"
        raise ReviewError(label_set, rule, "Review another label set")
    return training.recipe_id, settings


def apply_decisions(home: Home, label_set: LabelSetName, file: Path) -> dict[str, Any]:
    """Save a person's decisions as labels: a new version of the label set.

    Raises:
        ReviewError: if the table has no decision, contradicts itself, or names images that have no label any more.
    """
    decisions = _read_decisions(file)
    with read_lake(home) as lake:
        _find_training(lake, label_set)  # refuses heads that give several labels
    with open_lake(home) as lake:
        changed = save_decisions(lake, label_set, decisions, file.name, datetime.now(UTC))
    with read_lake(home) as lake:
        return {"name": label_set, "decisions": len(decisions), "changed": changed, "snapshot": lake.snapshot}


def _read_decisions(file: Path) -> dict[str, str]:
    decisions = {(row.image_id, row.decision) for row in read_table(file) if row.decision}
    if not decisions:
        raise ReviewError(f"table {file}", "has no decision", "Fill in its column decision, then apply it again")
    for image_id, _ in decisions:
        _check_id(image_id, file)
    counts = Counter(image_id for image_id, _ in decisions)
    if contradictory := [image_id for image_id, count in counts.items() if count > 1]:
        raise ReviewError(f"image {min(contradictory)}", f"has several decisions in {file}", "Keep one of them")
    return dict(sorted(decisions))


def _check_id(image_id: str, file: Path) -> None:
    try:
        UUID(image_id)
    except ValueError as error:
        raise ReviewError(
            f"image {image_id!r} in {file}", "is no image_id", "Leave that column as `frostline review` wrote it"
        ) from error


def describe(found: Mapping[str, Any]) -> list[str]:
    """Describe a review, or the result of applying its decisions, for the terminal."""
    if "decisions" in found:
        return [
            f"decisions {found['decisions']} · labels changed or confirmed {found['changed']}",
            f"lake      snapshot {found['snapshot']}",
            "next      frostline run: trains on the new labels and computes no feature",
        ]
    return [
        f"images    {found['images']}",
        f"suspects  {' · '.join(f'{problem} {images}' for problem, images in found['suspects'].items())}",
        f"look      {found['sheet']}",
        f"decide    write classes into {found['table']}, then: {_command(found['name'], found['table'])}",
    ]
