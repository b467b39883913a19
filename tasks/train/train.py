"""One training: rows of one snapshot, a head, its measure, and the record of all three."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from storage.attach import open_lake, read_lake
from storage.canonical import digest
from storage.features import read_features
from storage.heads import save_head
from storage.images import list_facts
from storage.lake import Lake
from storage.paths import Home
from storage.progress import Progress, silent
from storage.release import name_release
from storage.trainings import (
    Training,
    checkpoint_folder,
    digest_labelled,
    evaluation_path,
    find_training,
    head_path,
    list_labelled,
    save_training,
)
from storage.vectors import Matrix
from tasks.train.evaluate import Evaluation, evaluate
from tasks.train.labelling import train_labels
from tasks.train.neither import add_neither
from tasks.train.settings import TrainSettings
from tasks.train.splits import SPLITS, Coverage, assign_split, check_splits, keep_rows, warn_thin
from tasks.train.sweep import Candidate, Pretrained, fit_heads

FIRST = {"seed", "validation", "test", "l2", "class_weights", "leave_out", "iterations"}
"""Settings of the first release."""
PLACE = {"device"}
"""Settings that decide nothing about a head."""

TrainingRow = tuple[str, str, str]
"""(image_id, class, split)"""


@dataclass(frozen=True)
class Trained:
    """A training; ``new`` where it was done now and not found; ``warnings`` say what is thin about its labels."""

    training: Training
    new: bool
    warnings: tuple[str, ...]


def train_head(
    home: Home,
    label_set: str,
    recipe_id: str,
    settings: TrainSettings,
    now: datetime,
    at: int | None = None,
    opener: str = "",
    progress: Progress = silent,
) -> Trained:
    """Train a head on a snapshot's rows, or find the one that the same rows, recipe and settings gave before.

    Args:
        home: The home of lake, heads and backbones.
        label_set: Whose classes are learned.
        recipe_id: Of the features.
        settings: How.
        now: The present.
        at: A snapshot; by default the newest one.
        opener: "module:function" that opens the layers after a packed backbone's cut, for tails.
        progress: Is told of what takes long.

    Raises:
        TrainError: where the labels cannot train or measure a head.
    """
    with read_lake(home, at) as lake:
        training_id = identify(lake, label_set, recipe_id, settings)
        known = _find(home, lake, training_id)
        if known:
            return known
        labels = keep_rows(list_labelled(lake, label_set, recipe_id, several=settings.multi_label), settings)
        coverage = check_splits(labels, settings)
        rows = [(image_id, name, assign_split(image_id, settings)) for image_id, name in labels]
        rows.sort(key=lambda row: SPLITS.index(row[2]))  # so that a split is a slice, and no copy
        snapshot = lake.snapshot if at is None else at
        images = {image_id: split for image_id, _, split in rows}
        features = read_features(lake, recipe_id, list(images))
        facts = list_facts(lake, [image_id for image_id, split in images.items() if split == "test"])
    checkpoints = checkpoint_folder(home, training_id)
    pretrained = Pretrained(opener, home.backbones / recipe_id, checkpoints, progress)
    candidates, evaluation = _fit(features, rows, facts, settings, pretrained)
    chosen = {**settings.model_dump(), **{f"chosen_{name}": value for name, value in candidates[0].choice.items()}}
    training = Training(training_id, label_set, recipe_id, snapshot, chosen, evaluation.metrics)
    _keep(home, training, candidates, evaluation, coverage)
    with open_lake(home) as lake:
        save_training(lake, training, _to_table(rows), now, name_release())
    shutil.rmtree(checkpoints, ignore_errors=True)
    return Trained(training, new=True, warnings=coverage.warnings)


def identify(lake: Lake, label_set: str, recipe_id: str, settings: TrainSettings) -> str:
    """Hash what decides a head: the recipe, the settings and the rows, whose splits follow from the settings.

    A setting that the first release had not counts where it is not the default, so that old heads stay known.
    """
    asked = settings.model_dump(include=FIRST) | settings.model_dump(exclude=FIRST | PLACE, exclude_defaults=True)
    decides = {
        "label_set": label_set,
        "recipe": recipe_id,
        "settings": asked,
        "rows": digest_labelled(lake, label_set, recipe_id, settings.leave_out, several=settings.multi_label),
    }
    return digest(decides)


def _find(home: Home, lake: Lake, training_id: str) -> Trained | None:
    head, report = head_path(home, training_id), evaluation_path(home, training_id)
    training = find_training(lake, training_id) if head.exists() and report.exists() else None
    if training is None:
        return None
    return Trained(training, new=False, warnings=warn_thin(json.loads(report.read_text(encoding="utf-8"))["splits"]))


def _fit(
    features: Matrix, rows: Sequence[TrainingRow], facts: pa.Table, settings: TrainSettings, pretrained: Pretrained
) -> tuple[tuple[Candidate, ...], Evaluation]:
    if settings.multi_label:
        return train_labels(features, rows, facts, settings)
    names, counts = np.array([name for _, name, _ in rows]), Counter(split for _, _, split in rows)
    ends = np.cumsum([counts[split] for split in SPLITS])[:-1]
    train, validation, test = zip(np.split(features, ends), np.split(names, ends), strict=True)
    candidates = fit_heads(train, validation, settings, pretrained)
    if settings.false_accept is None:
        return candidates, evaluate(candidates[0].head, *test, facts, settings.seed)
    found = add_neither(candidates[0], train, validation, test, settings, settings.false_accept)
    evaluation = evaluate(found.candidate.head, *test, facts, settings.seed)
    metrics = {**evaluation.metrics, **found.metrics}
    return (found.candidate, *candidates[1:]), replace(evaluation, metrics=metrics, unknown=found.classes)


def _keep(
    home: Home, training: Training, candidates: Sequence[Candidate], evaluation: Evaluation, coverage: Coverage
) -> None:
    """Write the head and its measure as files; the lake's row, which comes after them, makes them count."""
    head = head_path(home, training.training_id)
    save_head(candidates[0].head, head)
    report = {
        **asdict(evaluation),
        "splits": coverage.counts,
        "images": coverage.images,
        "candidates": [{**candidate.choice, "validation_log_loss": candidate.loss} for candidate in candidates],
    }
    evaluation_path(home, training.training_id).write_text(json.dumps(report, indent=1), encoding="utf-8")


def _to_table(rows: Sequence[TrainingRow]) -> pa.Table:
    image_ids, names, splits = zip(*rows, strict=True)
    return pa.table({"image_id": image_ids, "class": names, "split": splits})
